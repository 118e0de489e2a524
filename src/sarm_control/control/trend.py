"""The present value of something that drifts, from noisy means of recent batches.

Shapes: `S` batches, oldest first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sarm_control.control.density_ratio.logistic import Array

_LEAST_FOR_A_TREND = 3


class Means(NamedTuple):
    """[S] means of batches and the variances of those means."""

    values: Array
    variances: Array

    @classmethod
    def of(cls, batches: Sequence[Array]) -> "Means":
        """Of batches of numbers, oldest first; a batch of one has the variance of all numbers."""
        spread = float(np.concatenate(batches).var())
        variances = [(batch.var(ddof=1) if len(batch) > 1 else spread) / len(batch) for batch in batches]
        return cls(np.array([batch.mean() for batch in batches]), np.array(variances))


class Present(NamedTuple):
    """An estimate of the value now, and the variance that sampling gives it."""

    value: float
    variance: float


def present_value(means: Means, *, half_life: float) -> Present:
    """The end of a line fitted to the means, each counting half as much `half_life` batches later.

    A plain average would lag behind a value that moves: a policy's divergence grows from step to step.
    With fewer than three batches it is the weighted average.

    Args:
        means: of at least one batch, oldest first.
        half_life: batches, > 0.
    """
    count = len(means.values)
    age = np.arange(count - 1, -1, -1, dtype=np.float64)
    weight = 0.5 ** (age / half_life)
    share = weight / weight.sum()
    if count >= _LEAST_FOR_A_TREND:
        centred = age - share @ age
        share = share - (share @ age) * share * centred / (share @ centred**2)
    return Present(float(share @ means.values), float(share**2 @ means.variances))
