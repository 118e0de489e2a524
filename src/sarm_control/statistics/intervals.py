"""Means over prompts with 95 % intervals in closed form.

Answers to one prompt are not independent, so the functions here take one number per prompt. The interval
is Student's t interval, widened where the column is skewed,

    mean - s (t + wide - min(tail, 0))   to   mean + s (t + wide + max(tail, 0))
    wide = z (z^4 + 2 z^2 - 3) / 36 a^2      tail = a (1/6 + t^2 / 3)      a = sum d^3 / (sum d^2)^1.5

with `s` the standard error of the mean, `d` the deviations, `a` the skewness of the mean, and `t` and `z` the
.975 quantiles of Student's t and of the normal distribution. `wide` is half of the skewness term of a
symmetric second-order interval (Hall 1988, Annals of Statistics 16); `tail` is the term of Johnson (1978,
JASA 73) on the side of the long tail. No closed form has 95 % coverage where two prompts of fifty are not 0.
So there is no interval where fewer than `LEAST_APART` prompts differ from the median, or where `|a|` is above
`MOST_SKEWED`: a few prompts then determine the mean. Form and limits were chosen by simulation
(`benchmarks/intervals.py`).

Shapes: `P` prompts, `M` columns.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatVector = NDArray[np.float64]

LEAST_APART = 2
"""The number of prompts that must differ from the median (in a sparse column: from 0) for an interval."""
MOST_SKEWED = 0.7
"""Skewness of the mean (`a`) above which there is no interval."""

_EXPECTED_APART = 10
"""With ten firings of exponential sizes, nine samples in ten are below `MOST_SKEWED`; with four, half are."""
_MARGIN = 1.5
_QUANTILE = 0.975
_BLOCK = 256
_ROUNDING = 1e-12
"""Numbers that differ by less than this share of a column's largest number count as equal."""


class Interval(NamedTuple):
    """A mean over prompts with its 95 % interval.

    Args:
        mean: the mean of the n values.
        low: lower end; NaN where there is no interval.
        high: upper end; NaN where there is no interval.
        n: the number of prompts.
        apart: how many of them differ from the median (from 0 in a sparse column; of right and wrong
            answers, the number of the rarer). None where it is not used.
        enough: about how many prompts would be enough for an interval; None where there is one, or where
            it is not known.
    """

    mean: float
    low: float
    high: float
    n: int
    apart: int | None = None
    enough: int | None = None

    @property
    def given(self) -> bool:
        """Whether there is an interval; its upper end may be infinite."""
        return not math.isnan(self.low)

    def as_json(self) -> dict[str, float | int | None]:
        """The same as a JSON object, with null in place of NaN."""
        numbers = {"mean": self.mean, "low": self.low, "high": self.high}
        finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return {**finite, "n": self.n}


@dataclass(frozen=True)
class Intervals:
    """M means over the same prompts with their intervals; iterating gives each as an `Interval`.

    Args:
        mean: [M] float64.
        low: [M] float64, NaN where there is no interval.
        high: [M] float64, NaN where there is no interval.
        apart: [M] int64, see `Interval`.
        enough: [M] float64, about how many prompts would be enough; NaN where there is an interval, or where
            it is not known.
        n: the number of prompts.
    """

    mean: FloatVector
    low: FloatVector
    high: FloatVector
    apart: NDArray[np.int64]
    enough: FloatVector
    n: int

    def __len__(self) -> int:
        return len(self.mean)

    def __iter__(self) -> Iterator[Interval]:
        for j in range(len(self)):
            enough = None if np.isnan(self.enough[j]) else int(self.enough[j])
            ends = float(self.mean[j]), float(self.low[j]), float(self.high[j])
            yield Interval(*ends, self.n, int(self.apart[j]), enough)


class Moments(NamedTuple):
    """Moments of M columns of P numbers, each [M].

    Args:
        mean: means.
        squares: sums of squared deviations.
        cubes: sums of cubed deviations.
        apart: the number of entries that differ from the column's median.
    """

    mean: FloatVector
    squares: FloatVector
    cubes: FloatVector
    apart: NDArray[np.int64]


