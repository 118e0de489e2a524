"""What the controls have learnt, and the rewards that follow from it.

Some controls learn from answers while they serve: the discriminator of the human-KL term, and the
multipliers of penalties with a target rate. `sarm serve` and the replicas of a Ray deployment use the same
pieces: `LearntState` is one version of what was learnt, `reward_batch` gives rewards by it, and
`LearningWindow` decides which answers make up an update.

Shapes: `N` answers.
"""

import copy
import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import ControlState
from sarm_control.engines import ControlledReward, check_served, keep_state, load_state_file
from sarm_control.errors import ConfigError
from sarm_control.files import check_writable
from sarm_control.locks import hold
from sarm_control.reward_model import Contribution, Scored


@dataclass(frozen=True)
class BatchReward:
    """The rewards of answers that were scored together.

    Args:
        values: [N] what engines are given: totals, or standardised totals; see `answers` for those that are
            no finite numbers.
        columns: name -> [N] parts in reward units, see `ControlledReward.terms`.
        scored: the answers.
        version: updates that the controls had learnt from before; 0 where they had learnt nothing.
    """

    values: Sequence[float]
    columns: Mapping[str, Sequence[float]]
    scored: Scored
    version: int

    def answers(self, tokens: Sequence[int], *, cached: bool) -> "list[Answered | ArithmeticError]":
        """Each answer's reward; an error where it is NaN or infinite, which fails no other answer.

        Args:
            tokens: [N] of the whole conversations.
            cached: whether their latents were known already.
        """
        return [
            Answered(self, row, count, cached)
            if math.isfinite(value)
            else ArithmeticError("a reward is not a finite number")
            for row, (value, count) in enumerate(zip(self.values, tokens, strict=True))
        ]


class Answered(NamedTuple):
    """The reward of one conversation: row `row` of a batch.

    Args:
        reward: the batch; its other rows do not change this one.
        row: the conversation's place in it.
        tokens: of the whole conversation, as it was scored.
        cached: whether its latents were known already.
    """

    reward: BatchReward
    row: int
    tokens: int
    cached: bool

    @property
    def value(self) -> float:
        """What engines are given."""
        return self.reward.values[self.row]

    def column(self, name: str) -> float:
        """A part of the reward, in reward units."""
        return self.reward.columns[name][self.row]

    @property
    def ended(self) -> bool:
        """False where the answer had no end-of-turn."""
        return bool(self.reward.scored.ended[self.row])

    @property
    def truncated(self) -> int:
        """Tokens dropped from the left."""
        return int(self.reward.scored.truncated[self.row])

    @property
    def length(self) -> int:
        """Tokens of the answer."""
        return int(self.reward.scored.lengths[self.row])

    def contributions(self, top: int) -> list[Contribution]:
        """The largest parts of the model's own reward."""
        return self.reward.scored.contributions(self.row, top)


@dataclass(frozen=True)
class LearntState:
    """One version of what the controls have learnt.

    It is replaced as a whole and never changed, so that a batch that is rewarded during an update sees
    either the state before it or the one after it.

    Args:
        learner: what was learnt.
        version: how many updates it comes from.
    """

    learner: ControlState
    version: int

    def updated(self, scored: Scored, file: Path | None) -> "LearntState":
        """The next version, learnt from N answers and written to `file` before it is used.

        Raises:
            OutputError: the file cannot be written.
        """
        learner, version = copy.deepcopy(self.learner), self.version + 1
        # on a copy: an update that fails half way leaves the version that is in use as it was
        learner.learn(scored)
        if file is not None:
            # written before it is used: after a crash the file is never behind a reward that was given
            keep_state(file, learner, version)
        return LearntState(learner, version)

    def replaced(self, arrays: Mapping[str, NDArray[Any]], version: int) -> "LearntState":
        """Another version of the same controls, from the arrays of its `ControlState.state_dict`.

        Raises:
            TrainingError: arrays are missing, or belong to other controls.
        """
        learner = copy.deepcopy(self.learner)
        learner.load_state_dict(arrays)
        return LearntState(learner, version)


def reward_batch(reward: ControlledReward, state: LearntState, scored: Scored) -> BatchReward:
    """The rewards of N answers by one version of the controls, each as if the answer were alone."""
    rewards = reward.rule.breakdown(scored, state.learner)
    columns = {name: rewards.columns[name].tolist() for name in reward.terms}
    return BatchReward(reward.values(rewards).tolist(), columns, scored, state.version)


