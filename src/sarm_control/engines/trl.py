"""The reward for TRL's `GRPOTrainer` and `RLOOTrainer`, through their public `reward_funcs`.

    reward = reward_function("lab", Controls(edits=[Edit(12, max=2.0)]))
    GRPOTrainer(..., reward_funcs=reward, callbacks=[reward.callback])

TRL calls it in every process with that process's answers. They are gathered, so that each process learns the
same and computes the same statistics of a batch. TRL does not say whether a call belongs to training or to
evaluation, and it saves nothing of a reward function: `callback` does both.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sarm_control.control import Array, Controls, ReferenceStatistics
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.engines.reward.gathering import gather_with_place
from sarm_control.engines.reward.messages import EngineText, score_rows
from sarm_control.engines.reward.open_reward import ControlFiles, open_reward, read_reference
from sarm_control.engines.trl_callback import SarmCallback
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model import RewardModel
from sarm_control.training import read_demonstrations


class LogMetric(Protocol):
    """TRL's `log_metric`: a number of a batch, averaged over processes and calls until it is logged."""

    def __call__(self, name: str, value: float) -> None:
        """Logs one number."""


class LogExtra(Protocol):
    """TRL's `log_extra`: a column of the table of completions."""

    def __call__(self, column: str, values: list[Any]) -> None:
        """Logs one value for each answer."""


class TrlReward:
    """A controlled reward that TRL can call; see `reward_function`.

    Args:
        reward: the reward model under its controls.
        end_tokens: ids that end an answer of the policy. With None they are the trainer's, once it has the
            `callback`, and the reward model's end of turn before.
        log_answers: whether the parts of each answer's reward are logged to the table of completions.
        name: its name in TRL's metrics, as `rewards/<name>/mean`.
    """

    def __init__(
        self,
        reward: ControlledReward,
        *,
        end_tokens: Sequence[int] | None = None,
        log_answers: bool = False,
        name: str = "sarm",
    ) -> None:
        self.reward = reward
        self.log_answers = log_answers
        self.callback = SarmCallback(reward)
        self.__name__ = name
        self._end_tokens = None if end_tokens is None else frozenset(end_tokens)

    @property
    def end_tokens(self) -> frozenset[int]:
        """The ids that end an answer. An answer with another last id hit the length limit."""
        if self._end_tokens is not None:
            return self._end_tokens
        return self.callback.end_tokens or frozenset([self.reward.model.template.end_of_turn_id])

    def __call__(
        self,
        prompts: Sequence[EngineText],
        completions: Sequence[EngineText],
        completion_ids: Sequence[Sequence[int]],
        *,
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **_: Any,
    ) -> list[float]:
        """The rewards of this process's N answers, as TRL asks for them.

        Args:
            prompts: [N] strings or messages, see `score_rows`.
            completions: [N] strings or messages, without the end token.
            completion_ids: [N] generated ids; the last one says whether the answer ended.
            log_metric: gets the mean of every part of the reward and the metrics of the controls.
            log_extra: gets the parts of each answer's reward if `log_answers` is set.

        Raises:
            ConfigError: controls that learn, without the callback that separates training from evaluation.
            DataError: see `score_rows`.
            TrainingError: a reward that is not a finite number; TRL would drop it silently.
        """
        self._check_callback()
        # by the ids, because TRL decodes completions without special tokens: the
        # text of a cut answer looks whole
        ended = [bool(ids) and ids[-1] in self.end_tokens for ids in completion_ids]
        # an error in one process alone would leave the others waiting in `gather`, so NaN is refused after it
        mine = score_rows(self.reward.model, prompts, completions, ended, on_nonfinite="keep")
        scored, own = gather_with_place(mine)
        rewards = self.reward.breakdown(scored)
        values = _finite(self.reward.values(rewards))
        # after the rewards: an answer is never judged by a discriminator that has learnt from it
        # already
        if self.callback.learning:
            self.reward.learn(scored)
        if log_metric is not None:
            for name, value in rewards.means().items():
                if math.isfinite(value):  # an interval may have no upper end; JSON has no infinity
                    log_metric(name, value)
        if log_extra is not None and self.log_answers:
            for name, column in rewards.columns.items():
                log_extra(name, column[own].tolist())
        # only this process's own: TRL gathers the lists of all processes itself
        return [float(value) for value in values[own]]

    def load(self, checkpoint: str | Path) -> None:
        """Loads what the controls had learnt at a checkpoint, and forgets what they have learnt since.

        Resuming in the same `output_dir` needs no call: the callback reads the checkpoint that TRL resumes
        from.

        Raises:
            TrainingError: see `SarmCallback.load`.
        """
        self.callback.load(Path(checkpoint))

    def _check_callback(self) -> None:
        if self.reward.learns and not self.callback.attached:
            raise ConfigError(
                "these controls learn from the answers of training, and TRL does not mark these answers",
                hint="give the trainer callbacks=[reward.callback]",
            )


