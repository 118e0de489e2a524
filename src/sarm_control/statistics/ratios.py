"""Ratios of means over prompts with 95 % intervals, computed from the intervals of means.

The methods were chosen by simulation (`benchmarks/interval_ratios.py`).

Shapes: `P` and `Q` prompts.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from sarm_control.statistics.intervals import Interval, mean_interval, prompts_needed

LEAST_NONZERO = 5
"""The number of prompts that must have a numerator other than 0.

The spread of the denominator hides how few they are from the limits on means."""


def ratio_interval(numerator: ArrayLike, denominator: ArrayLike) -> Interval:
    """The ratio of two means over the same prompts, with a 95 % interval.

    The interval is that of the mean of `ratio + (above - ratio below) / mean(below)`, which equals the ratio
    to first order (the delta method).

    Args:
        numerator: [P] one number per prompt.
        denominator: [P] one number per prompt, all of one sign.

    Returns:
        The ratio, its ends and P. The ends are NaN where fewer than `LEAST_NONZERO` prompts have a numerator
        other than 0, or where a mean would have no interval.
    """
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    ratio = float(above.sum() / below.sum())
    # the mean of these numbers is the ratio, but for rounding
    linear = mean_interval(ratio + (above - ratio * below) / below.mean())._replace(mean=ratio)
    nonzero = int(np.count_nonzero(above))
    if not linear.given or nonzero >= LEAST_NONZERO:
        return linear
    needed = float(prompts_needed(len(above), nonzero, 0.0))
    enough = None if math.isnan(needed) else int(needed)
    return Interval(ratio, math.nan, math.nan, len(above), nonzero, enough)


def size_ratio(numerator: ArrayLike, denominator: ArrayLike) -> Interval:
    """`|mean| / |mean|` over two sets of prompts, with a 95 % interval.

    The interval is computed from those of the two means (MOVER: Donner and Zou 2012, Statistical Methods in
    Medical Research 21). Where the denominator's interval holds 0, the upper end is infinite, and the lower
    end is the smallest ratio that the two intervals allow.

    Args:
        numerator: [P] one number per prompt.
        denominator: [Q] one number per prompt of the other set.

    Returns:
        The ratio, its ends and P. The ratio is infinite where the denominator is 0. The ends are NaN where
        one of the means has no interval.
    """
    values = [np.asarray(side, dtype=np.float64) for side in (numerator, denominator)]
    # sizes are compared, so each side is turned to be positive
    above, below = (mean_interval(side if side.mean() >= 0 else -side) for side in values)
    ratio = above.mean / below.mean if below.mean else math.inf
    if not (above.given and below.given):
        without = above if not above.given else below
        return Interval(ratio, math.nan, math.nan, without.n, without.apart, without.enough)
    low, high = _between(above, below)
    return Interval(ratio, low, high, above.n, above.apart)


def _between(above: Interval, below: Interval) -> tuple[float, float]:
    """The ends of the ratio of two independent means >= 0 from their intervals."""
    if below.low <= 0:
        return max(above.low, 0.0) / max(below.high, -below.low), math.inf
    product = above.mean * below.mean
    ends = []
    for side, own, other in ((-1, above.low, below.high), (1, above.high, below.low)):
        # MOVER mirrors each end at the mean; with a long tail the mirror image is below 0 and has no root
        if other >= 2 * below.mean:
            ends.append(own / other)
            continue
        square = own * other * (2 * above.mean - own) * (2 * below.mean - other)
        root = math.sqrt(max(product**2 - square, 0.0))
        ends.append((product + side * root) / (other * (2 * below.mean - other)))
    return max(ends[0], 0.0), ends[1]
