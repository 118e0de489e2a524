"""The interval of an unweighted mean of subset means, with units resampled within their subset.

Shapes: `U` units, `S` subsets, `B` resamples.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.discovery.statistics import BOOTSTRAP_DRAWS, Interval, mean_interval
from sarm_control.evaluation.answer_table import Floats
from sarm_control.seeds import numpy_generator


def mean_of_means(
    values: ArrayLike, strata: ArrayLike, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS, level: float = 0.95
) -> Interval:
    """`(1/S) sum_s mean_{u in s} v_u` with its BCa bootstrap interval.

    The acceleration is that of the statistic's influence values `(v_u - mean_s) / (S n_s)`; with one
    subset this is the interval of a plain mean.

    Args:
        values: [U] one number a unit.
        strata: [U] the subset of each unit: any labels.
        seed: the same seed gives the same interval.
        draws: resamples.
        level: coverage, in (0, 1).
    """
    numbers = np.asarray(values, dtype=np.float64)
    names, ids = np.unique(np.asarray(strata), return_inverse=True)
    if len(names) < 2:
        return mean_interval(numbers, seed=seed, draws=draws)
    counts = np.bincount(ids)
    means = np.bincount(ids, weights=numbers) / counts
    resampled = np.zeros(draws)
    for number, count in enumerate(counts):
        generator = numpy_generator(seed, "stratified", number, int(count))
        weights = generator.multinomial(count, np.full(count, 1 / count), size=draws)
        resampled += weights @ numbers[ids == number] / (count * len(names))
    influence = (numbers - means[ids]) / (len(names) * counts[ids])
    low, high = _bca(np.sort(resampled), float(means.mean()), influence, level)
    return Interval(float(means.mean()), low, high, len(numbers))


def _bca(resampled: NDArray[np.float64], mean: float, influence: Floats, level: float) -> tuple[float, float]:
    from scipy.special import ndtr, ndtri

    squares = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * squares**1.5) if squares else 0.0
    draws, slack = len(resampled), 1e-12 * abs(mean)
    share = ((resampled < mean - slack).mean() + (resampled <= mean + slack).mean()) / 2
    bias = float(ndtri(np.clip(share, 0.5 / draws, 1 - 0.5 / draws)))
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + float(ndtri(tail))
        position = float(ndtr(bias + shifted / (1 - acceleration * shifted))) * (draws - 1)
        ends.append(float(np.interp(position, np.arange(draws), resampled)))
    return ends[0], ends[1]