def mean_interval(values: ArrayLike) -> Interval:
    """The mean of one number per prompt, with a 95 % interval over prompts.

    Args:
        values: [P] numbers, one per prompt; booleans count as 0 and 1.
    """
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    if not len(column):
        return Interval(math.nan, math.nan, math.nan, 0)
    return next(iter(mean_intervals(column)))


def mean_intervals(columns: Any) -> Intervals:
    """M means over P prompts with 95 % intervals; see the module's docstring.

    A column of equal numbers gets no interval: without variation the error of its mean is unknown.

    Args:
        columns: [P, M] numbers, dense or scipy sparse.
    """
    count = columns.shape[0]
    moments = column_moments(columns)
    error = np.sqrt(moments.squares / max(count - 1, 1) / max(count, 1))
    skewness = skewness_of_mean(moments)
    ends = interval_ends(moments.mean, error, skewness, max(count - 1, 1))
    none = too_few(moments.apart, skewness)
    low, high = (np.where(none, np.nan, end) for end in ends)
    enough = np.where(none, prompts_needed(count, moments.apart, skewness), np.nan)
    return Intervals(moments.mean, low, high, moments.apart, enough, count)


def too_few(apart: ArrayLike, skewness: ArrayLike) -> NDArray[np.bool_]:
    """Whether there are too few prompts for an interval; see the module's docstring. Arguments broadcast.

    Args:
        apart: the number of prompts that differ from the median.
        skewness: of the mean.
    """
    return np.asarray((np.asarray(apart) < LEAST_APART) | (np.abs(skewness) > MOST_SKEWED))


def prompts_needed(count: int, apart: ArrayLike, skewness: ArrayLike) -> FloatVector:
    """About how many prompts like these give an interval, two significant digits; NaN where none differs.

    Args:
        count: the number of prompts so far.
        apart: how many of them differ from the median.
        skewness: of their mean; it falls with the square root of their number.
    """
    some = np.asarray(apart, dtype=np.float64)
    times = np.maximum(
        _EXPECTED_APART / np.where(some > 0, some, np.nan),
        _MARGIN * (np.asarray(skewness, dtype=np.float64) / MOST_SKEWED) ** 2,
    )
    # the prompts so far were not enough, so at least one more
    needed = np.maximum(count * times, count + 1)
    unit = 10.0 ** np.maximum(np.floor(np.log10(needed)) - 1, 0)
    return np.asarray(unit * np.ceil(needed / unit))


def interval_ends(
    mean: FloatVector | float,
    error: FloatVector | float,
    skewness: FloatVector | float,
    freedom: float,
    *,
    quantile: float = _QUANTILE,
) -> tuple[FloatVector, FloatVector]:
    """Lower and upper ends of intervals, 95 % unless asked otherwise; see the module. Arguments broadcast.

    Args:
        mean: the estimate.
        error: its standard error.
        skewness: of the estimate (`a`), not of a single number.
        freedom: degrees of freedom of the standard error.
        quantile: that each end is at on its side; .975 for 95 %.
    """
    from scipy.special import ndtri, stdtrit

    t, z = float(stdtrit(freedom, quantile)), float(ndtri(quantile))
    lean = np.asarray(skewness, dtype=np.float64)
    # `wide` depends on the squared skewness and acts on both sides, `tail` on the side of its sign
    half = t + z * (z**4 + 2 * z**2 - 3) / 36 * lean**2
    tail = lean * (1 / 6 + t**2 / 3)
    low = mean - (half - np.minimum(tail, 0)) * error
    high = mean + (half + np.maximum(tail, 0)) * error
    return np.asarray(low), np.asarray(high)


def skewness_of_mean(moments: Moments) -> FloatVector:
    """[M] `sum d^3 / (sum d^2)^1.5`; 0 for equal numbers."""
    used = moments.squares > 0
    return np.where(used, moments.cubes / np.where(used, moments.squares, 1.0) ** 1.5, 0.0)


