"""Intervals over seeds and prompts at once, and over worlds.

The differences `d_sp` of seed s and prompt p form a table of S rows and P columns: every seed answered the
same prompts. Seeds and prompts are both samples of what the study is about, so the error of the mean has a
part of each. In the model `d_sp = m + a_s + b_p + e_sp` the variance of the mean is

    A / S + B / P + E / (S P)          A, B, E the variances of a, b, e

and `var(row means) / S + var(column means) / P` has this expectation plus E / (S P): the remainder is counted
twice, on the safe side, and no part can come out negative. The parts `v_S` and `v_P` have different degrees
of freedom, so each has its own quantile of Student's t (Graybill and Wang 1980, JASA 75):

    half width = sqrt(t(S - 1)^2 v_S + t(P - 1)^2 v_P)

which is Student's interval over seeds where prompts do not vary, and over prompts where seeds do not. One t
quantile at Satterthwaite's degrees of freedom covers 93 % with three seeds: where `v_S` comes out small by
chance, so does the quantile.

Shapes: `S` seeds, `P` prompts, `W` worlds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_QUANTILE = 0.975


class CrossedInterval(NamedTuple):
    """A mean with its 95 % interval.

    Args:
        mean: over all values.
        low: lower end; None where there is no interval.
        high: upper end.
        seeds: S, or worlds W where the interval is over worlds.
        prompts: P; None where the interval is over worlds.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int
    prompts: int | None

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high is not None and self.high < 0


def crossed_interval(values: ArrayLike) -> CrossedInterval:
    """The mean of [S, P] values with an interval over seeds and prompts; see the module.

    With one seed there is none, since nothing says how much seeds differ; nor where all values are equal.

    Args:
        values: [S, P], one number for each seed and prompt.
    """
    table = np.asarray(values, dtype=np.float64)
    seeds, prompts = table.shape
    mean = float(table.mean())
    if seeds < 2 or prompts < 2:
        return CrossedInterval(mean, None, None, seeds, prompts)
    half = math.hypot(
        *(
            # axis 0: the seeds' means over prompts; axis 1: the prompts' means over seeds
            _student(count - 1) * math.sqrt(float(table.mean(axis=1 - axis).var(ddof=1)) / count)
            for axis, count in enumerate((seeds, prompts))
        )
    )
    if not half > 0:
        return CrossedInterval(mean, None, None, seeds, prompts)
    return CrossedInterval(mean, mean - half, mean + half, seeds, prompts)


def over_worlds(means: Sequence[float]) -> CrossedInterval:
    """The mean over worlds with Student's t interval; each world is one value, however many runs it has.

    Args:
        means: [W], at least one; with a single world there is no interval.
    """
    column = np.asarray(means, dtype=np.float64)
    count, mean = len(column), float(column.mean())
    if count < 2:
        return CrossedInterval(mean, None, None, count, None)
    half = _student(count - 1) * float(column.std(ddof=1)) / math.sqrt(count)
    return CrossedInterval(mean, mean - half, mean + half, count, None)


def _student(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, _QUANTILE))
