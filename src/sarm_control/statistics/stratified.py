"""The unweighted mean of subset means, with an interval over the units within each subset.

Shapes: `U` units, `S` subsets.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.statistics.intervals import (
    Interval,
    column_moments,
    interval_ends,
    mean_interval,
    prompts_needed,
    too_few,
)


class Strata(NamedTuple):
    """Moments of the unweighted mean of S subset means.

    Args:
        mean: of the subset means.
        variance: of this mean; NaN where a subset has a single unit.
        skewness: of this mean; 0 without variance.
        freedom: degrees of freedom of the variance (Satterthwaite 1946); 1 without variance.
        counts: [S] units of each subset.
        apart: units that differ from the median of their subset.
    """

    mean: float
    variance: float
    skewness: float
    freedom: float
    counts: NDArray[np.int64]
    apart: int


def strata_of(values: ArrayLike, strata: ArrayLike) -> Strata:
    """The moments of the mean of subset means; variances and third cumulants of the subsets add up.

    Args:
        values: [U] one number per unit.
        strata: [U] the subset of each unit: any labels.
    """
    numbers = np.asarray(values, dtype=np.float64)
    names, ids = np.unique(np.asarray(strata), return_inverse=True)
    moments = [column_moments(numbers[ids == number][:, None]) for number in range(len(names))]
    counts = np.bincount(ids, minlength=len(names)).astype(np.int64)
    mean = float(np.mean([subset.mean[0] for subset in moments]))
    apart = sum(int(subset.apart[0]) for subset in moments)
    if counts.min() < 2:
        return Strata(mean, math.nan, 0.0, 1.0, counts, apart)
    squares = np.array([subset.squares[0] for subset in moments])
    # [S] the variance of each subset's mean, as it enters the variance of the mean of means
    share = squares / ((counts - 1) * counts) / len(names) ** 2
    variance = float(share.sum())
    if not variance > 0:
        return Strata(mean, 0.0, 0.0, 1.0, counts, apart)
    freedom = variance**2 / float((share**2 / (counts - 1)).sum())
    # scaled so that one subset gives sum d^3 / (sum d^2)^1.5, the skewness of its mean
    scale = ((counts - 1) * counts) ** 1.5 * len(names) ** 3
    skewness = float((np.array([subset.cubes[0] for subset in moments]) / scale).sum()) / variance**1.5
    return Strata(mean, variance, skewness, freedom, counts, apart)


def mean_of_means(values: ArrayLike, strata: ArrayLike) -> Interval:
    """`(1/S) sum_s mean_{u in s} v_u` with its 95 % interval, of the form of `statistics.intervals`.

    With one subset this is the interval of a plain mean.

    Args:
        values: [U] one number per unit.
        strata: [U] the subset of each unit: any labels.

    Returns:
        The interval. Its ends are NaN where a plain mean would have none, and where a subset has a single
        unit, whose spread is unknown.
    """
    numbers = np.asarray(values, dtype=np.float64)
    parts = strata_of(numbers, strata)
    if len(parts.counts) < 2:
        return mean_interval(numbers)
    nothing = Interval(parts.mean, math.nan, math.nan, len(numbers))
    if parts.counts.min() < 2:
        return nothing
    if not parts.variance > 0:
        return nothing._replace(apart=0)
    if too_few(parts.apart, parts.skewness):
        needed = int(prompts_needed(len(numbers), parts.apart, parts.skewness))
        return nothing._replace(apart=parts.apart, enough=needed)
    low, high = interval_ends(parts.mean, math.sqrt(parts.variance), parts.skewness, parts.freedom)
    return Interval(parts.mean, float(low), float(high), len(numbers), parts.apart)
