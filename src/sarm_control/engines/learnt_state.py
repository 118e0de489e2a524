"""What controls have learnt while they served, in a file that outlives the process."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sarm_control.bounded_json import MISSHAPEN
from sarm_control.control.state import ControlState
from sarm_control.errors import TrainingError
from sarm_control.files import atomic_file

_VERSION = "learnt_batches"


def keep_state(file: Path, learner: ControlState, version: int) -> None:
    """Writes what was learnt in `version` lessons, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    with atomic_file(file) as part:
        save_file({**learner.state_dict(), _VERSION: np.array(version)}, part)


def take_up_state(file: Path, learner: ControlState) -> int:
    """Puts what was kept into `learner`; the lessons it comes from.

    Raises:
        TrainingError: the file cannot be read, or belongs to other demonstrations or penalties.
    """
    try:
        arrays = load_file(file)
        version = int(arrays.pop(_VERSION))
    except (OSError, SafetensorError, *MISSHAPEN) as error:
        raise TrainingError(
            f"{file}: what the controls learnt cannot be read ({error})",
            hint="move it away to begin with nothing learnt",
        ) from error
    learner.load_state_dict(arrays)
    return version