class LearningWindow:
    """Answers that wait for the next update, which takes exactly `every` of them, the oldest first.

    The number is fixed since the human-KL term must not learn from more answers than its human buffer has
    demonstrations; `ControlState.check_size` checks that once, at the start.

    Args:
        every: answers of one update, >= 2.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._waiting: list[tuple[Scored, int]] = []

    def add(self, answers: Sequence[tuple[Scored, int]]) -> None:
        """Adds answers, each as the batch it was scored in and its row there."""
        self._waiting.extend(answers)

    def take(self) -> Scored | None:
        """The oldest `every` answers, which are then no longer in the window; None where there are fewer."""
        if len(self._waiting) < self.every:
            return None
        window, self._waiting = self._waiting[: self.every], self._waiting[self.every :]
        return gathered(window)


class VersionedControls:
    """Rewards answers by one version of the controls, and lets the controls learn from them if they may.

    The controls learn from every `every` answers, in the order in which their requests arrived, after these
    answers got their rewards. While an update is computed, rewards follow the version before it. An update
    that fails changes nothing.

    Args:
        reward: the model's, with its controls.
        learns: whether the controls learn; otherwise they stay as they are now.
        every: answers of one update.
        state_file: what was learnt is loaded from there, and written there after every update.

    Raises:
        ConfigError: controls that a server cannot hold, see `check_served`; a state file that does not
            exist, where nothing may be learnt.
        DataError: updates of more answers than the human buffer has demonstrations.
        TrainingError: a state file that cannot be read, or of other controls.
    """

    def __init__(
        self,
        reward: ControlledReward,
        *,
        learns: bool = False,
        every: int = 256,
        state_file: Path | None = None,
    ) -> None:
        self.reward = reward
        self.learns = learns and reward.learns
        self.metrics: dict[str, float] = {}
        self._file = state_file
        self._state = LearntState(reward.learner, self._load(learns))
        # two locks: a request that arrives must not wait for an update
        self._lock, self._learning = threading.Lock(), threading.Lock()
        self._arrived = 0
        self._next = 0
        self._early: dict[int, Sequence[tuple[Scored, int]]] = {}
        self._window = LearningWindow(every)
        self._fired = np.zeros(reward.model.config.latents, dtype=np.int64)
        self._answers = 0
        check_served(reward, learns=learns)
        if self.learns:
            reward.learner.check_size(every)

    @property
    def version(self) -> int:
        """Updates since the start, and before it where they were kept in a file."""
        return self._state.version

    @property
    def digest(self) -> str | None:
        """16 hex digits that identify what was learnt; None when nothing learns."""
        arrays = self._state.learner.state_dict()
        if not arrays:
            return None
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        return digest.hexdigest()[:16]

    def reward_answers(self, scored: Scored) -> BatchReward:
        """The rewards of N answers, see `reward_batch`."""
        # read once: an update that ends meanwhile replaces the state as a whole and changes none in use
        batch = reward_batch(self.reward, self._state, scored)
        right = np.flatnonzero(np.isfinite(batch.values))
        self._count(scored if len(right) == len(scored) else scored.take(right))
        return batch

    def fired(self, latent: int) -> tuple[int, int]:
        """Answers in which a latent was above 0, and all answers, since the start."""
        with self._lock:
            return int(self._fired[latent]), self._answers

    def arrive(self) -> int:
        """The number of a request that came in. `finish` has to be called with every number."""
        with self._lock:
            self._arrived += 1
            return self._arrived - 1

    def finish(self, number: int, answered: Sequence[tuple[Scored, int]]) -> None:
        """Learns from the answers of a request, once every earlier request is finished.

        Requests finish in any order. Their answers enter the window in the order of arrival, so that what
        is learnt does not depend on which batch happened to be faster.

        Args:
            number: of the request.
            answered: its answers in their order, each as the batch it was scored in and its row there;
                none where the request failed, or where nothing may be learnt from it.
        """
        if not self.learns:
            return
        with self._learning:
            self._early[number] = answered
            while self._next in self._early:
                self._window.add(self._early.pop(self._next))
                self._next += 1
            while (window := self._window.take()) is not None:
                self._update(window)

    def _update(self, scored: Scored) -> None:
        # the metrics say how far these answers are from human ones before anything is learnt from them
        before = self.reward.rule.breakdown(scored, self._state.learner)
        self.metrics = {name: value for name, value in before.metrics.items() if "human_kl/" in name}
        self._state = self._state.updated(scored, self._file)

    def _load(self, learns: bool) -> int:
        """Loads the state file into the reward's learner; the version it holds."""
        if self._file is None:
            return 0
        if learns:
            # two servers that write one file would undo each other's updates
            check_writable(self._file)
            hold(self._file)
        if self._file.exists():
            return load_state_file(self._file, self.reward.learner)
        if not learns:
            raise ConfigError(
                f"{self._file}: there is no such file, and nothing that would write it",
                hint="--learn-kl learns while serving, and keeps what it learns there",
            )
        return 0

    def _count(self, scored: Scored) -> None:
        latents = scored.latents
        above = latents.indices[latents.values > 0]
        with self._lock:
            self._fired += np.bincount(above, minlength=len(self._fired))
            self._answers += len(scored)


def gathered(answers: Sequence[tuple[Scored, int]]) -> Scored:
    """One `Scored` of answers that were scored in several batches."""
    # by identity: a batch is shared by many answers, and comparing its arrays
    # would take longer than joining them
    batches = {id(scored): scored for scored, _ in answers}
    sizes = [len(scored) for scored in batches.values()]
    starts = dict(zip(batches, np.cumsum([0, *sizes[:-1]]), strict=True))
    rows = np.array([starts[id(scored)] + row for scored, row in answers])
    return Scored.concatenate(list(batches.values())).take(rows)