def reward_function(
    rm: RewardModel | str | Path,
    controls: Controls | str | Path | None = None,
    *,
    reference: ReferenceStatistics | str | Path | None = None,
    human: HumanBuffer | str | Path | None = None,
    missing_end: float | str | None = None,
    standardize: bool = False,
    seed: int = 0,
    end_tokens: Sequence[int] | None = None,
    log_answers: bool = False,
    name: str = "sarm",
) -> TrlReward:
    """A reward for `reward_funcs` of TRL's GRPO and RLOO trainers.

    Args:
        rm: a reward model, or its name, folder or hub id.
        controls: edits, penalties and human-KL term; or a run file; or the folder of a run of `sarm train`,
            whose controls are loaded as they were at its last checkpoint.
        reference: what amounts in SDs and quantiles are measured on: statistics (see `calibrate`), or a file
            with saved statistics, rows of answers, or a folder of latents.
        human: demonstrations for the human-KL term, or a file of them.
        missing_end: penalty for an answer that hit the length limit: reward units, or SDs such as `1sd`. None
            is no penalty, or the one of the run file.
        standardize: whether rewards are `(total - mean) / sd` of the reference instead of reward units.
        seed: seed of what the controls learn; the same in every process.
        end_tokens: see `TrlReward`.
        log_answers: see `TrlReward`.
        name: see `TrlReward`.

    Raises:
        ConfigError: controls without the reference or demonstrations that they need; a setting that the file
            of controls has too.
        ModelError: no such reward model, or statistics or demonstrations of another head.
    """
    model = rm if isinstance(rm, RewardModel) else RewardModel.from_pretrained(rm, device=_device())
    options: dict[str, Any] = {"standardize": standardize, "seed": seed}
    if isinstance(controls, str | Path):
        files = ControlFiles(Path(controls), _file(human, "human"), _file(reference, "reference"))
        if missing_end is not None:
            # two places for one setting, of which one would win unseen
            raise ConfigError("missing_end is a key of the file of controls", hint="set it there")
        reward = open_reward(model, files, **options)
    else:
        given = controls or Controls()
        if isinstance(reference, str | Path):
            reference = read_reference(Path(reference), model, given)
        if isinstance(human, str | Path):
            latents = () if given.human_kl is None else given.human_kl.latents
            human = read_demonstrations(Path(human), latents, model)
        options |= {"missing_end": missing_end or 0.0, "reference": reference, "human": human}
        reward = ControlledReward(model, given, **options)
    return TrlReward(reward, end_tokens=end_tokens, log_answers=log_answers, name=name)


def _finite(values: Array) -> Array:
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise TrainingError(f"the reward of answer {row} of the gathered batch is {values[row]}")
    return values


def _file(given: object, what: str) -> Path | None:
    if given is None or isinstance(given, str | Path):
        return None if given is None else Path(given)
    raise ConfigError(f"with a file of controls, {what} is a file too", hint="save it and give its path")


def _device() -> str | None:
    """The GPU of this process; None leaves the choice to `from_pretrained`."""
    import torch

    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None
