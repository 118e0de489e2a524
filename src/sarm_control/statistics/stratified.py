"""The unweighted mean of subset means, with an interval over the units within each subset.

Shapes: `U` units, `S` subsets.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from sarm_control.statistics.intervals import (
    Interval,
    column_moments,
    interval_ends,
    mean_interval,
    prompts_needed,
    too_few,
)


def mean_of_means(values: ArrayLike, strata: ArrayLike) -> Interval:
    """`(1/S) sum_s mean_{u in s} v_u` with its 95 % interval, of the form of `statistics.intervals`.

    The subset means are independent, so their variances and third cumulants add up. The degrees of freedom
    are those of Satterthwaite (1946). With one subset this is the interval of a plain mean.

    Args:
        values: [U] one number per unit.
        strata: [U] the subset of each unit: any labels.

    Returns:
        The interval. Its ends are NaN where a plain mean would have none, and where a subset has a single
        unit, whose spread is unknown.
    """
    numbers = np.asarray(values, dtype=np.float64)
    names, ids = np.unique(np.asarray(strata), return_inverse=True)
    if len(names) < 2:
        return mean_interval(numbers)
    parts = [numbers[ids == number] for number in range(len(names))]
    moments = [column_moments(part[:, None]) for part in parts]
    counts = np.array([len(part) for part in parts])
    mean = float(np.mean([subset.mean[0] for subset in moments]))
    apart = sum(int(subset.apart[0]) for subset in moments)
    squares = np.array([subset.squares[0] for subset in moments])
    nothing = Interval(mean, math.nan, math.nan, len(numbers))
    if counts.min() < 2:
        return nothing
    if not squares.any():
        return nothing._replace(apart=0)
    share = squares / ((counts - 1) * counts) / len(names) ** 2
    variance = float(share.sum())
    freedom = variance**2 / float((share**2 / (counts - 1)).sum())
    # scaled so that one subset gives sum d^3 / (sum d^2)^1.5, the skewness of its mean
    scale = ((counts - 1) * counts) ** 1.5 * len(names) ** 3
    skewness = float((np.array([subset.cubes[0] for subset in moments]) / scale).sum()) / variance**1.5
    if too_few(apart, skewness):
        return nothing._replace(apart=apart, enough=int(prompts_needed(len(numbers), apart, skewness)))
    low, high = interval_ends(mean, math.sqrt(variance), skewness, freedom)
    return Interval(mean, float(low), float(high), len(numbers), apart)
