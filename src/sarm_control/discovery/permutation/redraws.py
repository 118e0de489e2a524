"""Redraws of the labels in chunks, and the sums of contributions under them.

By hand, because all latents share each redraw: one sparse product tests thousands of them, where
`scipy.stats.permutation_test` would want every column dense and every draw in memory.

Shapes: `M` tested latents, `B` redraws, `U` units that a redraw moves (`discovery.permutation.relabelling`).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.discovery.permutation.arrangements import Picks
from sarm_control.discovery.permutation.relabelling import Relabelling
from sarm_control.seeds import numpy_generator
from sarm_control.statistics import MixedRows

Vector = NDArray[np.float64]
Index = NDArray[np.int64]

_CHUNK = 1000
_NUMBERS_AT_ONCE = 20_000_000
"""The largest number of units times redraws that is unpacked at once: 160 MB."""


class Chunk:
    """Some redraws of all units, unpacked where they are needed; made by `redraws`.

    Args:
        turned: packed bits: the prompts with equal sides whose sign is flipped.
        picked: the answers picked in the prompts of each shape, from `Picks.draw`.
        source: of the redraws.
        size: B, the number of redraws.
    """

    def __init__(self, turned: NDArray[np.uint8], picked: list[Any], source: "_Source", size: int) -> None:
        self._turned, self._picked, self._source, self.size = turned, picked, source, size

    def on(self, units: Index) -> Vector:
        """[len(units), B] 1 where a unit is on (see `Relabelling.steps`); the next chunk overwrites it.

        Args:
            units: ascending numbers in `0..U-1`.
        """
        out: Vector = self._source.memory[: len(units), : self.size]
        # the first E units are prompts with equal sides, the others are answers
        equal = int(np.searchsorted(units, len(self._turned)))
        out[:equal] = np.unpackbits(self._turned[units[:equal]], axis=1, count=self.size)
        answers = units[equal:] - len(self._turned)
        for one, picks, drawn in zip(self._source.shapes, self._source.picks, self._picked, strict=True):
            first, last = np.searchsorted(answers, (one.start, one.stop))
            picks.on(drawn, answers[first:last] - one.start, out[equal + first : equal + last])
        return out


class _Source:
    """The generators, and a buffer that all chunks share, because allocating it takes longer than drawing."""

    def __init__(self, form: Relabelling, size: int, seed: int, purpose: str) -> None:
        self.shapes, self.memory = form.shapes, np.empty((form.units, size))
        self._equal = form.equal.shape[1]
        # each shape has a generator of its own, so its draws do not depend on the other shapes
        self._generator = numpy_generator(seed, purpose, self._equal)
        self.picks = [
            Picks(one.few, one.answers, one.prompts, numpy_generator(seed, purpose, *one))
            for one in form.shapes
        ]

    def draw(self, size: int) -> Chunk:
        turned = self._generator.integers(0, 256, size=(self._equal, (size + 7) // 8), dtype=np.uint8)
        return Chunk(turned, [picks.draw(size) for picks in self.picks], self, size)


def redraws(form: Relabelling, draws: int, seed: int, purpose: str) -> Iterator[Chunk]:
    """`draws` redraws of the labels, in chunks of at most 1,000, and of fewer where there are many units.

    Args:
        form: the units; the latents are not used.
        draws: B in all.
        seed: the same seed gives the same redraws.
        purpose: another purpose gives others.
    """
    size = min(_CHUNK, draws, max(50, _NUMBERS_AT_ONCE // max(form.units, 1)))
    source = _Source(form, size, seed, purpose)
    for start in range(0, draws, size):
        yield source.draw(min(size, draws - start))


class RunningSums:
    """Sums of the latents that still draw.

    Only the units that change one of these sums are unpacked. The random numbers of a unit do not depend on
    that, so the p of a latent does not depend on the other latents.

    Args:
        form: M latents, all running at first.
    """

    def __init__(self, form: Relabelling) -> None:
        self._steps, self._base = form.steps(), form.base()
        self.latents, self._units = np.arange(len(self._base)), np.arange(self._steps.shape[1])
        self._narrow()
        self._rows = MixedRows(self._steps)

    def of(self, chunk: Chunk) -> Vector:
        """[running, B] the sums under a chunk's redraws."""
        sums = self._rows @ chunk.on(self._units)
        sums += self._base[self.latents, None]
        return sums

    def keep(self, wanted: NDArray[np.bool_]) -> int:
        """Drops the latents that are not `wanted` [M] and returns the number of those left."""
        left = wanted[self.latents]
        if not left.all():
            self.latents, self._steps = self.latents[left], self._steps[left]
            # picking columns takes as long as several products: it waits until half of the latents are gone
            if 2 * len(self.latents) <= self._narrowed_at:
                self._narrow()
            self._rows = MixedRows(self._steps)
        return len(self.latents)

    def _narrow(self) -> None:
        moved = np.zeros(self._steps.shape[1], dtype=bool)
        moved[self._steps.indices] = True
        self._units, self._steps = self._units[moved], self._steps[:, np.flatnonzero(moved)]
        self._narrowed_at = len(self.latents)
