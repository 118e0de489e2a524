"""The one owner of what the controls have learnt.

Shapes: `N` answers.
"""

import copy
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sarm_control.control import ControlState
from sarm_control.engines import ControlledReward, check_served, keep_state, load_state_file
from sarm_control.errors import ConfigError
from sarm_control.files import check_writable
from sarm_control.locks import hold
from sarm_control.reward_model import Scored


@dataclass(frozen=True)
class BatchReward:
    """What answers that were scored together are paid.

    Args:
        values: [N] what engines are given: totals, or standardised totals.
        columns: name -> [N] parts in reward units, see `ControlledReward.terms`.
        scored: the answers.
        version: of what the controls had learnt; 0 is how the server started.
    """

    values: Sequence[float]
    columns: Mapping[str, Sequence[float]]
    scored: Scored
    version: int


@dataclass(frozen=True)
class _State:
    """What was learnt, and the number it goes by: replaced as a whole, never changed."""

    learner: ControlState
    version: int


class VersionedControls:
    """Pays answers by one state of the controls, and lets it learn from them if it may.

    What learns does so from every `every` answers in the order their requests arrived, after they were
    paid. Paying goes on by the state before until the new one is there. A lesson that fails changes nothing.

    Args:
        reward: the model's, with its controls.
        learns: whether anything is learnt; else everything stays as it is now.
        every: answers of one lesson.
        state_file: what was learnt is taken up from there, and kept there after every lesson.

    Raises:
        ConfigError: controls that would charge nothing for ever, or by whom an answer comes with; a state
            file that is not there, where nothing may be learnt.
        DataError: lessons of more answers than the human buffer has demonstrations.
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
        self.every = every
        self.metrics: dict[str, float] = {}
        self._file = state_file
        self._state = _State(reward.learner, self._load(learns))
        self._lock, self._learning = threading.Lock(), threading.Lock()
        self._arrived = 0
        self._next = 0
        self._early: dict[int, Sequence[tuple[Scored, int]]] = {}
        self._window: list[tuple[Scored, int]] = []
        self._fired = np.zeros(reward.model.config.latents, dtype=np.int64)
        self._answers = 0
        check_served(reward, learns=learns)
        if self.learns:
            reward.learner.check_size(every)

    @property
    def version(self) -> int:
        """Lessons learnt since the start, and before it where they were kept in a file."""
        return self._state.version

    @property
    def digest(self) -> str | None:
        """16 hex digits that identify what was learnt; None when nothing learns."""
        arrays = self._state.learner.state_dict()
        if not arrays:
            return None
        found = hashlib.sha256()
        for name in sorted(arrays):
            found.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        return found.hexdigest()[:16]

    def reward_answers(self, scored: Scored) -> BatchReward:
        """Pays answers, each as if it were alone."""
        state = self._state
        rewards = self.reward.rule.breakdown(scored, state.learner)
        values = self.reward.values(rewards)
        if not np.isfinite(values).all():
            raise ArithmeticError("a reward is not a finite number")
        columns = {name: rewards.columns[name].tolist() for name in self.reward.terms}
        self._count(scored)
        return BatchReward(values.tolist(), columns, scored, state.version)

    def fired(self, latent: int) -> tuple[int, int]:
        """Answers in which a latent was above 0, and all answers, since the start."""
        with self._lock:
            return int(self._fired[latent]), self._answers

    def arrive(self) -> int:
        """The number of a request that came in; `finish` wants every one of them."""
        with self._lock:
            self._arrived += 1
            return self._arrived - 1

    def finish(self, number: int, answered: Sequence[tuple[Scored, int]]) -> None:
        """Learns from the answers of a request, once every earlier request is finished.

        Args:
            number: of the request.
            answered: its answers in their order, each as those it was scored with and its row among them;
                none where the request failed or is not to teach.
        """
        if not self.learns:
            return
        with self._learning:
            self._early[number] = answered
            while self._next in self._early:
                self._window.extend(self._early.pop(self._next))
                self._next += 1
            while len(self._window) >= self.every:
                window, self._window = self._window[: self.every], self._window[self.every :]
                self._learn(_gathered(window))

    def _learn(self, scored: Scored) -> None:
        shaped = self.reward.rule.breakdown(scored, self._state.learner)
        self.metrics = {name: value for name, value in shaped.metrics.items() if "human_kl/" in name}
        learner = copy.deepcopy(self._state.learner)
        learner.learn(scored)
        version = self._state.version + 1
        if self._file is not None:
            keep_state(self._file, learner, version)
        self._state = _State(learner, version)

    def _load(self, learns: bool) -> int:
        if self._file is None:
            return 0
        if learns:
            # two servers that learn into one file would undo each other's lessons
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


def _gathered(answers: Sequence[tuple[Scored, int]]) -> Scored:
    """One `Scored` of answers that were scored in several."""
    parts = {id(scored): scored for scored, _ in answers}
    sizes = [len(scored) for scored in parts.values()]
    starts = dict(zip(parts, np.cumsum([0, *sizes[:-1]]), strict=True))
    rows = np.array([starts[id(scored)] + row for scored, row in answers])
    return Scored.concatenate(list(parts.values())).take(rows)
