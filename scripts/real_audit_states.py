"""The states of texts: each text passes through a frozen trunk once, and its state is kept on disk.

Shapes: `N` texts, `D` hidden size.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sarm_control.conversation import Encoded
    from sarm_control.reward_model import RewardModel, Scored

Key = tuple[str, str]
CHUNK = 256
"""Texts of one file: what a run that was stopped computes again at most."""
BATCH_TOKENS = 2048
"""Of a forward pass: on two cores faster than more, whose numbers do not stay in the caches."""


class States:
    """States of (prompt, answer), computed where no file has them.

    Args:
        folder: of the files; one folder for one trunk.
        load: gives the reward model whose trunk it is; called when something has to be computed.
    """

    def __init__(self, folder: Path, load: "Callable[[], RewardModel | SharedAnswers]") -> None:
        self.folder, self._load = folder, load
        self._rm: RewardModel | SharedAnswers | None = None
        self.place: dict[Key, int] = {}
        self._parts: list[NDArray[np.float32]] = []
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.npz")):
            with np.load(path) as kept:
                self._add([(str(prompt), str(text)) for prompt, text in kept["keys"]], kept["states"])

    def need(self, keys: Iterable[Key]) -> float:
        """Computes the states of those that have none yet; the seconds that took."""
        new = sorted({key for key in keys if key not in self.place})
        begun = time.monotonic()
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            states = self._computed(part)
            name = hashlib.sha256(repr(part).encode()).hexdigest()[:16]
            written = self.folder / f"{name}.part"
            with written.open("wb") as file:
                np.savez(file, keys=np.array(part), states=states)
            written.replace(self.folder / f"{name}.npz")
            self._add(part, states)
            done, took = start + len(part), time.monotonic() - begun
            print(f"states: {done} of {len(new)}, {took:.0f} s", flush=True)
        return time.monotonic() - begun

    def rows(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """[N] their places in `all`."""
        return np.array([self.place[key] for key in keys], dtype=np.int64)

    @property
    def all(self) -> NDArray[np.float32]:
        """[T, D] every state there is, by place."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def _computed(self, keys: Sequence[Key]) -> NDArray[np.float32]:
        if self._rm is None:
            self._rm = self._load()
        prompts, answers = zip(*keys, strict=True)
        scored = self._rm.score(
            prompts, answers, keep_states=True, batch_tokens=BATCH_TOKENS, prefix_reuse=True
        )
        assert scored.states is not None
        return scored.states

    def _add(self, keys: Sequence[Key], states: NDArray[np.float32]) -> None:
        self.place.update({key: len(self.place) + n for n, key in enumerate(keys)})
        self._parts.append(states)


ALIKE = 0.9
"""Neighbours that have this share of the larger number of tokens in common begin alike."""


class SharedAnswers:
    """A reward model that computes what neighbouring texts begin with once: the prompt, and the answer too.

    States differ in their last bits from those of whole passes.

    Args:
        rm: which.
    """

    def __init__(self, rm: "RewardModel") -> None:
        self._rm = rm

    def score(self, prompts: Sequence[str], answers: Sequence[str], **options: Any) -> "Scored":
        """As `RewardModel.score`; neighbours in a sorted list share most."""
        template = self._rm.template
        rows = zip(prompts, answers, strict=True)
        encoded = template.encode_rendered([template.render(*row, ended=True) for row in rows])
        return self._rm.score_encoded(with_beginnings(encoded), **options)


def with_beginnings(encoded: "Sequence[Encoded]") -> "list[Encoded]":
    """The same texts; what runs of neighbours begin with counts as their prompt."""
    ids = [one.input_ids for one in encoded]
    shared = [_begin_alike(one, other) for one, other in pairwise(ids)]
    found: list[Encoded] = []
    start = 0
    while start < len(encoded):
        end = start + 1
        while end < len(encoded) and _belongs(shared, start, end) and 2 * shared[end - 1] >= len(ids[end]):
            end += 1
        # what all have in common is the least of what neighbours have
        common = min(shared[start : end - 1], default=encoded[start].prompt_length)
        found += [replace(one, prompt_length=common) for one in encoded[start:end]]
        start = end
    return found


def _belongs(shared: Sequence[int], start: int, end: int) -> bool:
    """Whether text `end` has as much in common with its neighbours before it as these have."""
    first = shared[start]
    # else it begins a run of its own
    more_with_next = end < len(shared) and ALIKE * shared[end] > first
    return ALIKE * first <= shared[end - 1] and not more_with_next


def _begin_alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many of their first tokens are the same; less than all of either."""
    most = min(len(one), len(other)) - 1
    return next((at for at in range(most) if one[at] != other[at]), most)
