"""Means of numbers from 0 to 1 (rates, accuracies, win rates), with 95 % intervals that stay in 0..1.

The interval is that of Clopper and Pearson (1934, Biometrika 26), which is exact where every prompt has one
right or wrong answer, at an effective number of prompts (Korn and Graubard 1998, Survey Methodology 24):

    m = p (1 - p) / v      v the variance of the mean p

`m` is the number of prompts P where values are 0 or 1, and above it where a prompt's value is itself a mean
of several: no law on 0..1 varies more than right and wrong. What `m` has above P rests on an estimated
variance, so it is multiplied by (z / t)^2, and counted only where other means would have an interval
(`statistics.intervals`). With none right, or none wrong, there is an interval too.
`benchmarks/share_intervals.py` simulates the coverage.

Shapes: `P` prompts, `M` columns, `U` units, `S` subsets.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.statistics.intervals import (
    Interval,
    Intervals,
    column_moments,
    mean_interval,
    skewness_of_mean,
    too_few,
)
from sarm_control.statistics.stratified import mean_of_means, strata_of

Floats = NDArray[np.float64]

_QUANTILE = 0.975
_ROUNDING = 1e-12


def share_interval(values: ArrayLike) -> Interval:
    """The mean of one number from 0 to 1 per prompt, with a 95 % interval in 0..1.

    There is none for a single prompt, and none where all prompts have the same value between 0 and 1.

    Args:
        values: [P] numbers, one per prompt; booleans count as 0 and 1. Some may lie a little beyond 0..1 (a
            benchmark may grant a hundredth more); the interval does so only where their mean does.
    """
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    if not len(column):
        return Interval(math.nan, math.nan, math.nan, 0)
    reach = _reach(column)
    found = next(iter(share_intervals((column - reach.least) / reach.size)))
    mean = float(column.mean()) if reach.wider else found.mean
    low, high = reach.ends(mean, found.low, found.high)
    return found._replace(mean=mean, low=low, high=high)


def share_intervals(columns: Any) -> Intervals:
    """M means over P prompts with intervals in 0..1; see `share_interval`.

    Args:
        columns: [P, M] numbers from 0 to 1, dense or scipy sparse.
    """
    count = columns.shape[0]
    moments = column_moments(columns)
    # a sum of rounded numbers may pass 1 by a rounding
    mean = np.clip(moments.mean, 0.0, 1.0)
    variance = moments.squares / max(count - 1, 1) / max(count, 1)
    few = too_few(moments.apart, skewness_of_mean(moments))
    effective = _effective(mean, variance, count - 1, np.full(len(mean), count), few)
    low, high = _ends(mean, effective)
    none = (count < 2) | ((moments.apart == 0) & (mean > _ROUNDING) & (mean < 1 - _ROUNDING))
    low, high = (np.where(none, np.nan, end) for end in (low, high))
    return Intervals(mean, low, high, moments.apart, np.full(len(mean), np.nan), count)


def mean_of_shares(values: ArrayLike, strata: ArrayLike) -> Interval:
    """`(1/S) sum_s mean_{u in s} v_u` of numbers from 0 to 1, with its 95 % interval in 0..1.

    The variance is that of `mean_of_means`. With one subset this is `share_interval`.

    Args:
        values: [U] one number per unit; as in `share_interval` they may lie a little beyond 0..1.
        strata: [U] the subset of each unit: any labels.

    Returns:
        The interval. Its ends are NaN where a subset has a single unit, whose spread is unknown.
    """
    numbers = np.asarray(values, dtype=np.float64)
    parts = strata_of(numbers, strata)
    if len(parts.counts) < 2:
        return share_interval(numbers)
    nothing = Interval(parts.mean, math.nan, math.nan, len(numbers), parts.apart)
    if parts.counts.min() < 2:
        return nothing
    reach = _reach(numbers)
    mean = np.clip(np.array([(parts.mean - reach.least) / reach.size]), 0.0, 1.0)
    variance = np.array([parts.variance / reach.size**2])
    # with right and wrong alike in every subset the mean varies as one of so many units does
    plain = len(parts.counts) ** 2 / float((1 / parts.counts).sum())
    few = too_few(np.array([parts.apart]), np.array([parts.skewness]))
    effective = _effective(mean, variance, parts.freedom, np.array([plain]), few)
    low, high = reach.ends(parts.mean, *(float(end[0]) for end in _ends(mean, effective)))
    return nothing._replace(low=low, high=high)


def change_of_shares(before: ArrayLike, after: ArrayLike, strata: ArrayLike | None = None) -> Interval:
    """The mean of `after - before`, paired by prompt, with a 95 % interval in -1..1.

    Args:
        before: [P] numbers from 0 to 1.
        after: [P] the same of something else.
        strata: [P] subsets whose means are averaged; None for a plain mean.
    """
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    found = mean_interval(change) if strata is None else mean_of_means(change, strata)
    # nothing lies beyond -1 and 1, so leaving that out costs no coverage
    return found._replace(low=float(np.clip(found.low, -1, 1)), high=float(np.clip(found.high, -1, 1)))


class _Reach(NamedTuple):
    """From where to where values lie: 0 to 1, or a little wider."""

    least: float
    most: float

    @property
    def size(self) -> float:
        return self.most - self.least

    @property
    def wider(self) -> bool:
        return (self.least, self.most) != (0.0, 1.0)

    def ends(self, mean: float, low: float, high: float) -> tuple[float, float]:
        """Ends on 0..1 as ends on this reach, beyond 0..1 only where the mean is."""
        if not self.wider:
            return low, high
        low, high = (self.least + self.size * end for end in (low, high))
        return max(low, min(0.0, mean)), min(high, max(1.0, mean))


def _reach(values: Floats) -> _Reach:
    # a sum of rounded numbers may pass 1 by a rounding, which is no reach
    least, most = float(values.min()), float(values.max())
    return _Reach(least if least < -_ROUNDING else 0.0, most if most > 1 + _ROUNDING else 1.0)


def _effective(
    mean: Floats, variance: Floats, freedom: float, plain: Floats | NDArray[Any], few: NDArray[np.bool_]
) -> Floats:
    """The number of right or wrong answers whose share would be as uncertain; at least `plain` of them."""
    from scipy.special import ndtri, stdtrit

    shrink = float(ndtri(_QUANTILE) / stdtrit(max(freedom, 1.0), _QUANTILE)) ** 2
    known = (variance > 0) & ~few
    found = shrink * mean * (1 - mean) / np.where(known, variance, 1.0)
    return np.asarray(np.where(known, np.maximum(found, plain), plain), dtype=np.float64)


def _ends(mean: Floats, effective: Floats) -> tuple[Floats, Floats]:
    from scipy.special import betaincinv

    # Clopper and Pearson's ends are quantiles of beta distributions, which fractional counts have as well
    right, wrong = effective * mean, effective * (1 - mean)
    some, fails = np.maximum(right, _ROUNDING), np.maximum(wrong, _ROUNDING)
    low = np.where(right > _ROUNDING, betaincinv(some, wrong + 1, 1 - _QUANTILE), 0.0)
    high = np.where(wrong > _ROUNDING, betaincinv(right + 1, fails, _QUANTILE), 1.0)
    return low, high
