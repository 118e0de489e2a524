"""Ratios of means over prompts with 95 % intervals, made from those of means.

Chosen by simulation, `benchmarks/interval_ratios.py`.

Shapes: `P` and `Q` prompts.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from sarm_control.statistics.intervals import Interval, mean_interval, prompts_needed

LEAST_PAYING = 5
"""Prompts that must have a numerator other than 0: the denominator varies, which hides how few they are."""


def ratio_interval(numerator: ArrayLike, denominator: ArrayLike) -> Interval:
    """The ratio of two means over the same prompts, with a 95 % interval.

    The interval is that of the mean of `ratio + (above - ratio below) / mean(below)`: a ratio is one mean
    to first order (the linearised, or delta, method).

    Args:
        numerator: [P] one number per prompt.
        denominator: [P] one number per prompt, all of one sign.

    Returns:
        The ratio, its ends and P; NaN ends where fewer than `LEAST_PAYING` prompts have a numerator other
        than 0, or as for a mean.
    """
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    ratio = float(above.sum() / below.sum())
    found = mean_interval(ratio + (above - ratio * below) / below.mean())._replace(mean=ratio)
    paying = int(np.count_nonzero(above))
    if not found.given or paying >= LEAST_PAYING:
        return found
    needed = float(prompts_needed(len(above), paying, 0.0))
    enough = None if math.isnan(needed) else int(needed)
    return Interval(ratio, math.nan, math.nan, len(above), paying, enough)


def size_ratio(numerator: ArrayLike, denominator: ArrayLike) -> Interval:
    """`|mean| / |mean|` over two sets of prompts, with a 95 % interval.

    The interval comes from those of the two means (MOVER: Donner and Zou 2012, Statistical Methods in
    Medical Research 21). Where the denominator's holds 0 it is open above, and its lower end is the least
    that the two intervals allow.

    Args:
        numerator: [P] one number per prompt.
        denominator: [Q] one number per prompt of the other set.

    Returns:
        The ratio, its ends and P; infinite where the denominator is 0, NaN ends where one of the means has
        no interval.
    """
    values = [np.asarray(side, dtype=np.float64) for side in (numerator, denominator)]
    above, below = (mean_interval(side if side.mean() >= 0 else -side) for side in values)
    ratio = above.mean / below.mean if below.mean else math.inf
    if not (above.given and below.given):
        short = above if not above.given else below
        return Interval(ratio, math.nan, math.nan, short.n, short.apart, short.enough)
    low, high = _between(above, below)
    return Interval(ratio, low, high, above.n, above.apart)


def _between(above: Interval, below: Interval) -> tuple[float, float]:
    """The ends of the ratio of two independent means >= 0 from their intervals."""
    if below.low <= 0:
        return max(above.low, 0.0) / max(below.high, -below.low), math.inf
    product = above.mean * below.mean
    ends = []
    for side, own, other in ((-1, above.low, below.high), (1, above.high, below.low)):
        if other >= 2 * below.mean:  # a long tail: the formula's mirror image of this end is below 0
            ends.append(own / other)
            continue
        square = own * other * (2 * above.mean - own) * (2 * below.mean - other)
        root = math.sqrt(max(product**2 - square, 0.0))
        ends.append((product + side * root) / (other * (2 * below.mean - other)))
    return max(ends[0], 0.0), ends[1]