def leaves_out_zero(mean: float, low: float | None, high: float | None) -> bool:
    """Whether a whole interval is on the same side of 0 as its mean; False without an interval."""
    if low is None or high is None:
        return False
    return bool(low > 0 if mean > 0 else high < 0)


def clustered_mean(values: ArrayLike, clusters: ArrayLike) -> Interval:
    """The mean over prompts with several values each; every prompt has the same weight.

    Args:
        values: [N] numbers, one per answer or comparison.
        clusters: [N] the prompt each value belongs to: any labels.
    """
    column = np.asarray(values, dtype=np.float64)
    _, ids = np.unique(np.asarray(clusters), return_inverse=True)
    return mean_interval(np.bincount(ids, weights=column) / np.bincount(ids) if len(column) else column)


def column_moments(columns: Any) -> Moments:
    """Moments of [P, M] columns, dense or scipy sparse, without storing the zeros of sparse ones."""
    from scipy.sparse import csc_array, issparse

    if not issparse(columns):
        return _dense_moments(np.asarray(columns, dtype=np.float64))
    given: Any = columns
    # by columns: moments are taken of columns, and slices of them are cheap in this form
    matrix: Any = csc_array(given, dtype=np.float64)
    # with more than half zeros the median is 0; in the other columns the few zeros save nothing
    thin = 2 * np.diff(matrix.indptr) < matrix.shape[0]
    moments = _filled(matrix.shape[1], 0.0)
    _place(moments, np.flatnonzero(thin), _sparse_moments(matrix[:, thin]))
    full = np.flatnonzero(~thin)
    # a block at a time: all of these columns at once would be [P, L] dense
    for start in range(0, len(full), _BLOCK):
        block = full[start : start + _BLOCK]
        _place(moments, block, _dense_moments(matrix[:, block].toarray()))
    return moments


def _filled(width: int, value: float) -> Moments:
    mean, squares, cubes = np.full((3, width), value)
    return Moments(mean, squares, cubes, np.zeros(width, dtype=np.int64))


def _place(moments: Moments, where: NDArray[np.int64], part: Moments) -> None:
    for column, values in zip(moments, part, strict=True):
        column[where] = values


def _dense_moments(columns: FloatVector) -> Moments:
    count, width = columns.shape
    if not count:
        return _filled(width, np.nan)
    # without the tolerance a constant column with rounding errors would seem to vary
    rounding = _ROUNDING * np.abs(columns).max(axis=0)
    apart = (np.abs(columns - np.median(columns, axis=0)) > rounding).sum(axis=0)
    mean = columns.mean(axis=0)
    deviation = columns - mean
    squares, cubes = (deviation**2).sum(axis=0), (deviation**3).sum(axis=0)
    return Moments(mean, squares, cubes, apart.astype(np.int64))


def _sparse_moments(matrix: Any) -> Moments:
    """Moments of csc columns whose median is 0.

    They come from raw moments. Where more than half of the numbers are 0, the mean is small beside the SD, so
    the subtraction loses no digits.
    """
    count, width = matrix.shape
    first, second, third = (
        np.asarray(power.sum(axis=0)).ravel()
        for power in (matrix, matrix.multiply(matrix), matrix.multiply(matrix).multiply(matrix))
    )
    mean = first / max(count, 1)
    largest = abs(matrix).max(axis=0).toarray().ravel() if matrix.nnz else np.zeros(width)
    column = np.repeat(np.arange(width), np.diff(matrix.indptr))
    other = np.abs(matrix.data) > _ROUNDING * largest[column]
    return Moments(
        mean,
        np.maximum(second - count * mean**2, 0),
        # sum (x - m)^3, with sum x = n m
        third - 3 * mean * second + 2 * count * mean**3,
        np.bincount(column[other], minlength=width).astype(np.int64),
    )
