"""The effect of a latent between answers of equal length.

    c_pi = effect_i + slope_i x_p + error      x_p = mean log(1 + tokens) of chosen - of rejected

The regression is fitted over prompts; its intercept is the effect where both sides are equally long. A latent
that only prefers long answers has a plain effect, but none at equal length.

Shapes: `P` prompts, `M` latents.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.discovery.pairs.margins import PairLatents, averager
from sarm_control.statistics import column_moments, interval_ends

Vector = NDArray[np.float64]

LEAST_APART = 8
"""The number of prompts that must differ from the median for an interval.

Of 5 to 15 it is the smallest with enough coverage in the cases of `benchmarks/interval_ratios.py` (.92 in the
worst)."""


class EqualLength(NamedTuple):
    """Effects at equal length, [M] each, with 95 % intervals; NaN where undefined or with too few prompts."""

    effect: Vector
    low: Vector
    high: Vector

    def as_json(self, latent: int = 0) -> dict[str, float | None] | None:
        """The effect of one latent as a JSON object, with null in place of NaN; None where undefined."""
        ends = {"mean": self.effect, "low": self.low, "high": self.high}
        values = {name: float(column[latent]) for name, column in ends.items()}
        if not np.isfinite(values["mean"]):
            return None
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


def length_difference(pairs: PairLatents) -> Vector | None:
    """[P] difference of mean log(1 + tokens), chosen minus rejected; None when lengths are unknown."""
    if pairs.chosen_length is None or pairs.rejected_length is None:
        return None
    sides = (
        (pairs.chosen_length, pairs.chosen_prompt),
        (pairs.rejected_length, pairs.rejected_prompt),
    )
    chosen, rejected = (averager(prompt, pairs.prompts) @ np.log1p(length) for length, prompt in sides)
    return np.asarray(chosen - rejected)


def equal_length_effects(columns: Any, difference: Vector) -> EqualLength:
    """Intercepts of M least-squares regressions on the difference in log length.

    Errors are HC3 (MacKinnon and White 1985), so the spread may differ between prompts. Intervals are widened
    where the intercept is skewed, like those of means (`statistics.intervals`). Their ends are NaN where
    fewer than `LEAST_APART` prompts differ from the median.

    Effects are NaN for fewer than 4 prompts and where the data cannot determine the intercept: every prompt
    has the same nonzero difference, or a single prompt differs from all others and those differ from 0 (the
    intercept then rests on one prompt, which has no residual).

    Args:
        columns: [P, M] contributions, scipy sparse.
        difference: [P] from `length_difference`.
    """
    count = len(difference)
    mean = difference.mean() if count else 0.0
    spread = float(((difference - mean) ** 2).sum())
    constant = spread <= 1e-12 * max(count, 1)
    nothing = np.full(columns.shape[1], np.nan)
    if count < 4 or (constant and abs(mean) > 1e-6):
        return EqualLength(nothing, nothing, nothing)
    centred = np.zeros(count) if constant else (difference - mean) / np.sqrt(spread)
    # both estimates are linear in c: intercept = sum pull_p c_p, and slope per `centred` = sum centred_p c_p
    pull = 1 / count - (0.0 if constant else mean / np.sqrt(spread)) * centred
    # 1 - leverage; a prompt of leverage 1 always has the residual 0, so HC3 cannot divide by it
    free = 1 - (1 / count + centred**2)
    fitted = free < 1e-9
    if np.abs(pull[fitted]).max(initial=0.0) > 1e-9:
        return EqualLength(nothing, nothing, nothing)
    # HC3 divides each residual by 1 - leverage; the skewness uses the same scaled residuals
    scaled = np.divide(pull, free, out=np.zeros(count), where=~fitted)
    average, slope = (_weighted_sums(columns, weight) for weight in (np.full(count, 1 / count), centred))
    effect = _weighted_sums(columns, pull)
    variance = _residual_squares(columns, centred, average, slope, scaled**2)
    cubes = _residual_cubes(columns, centred, average, slope, scaled**3)
    varied = variance > 0
    skewness = np.where(varied, cubes / np.where(varied, variance, 1.0) ** 1.5, 0.0)
    low, high = interval_ends(effect, np.sqrt(variance), skewness, count - 2)
    none = column_moments(columns).apart < LEAST_APART
    return EqualLength(effect, *(np.where(none, np.nan, end) for end in (low, high)))


def _weighted_sums(columns: Any, weight: Vector) -> Vector:
    return np.asarray(columns.T @ weight).ravel()


def _residual_squares(
    columns: Any, centred: Vector, average: Vector, slope: Vector, weight: Vector
) -> Vector:
    """[M] `sum_p weight_p (c_p - average - slope centred_p)^2`, without storing the zeros of c."""
    # the square is expanded, since c - fit has no zeros and would be dense
    squares = _weighted_sums(columns.multiply(columns), weight)
    linear = _weighted_sums(columns, weight)
    crossed = _weighted_sums(columns, weight * centred)
    fitted = (
        average**2 * weight.sum()
        + 2 * average * slope * (weight @ centred)
        + slope**2 * (weight @ centred**2)
    )
    return np.asarray(np.maximum(squares - 2 * (average * linear + slope * crossed) + fitted, 0.0))


def _residual_cubes(columns: Any, centred: Vector, average: Vector, slope: Vector, weight: Vector) -> Vector:
    """[M] `sum_p weight_p (c_p - average - slope centred_p)^3`, without storing the zeros of c."""
    # the cube is expanded for the same reason; `powers` are those of the regressor
    squared = columns.multiply(columns)
    powers = [centred**k for k in range(4)]
    cubes = _weighted_sums(squared.multiply(columns), weight)
    squares = [_weighted_sums(squared, weight * powers[k]) for k in range(2)]
    sums = [_weighted_sums(columns, weight * powers[k]) for k in range(3)]
    ones = [float(weight @ powers[k]) for k in range(4)]
    return np.asarray(
        cubes
        - 3 * (average * squares[0] + slope * squares[1])
        + 3 * (average**2 * sums[0] + 2 * average * slope * sums[1] + slope**2 * sums[2])
        - (average**3 * ones[0] + 3 * average**2 * slope * ones[1])
        - (3 * average * slope**2 * ones[2] + slope**3 * ones[3])
    )
