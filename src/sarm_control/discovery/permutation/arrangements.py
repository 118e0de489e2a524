"""The ways to pick a few of a prompt's answers: counted, enumerated and drawn at random.

Shapes: `n` answers of a prompt, `k` of them with the latent active, `C` ways, `B` redraws.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from math import comb, log2
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_COUNTED_UP_TO = 1 << 20
_MOST_TABLED = 4096
"""A table of at most so many ways fits in the processor's cache."""


class Distinct(NamedTuple):
    """The picks that differ in the active answers they take; inactive answers are 0 and change no sum.

    Args:
        taken: [C, k] 1 where an active answer is picked.
        chance: [C] of each way; they sum to 1.
    """

    taken: Floats
    chance: Floats


def log2_distinct(few: int, answers: int) -> Floats:
    """[n + 1] base-2 logarithm of the number of distinct ways to pick `few` of n answers, by k = 0..n.

    Counting stops at 2^20.
    """
    return np.array([log2(_counted(few, answers, active)) for active in range(answers + 1)])


def _counted(few: int, answers: int, active: int) -> int:
    total = 0
    for take in _takes(few, answers, active):
        total += comb(active, take)
        # larger numbers need not be known: so many ways are never enumerated
        if total > _COUNTED_UP_TO:
            break
    return total


@lru_cache(maxsize=256)
def distinct(few: int, answers: int, active: int) -> Distinct:
    """The distinct ways to pick `few` of n answers of which k = `active` are active."""
    taken, chance = [], []
    for take in _takes(few, answers, active):
        for places in combinations(range(active), take):
            row = np.zeros(active)
            row[list(places)] = 1.0
            taken.append(row)
            # inactive answers fill the pick up: so many ways take these active ones, and give the same sum
            chance.append(comb(answers - active, few - take) / comb(answers, few))
    return Distinct(np.array(taken).reshape(len(chance), active), np.array(chance))


class Picks:
    """Random picks of `few` of n answers for each of several prompts.

    Args:
        few: number of answers that are picked.
        answers: n.
        prompts: number of prompts.
        generator: of the picks.
    """

    def __init__(self, few: int, answers: int, prompts: int, generator: np.random.Generator) -> None:
        self._few, self._answers, self._prompts, self._generator = few, answers, prompts, generator
        ways = comb(answers, few)
        self._table = _all_ways(few, answers) if ways <= _MOST_TABLED else None
        self._ways = ways

    def draw(self, size: int) -> NDArray[np.generic]:
        """Picks for `size` redraws in packed form; `on` unpacks the answers that are needed."""
        if self._table is not None:
            kind = np.uint8 if self._ways <= 256 else np.uint16
            return self._generator.integers(0, self._ways, (self._prompts, size), dtype=kind)
        return self._one_by_one(size)

    def on(self, drawn: NDArray[np.generic], places: NDArray[np.int64], out: Floats) -> None:
        """Writes into `out` [len(places), B]: 1 where an answer is picked, else 0.

        Args:
            drawn: from `draw`.
            places: the answers, as `prompt * n + position in the prompt`.
            out: the result.
        """
        prompt, place = places // self._answers, places % self._answers
        if self._table is None:
            out[:] = drawn[prompt, place]
            return
        for own in np.unique(place):
            at = place == own
            codes = drawn[prompt[at]]
            out[at] = codes == own if self._few == 1 else self._table[own].take(codes)

    def _one_by_one(self, size: int) -> NDArray[np.bool_]:
        """[prompts, n, B] picks, answer by answer.

        An answer is picked with the probability (picks left) / (answers left), which makes all picks equally
        likely (selection sampling, Knuth, algorithm S).
        """
        picked = np.empty((self._prompts, self._answers, size), dtype=bool)
        left = np.full((self._prompts, size), self._few)
        for place in range(self._answers):
            picked[:, place] = self._generator.random(left.shape) * (self._answers - place) < left
            left -= picked[:, place]
        return picked


@lru_cache(maxsize=64)
def _all_ways(few: int, answers: int) -> Floats:
    """[n, C] 1 where a way takes an answer; with few = 1, way j takes answer j."""
    table = np.zeros((answers, comb(answers, few)))
    for way, places in enumerate(combinations(range(answers), few)):
        table[list(places), way] = 1.0
    return table


def _takes(few: int, answers: int, active: int) -> Iterator[int]:
    """The possible numbers of active answers in a pick."""
    yield from range(max(0, few - (answers - active)), min(few, active) + 1)
