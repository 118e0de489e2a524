"""Means over prompts with BCa bootstrap intervals.

Answers to one prompt are not independent, so nothing here sees an answer: every
column is one number per prompt.

Shapes: `P` prompts, `M` tested latents, `B` resamples.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.discovery.mixed_rows import MixedRows
from sarm_control.seeds import derive_seed, numpy_generator

FloatVector = NDArray[np.float64]

BOOTSTRAP_DRAWS = 2000
_BLOCK = 2048
_NEARLY_CONSTANT = 1e-6
"""Share of its sum of squares that a column's deviations make, below which it is centred."""


class Interval(NamedTuple):
    """A mean over prompts with its 95 % BCa bootstrap interval.

    Args:
        mean: the mean of the n values.
        low: lower end; NaN when n < 2, where no interval exists.
        high: upper end; NaN when n < 2.
        n: how many prompts.
    """

    mean: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, float | int | None]:
        """The same as a JSON object, with null in place of NaN."""
        numbers = {"mean": self.mean, "low": self.low, "high": self.high}
        finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return {**finite, "n": self.n}


class Intervals(NamedTuple):
    """The ends of M intervals, [M] float64 each."""

    low: FloatVector
    high: FloatVector


def mean_interval(values: ArrayLike, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> Interval:
    """The mean of one number per prompt, with a 95 % BCa bootstrap interval over prompts.

    Args:
        values: [P] numbers, one per prompt; booleans count as 0 and 1.
        seed: the same seed gives the same interval.
        draws: bootstrap resamples.
    """
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    count = len(column)
    mean = float(column.mean()) if count else math.nan
    if count < 2:
        return Interval(mean, math.nan, math.nan, count)
    ends = bootstrap_means(column, seed=seed, draws=draws)
    return Interval(mean, float(ends.low[0]), float(ends.high[0]), count)


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> Interval:
    """The ratio of two means over the same prompts, with a 95 % percentile bootstrap interval.

    Args:
        numerator: [P] one number per prompt.
        denominator: [P] one number per prompt, all of one sign.
        seed: the same seed gives the same interval.
        draws: bootstrap resamples.
    """
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    count = len(above)
    ratio = float(above.sum() / below.sum())
    if count < 2:
        return Interval(ratio, math.nan, math.nan, count)
    weights = _resampling_weights(count, draws, seed)
    low, high = np.quantile((above @ weights) / (below @ weights), (0.025, 0.975))
    return Interval(ratio, float(low), float(high), count)


def size_ratio(
    numerator: ArrayLike, denominator: ArrayLike, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> Interval:
    """`|mean| / |mean|` over two sets of prompts, with a 95 % percentile bootstrap interval.

    Args:
        numerator: [P] one number per prompt.
        denominator: [Q] one number per prompt of the other set; the two are resampled apart.
        seed: the same seed gives the same interval.
        draws: bootstrap resamples.

    Returns:
        The ratio, its ends and P; infinite where the denominator is 0, NaN ends for fewer than two
        prompts on a side.
    """
    sides = [np.asarray(values, dtype=np.float64) for values in (numerator, denominator)]
    sizes = [abs(float(values.mean())) for values in sides]
    ratio = sizes[0] / sizes[1] if sizes[1] else math.inf
    if min(map(len, sides)) < 2:
        return Interval(ratio, math.nan, math.nan, len(sides[0]))
    above, below = (
        np.abs(values @ _resampling_weights(len(values), draws, derive_seed(seed, name)))
        for values, name in zip(sides, ("numerator", "denominator"), strict=True)
    )
    ratios = np.divide(above, below, out=np.full(draws, math.inf), where=below > 0)
    # of the drawn ratios themselves: between two infinite ones there is nothing
    low, high = np.quantile(ratios, (0.025, 0.975), method="nearest")
    return Interval(ratio, float(low), float(high), len(sides[0]))


def clustered_mean(
    values: ArrayLike, clusters: ArrayLike, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> Interval:
    """The mean of several values per prompt, where every prompt counts once whatever its size.

    Args:
        values: [N] numbers, one per answer or comparison.
        clusters: [N] the prompt each value belongs to: any labels.
        seed: the same seed gives the same interval.
        draws: bootstrap resamples of prompts.
    """
    column = np.asarray(values, dtype=np.float64)
    _, ids = np.unique(np.asarray(clusters), return_inverse=True)
    means = np.bincount(ids, weights=column) / np.bincount(ids) if len(column) else column
    return mean_interval(means, seed=seed, draws=draws)


def bootstrap_means(
    columns: Any, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS, level: float = 0.95
) -> Intervals:
    """BCa bootstrap intervals (Efron 1987) of M column means; prompts are resampled.

    All columns share their resamples. The acceleration is the closed form of the
    jackknife for a mean, `sum d^3 / (6 (sum d^2)^1.5)` with `d` the deviations.

    Args:
        columns: [P, M] numbers, dense or scipy sparse; P >= 2.
        seed: the same seed gives the same intervals.
        draws: resamples.
        level: coverage, in (0, 1).
    """
    matrix = _sparse_columns(columns)
    weights = _resampling_weights(matrix.shape[0], draws, seed)
    ends = np.empty((2, matrix.shape[1]))
    for start in range(0, matrix.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        ends[:, block] = _bca_block(matrix[:, block], weights, level)
    return Intervals(ends[0], ends[1])


def _resampling_weights(count: int, draws: int, seed: int) -> FloatVector:
    """[P, B]: how often each prompt was drawn in each resample, over P."""
    generator = numpy_generator(seed, "bootstrap", count)
    # Counting drawn prompts is ten times as fast as a multinomial with as many cells as draws.
    drawn = [np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(draws)]
    return np.ascontiguousarray(np.array(drawn, dtype=np.float64).T) / count


def _bca_block(block: Any, weights: FloatVector, level: float) -> FloatVector:
    """[2, M] ends of the intervals of a few columns."""
    from scipy.special import ndtr, ndtri

    count, draws = weights.shape
    mean = np.asarray(block.sum(axis=0)).ravel() / count
    resampled = np.sort(MixedRows(block.T) @ weights, axis=1)
    slack = 1e-12 * np.maximum(np.abs(resampled[:, :1]), np.abs(resampled[:, -1:]))
    below = (resampled < mean[:, None] - slack).mean(axis=1)
    not_above = (resampled <= mean[:, None] + slack).mean(axis=1)
    share = np.clip((below + not_above) / 2, 0.5 / draws, 1 - 0.5 / draws)
    bias, acceleration = ndtri(share), _acceleration(block, mean)
    ends = np.empty((2, len(mean)))
    for row, tail in enumerate(((1 - level) / 2, (1 + level) / 2)):
        shifted = bias + ndtri(tail)
        position = ndtr(bias + shifted / (1 - acceleration * shifted)) * (draws - 1)
        ends[row] = _interpolate_rows(resampled, position)
    return ends


def _acceleration(block: Any, mean: FloatVector) -> FloatVector:
    """[M] `sum d^3 / (6 (sum d^2)^1.5)` from the raw moments, so zeros stay unstored.

    Raw moments lose the digits of a column that is nearly constant; it has no zeros to save, and is
    centred first.
    """
    count = block.shape[0]
    second = np.asarray(block.multiply(block).sum(axis=0)).ravel()
    third = np.asarray(block.multiply(block).multiply(block).sum(axis=0)).ravel()
    squares = np.maximum(second - count * mean**2, 0)
    cubes = third - 3 * mean * second + 2 * count * mean**3
    close = np.flatnonzero(squares < _NEARLY_CONSTANT * second)
    if len(close):
        deviation = block[:, close].toarray() - mean[close]
        squares[close], cubes[close] = (deviation**2).sum(axis=0), (deviation**3).sum(axis=0)
    usable = squares > 1e-24 * second
    ratio = cubes / (6 * np.where(usable, squares, 1.0) ** 1.5)
    return np.where(usable, ratio, 0.0)


def _interpolate_rows(sorted_rows: FloatVector, position: FloatVector) -> FloatVector:
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, sorted_rows.shape[1] - 1)
    row = np.arange(len(sorted_rows))
    fraction = position - lower
    between: FloatVector = sorted_rows[row, lower] * (1 - fraction) + sorted_rows[row, upper] * fraction
    return between


def _sparse_columns(columns: Any) -> Any:
    from scipy.sparse import csc_array, issparse

    matrix: Any = columns if issparse(columns) else np.asarray(columns)
    return csc_array(matrix.astype(np.float64))
