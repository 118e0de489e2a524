"""Random sets of latents with the firing rates and head weights of a chosen set.

They show whether any set like the chosen one would have the same effect.

Shapes: `L` latents, `E` eligible latents, `C` chosen latents, `S` random sets.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

from sarm_control.errors import DataError
from sarm_control.seeds import numpy_generator

Index = NDArray[np.int64]
Floats = NDArray[np.float64]

SETS = 1000
_DECILES = np.arange(0.1, 0.95, 0.1)
# Sets from a cell of the 10 x 10 grid with fewer latents would have mostly the same members.
_ENOUGH = 5


class MatchedSets(NamedTuple):
    """Random sets and how well they could be matched.

    Args:
        latents: [S, C]; column c replaces chosen latent c, and no latent is twice in a row.
        widened: the number of chosen latents whose cell of the grid held fewer than 5 others, so that
            latents of neighbouring cells are used too.
    """

    latents: Int[Index, "S C"]
    widened: int


class AmongSets(NamedTuple):
    """Where a chosen set lies among its matched random sets.

    Args:
        percentile: share of the random sets, in percent, with a smaller value than the chosen set.
        mean: of the random sets.
        sd: of the random sets.
        sets: the number of random sets.
        widened: see `MatchedSets`.
    """

    percentile: float
    mean: float
    sd: float
    sets: int
    widened: int

    def as_json(self) -> dict[str, float | int]:
        """The same as a JSON object."""
        return self._asdict()


def matched_random_sets(
    chosen: ArrayLike, rate: ArrayLike, size: ArrayLike, *, sets: int = SETS, seed: int = 0
) -> MatchedSets:
    """Draws sets of other latents from the chosen latents' deciles of firing rate and of |w|.

    The deciles are those of the latents that fire at all; a pair of deciles is a cell of a 10 x 10 grid. A
    chosen latent is replaced by one of its own cell. Where a set has used up a cell, or the cell holds fewer
    than 5 others, the nearest cells are used.

    Args:
        chosen: [C] latent numbers, none twice.
        rate: [L] share of answers in which each latent is active.
        size: [L] magnitude of the head weight.
        sets: S.
        seed: of the draw.

    Raises:
        DataError: fewer other latents fire than are chosen, or a chosen latent never fires.
    """
    wanted = np.asarray(chosen, dtype=np.int64)
    rates, sizes = np.asarray(rate, dtype=np.float64), np.asarray(size, dtype=np.float64)
    active = np.flatnonzero(rates > 0)
    if not np.isin(wanted, active).all():
        raise DataError("a chosen latent never fires: nothing can be matched to it")
    others = np.setdiff1d(active, wanted)
    if len(others) < max(1, len(wanted)):
        raise DataError(f"{len(others)} other latents fire, {len(wanted)} are to be matched")
    cells = {name: _deciles(values, active) for name, values in (("rate", rates), ("size", sizes))}
    # one random priority per set and candidate: the lowest in reach is drawn, and infinity marks one as used
    generator = numpy_generator(seed, "matched sets")
    priority = generator.random((sets, len(others)))
    drawn = np.empty((sets, len(wanted)), dtype=np.int64)
    widened = 0
    for column, latent in enumerate(wanted):
        # rings of cells around the latent's own: the larger of both differences
        distance = np.maximum.reduce([np.abs(of[others] - of[latent]) for of in cells.values()])
        # the smallest ring that reaches enough others
        nearest = int(np.sort(distance)[min(_ENOUGH, len(others)) - 1])
        widened += nearest > 0
        picked = _pick(priority, distance, nearest)
        drawn[:, column] = others[picked]
        priority[np.arange(sets), picked] = np.inf
    return MatchedSets(drawn, widened)


def _pick(priority: Float[Floats, "S E"], distance: Int[Index, " E"], nearest: int) -> Int[Index, " S"]:
    """[S] the free candidate of lowest priority within `nearest`, or in the nearest ring that has one."""
    near = np.flatnonzero(distance <= nearest)
    picked: Index = near[np.argmin(priority[:, near], axis=1)]
    used_up = np.flatnonzero(np.isinf(priority[np.arange(len(priority)), picked]))
    # priorities are below 1 and distances whole numbers, so the sum orders by ring first
    picked[used_up] = np.argmin(priority[used_up] + distance, axis=1)
    return picked


def among_matched_sets(
    value: float, value_of: Floats, chosen: ArrayLike, rate: ArrayLike, size: ArrayLike, **draw: Any
) -> AmongSets:
    """Where the sum of a chosen set's values lies among the sums of its matched random sets.

    Args:
        value: of the chosen set.
        value_of: [L] what each latent adds to the value of a set.
        chosen: [C] latent numbers.
        rate: see `matched_random_sets`.
        size: see `matched_random_sets`.
        **draw: `sets` and `seed` of `matched_random_sets`.
    """
    random = matched_random_sets(chosen, rate, size, **draw)
    sums = value_of[random.latents].sum(axis=1)
    below = 100 * float((sums < value).mean())
    return AmongSets(below, float(sums.mean()), float(sums.std()), len(sums), random.widened)


def _deciles(values: Float[Floats, " L"], active: Int[Index, " active"]) -> Int[Index, " L"]:
    """[L] 0..9: the decile of each value among those of the active latents."""
    return np.searchsorted(np.quantile(values[active], _DECILES), values, side="left").astype(np.int64)
