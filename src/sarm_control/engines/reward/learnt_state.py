"""The file that keeps what controls learnt while they served, and the check of what can be served."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sarm_control.bounded_json import MISSHAPEN
from sarm_control.control import ControlState
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.files import atomic_file

_VERSION = "learnt_batches"


def keep_state(file: Path, learner: ControlState, version: int) -> None:
    """Writes what was learnt in `version` updates. The file is replaced as a whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    with atomic_file(file) as part:
        save_file({**learner.state_dict(), _VERSION: np.array(version)}, part)


def load_state_file(file: Path, learner: ControlState) -> int:
    """Loads the file into `learner`; returns the number of updates it comes from.

    Raises:
        TrainingError: the file cannot be read, or belongs to other demonstrations or penalties.
    """
    try:
        arrays = load_file(file)
        version = int(arrays.pop(_VERSION))
    except (OSError, SafetensorError, *MISSHAPEN) as error:
        raise TrainingError(
            f"{file}: what the controls learnt cannot be read ({error})",
            hint="move it away to start with nothing learnt",
        ) from error
    learner.load_state_dict(arrays)
    return version


def check_served(reward: ControlledReward, *, learns: bool) -> None:
    """Refuses controls that cannot work where answers come one by one.

    Args:
        reward: the reward to serve.
        learns: whether its controls learn from the answers.

    Raises:
        ConfigError: the penalty of an answer would depend on the answers beside it, nothing can be learnt
            where it should, or controls that learn are frozen before they have learnt anything.
    """
    human_kl = reward.controls.human_kl
    if human_kl is not None and human_kl.mode == "batch":
        raise ConfigError(
            "human_kl in batch mode makes the penalty of an answer depend on the answers it is scored with; "
            "a server's answers do not depend on each other",
            hint="human_kl: {mode: per_sample}",
        )
    if learns and not reward.learns:
        raise ConfigError(
            "there is nothing to learn: the controls have no human_kl and no target_rate",
            hint="leave --learn-kl (learn_window) out, or give --controls with a human_kl section",
        )
    if reward.learns and not learns and not _has_learnt(reward.learner.state_dict()):
        raise ConfigError(
            "the controls have learnt nothing yet and are frozen: their penalty would stay 0",
            hint="--learn-kl (learn_window) learns while serving; --controls RUN loads what a run has learnt",
        )


def _has_learnt(arrays: Mapping[str, NDArray[Any]]) -> bool:
    human_kl, rates = arrays.get("human_kl.parameters"), arrays.get("target_rate.multipliers")
    # the discriminator has no parameters before its first update, and the multipliers begin at 0
    return (human_kl is None or human_kl.size > 0) and (rates is None or bool(np.any(rates)))
