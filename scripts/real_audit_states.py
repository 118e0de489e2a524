"""The states of texts: each text passes through a frozen trunk once, and its state is kept on disk.

Shapes: `N` texts, `D` hidden size.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

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

    def __init__(self, folder: Path, load: "Callable[[], RewardModel]") -> None:
        self._folder, self._load = folder, load
        self._rm: RewardModel | None = None
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
            written = self._folder / f"{name}.part"
            with written.open("wb") as file:
                np.savez(file, keys=np.array(part), states=states)
            written.replace(self._folder / f"{name}.npz")
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
