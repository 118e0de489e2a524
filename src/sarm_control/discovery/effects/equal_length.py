"""What a latent does between answers of equal length: the partial effect beside the plain one.

    c_pi = effect_i + slope_i x_p + error      x_p = mean log(1 + tokens) of chosen - of rejected

The regression is fitted over prompts; its intercept is the effect where both sides are equally long.

Shapes: `P` prompts, `M` latents.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.discovery.pairs.margins import PairLatents, averager
from sarm_control.statistics import column_moments, interval_ends

Vector = NDArray[np.float64]

LEAST_APART = 8
"""Prompts that must differ from the median for an interval; of 5 to 15 the least that covers in the cases of
`benchmarks/interval_ratios.py` (.92 in the worst)."""


class EqualLength(NamedTuple):
    """Effects at equal length, [M] each, with 95 % intervals; NaN where undefined or too little is known."""

    effect: Vector
    low: Vector
    high: Vector

    def as_json(self, latent: int = 0) -> dict[str, float | None] | None:
        """One of them as a JSON object, with null in place of NaN; null where undefined."""
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
    """Intercepts of M regressions on the difference in log length, by least squares.

    Errors are HC3 (MacKinnon and White 1985), so prompts may differ in spread; intervals are longer where
    the intercept is skewed, as those of means are (`statistics.intervals`), and left out (NaN ends) where
    fewer than `LEAST_APART` prompts differ from the median. Undefined (NaN) for fewer than 4 prompts, where
    every prompt has the same difference other than 0 (then no prompt says what equal length would give),
    and where one prompt alone differs from all others and they differ from 0 (it alone says so, without
    a residual to judge it by).

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
    # intercept = sum_p pull_p c_p, slope (per unit of `centred`) = sum_p centred_p c_p
    pull = 1 / count - (0.0 if constant else mean / np.sqrt(spread)) * centred
    free = 1 - (1 / count + centred**2)
    fitted = free < 1e-9  # its residual is 0 whatever its value
    if np.abs(pull[fitted]).max(initial=0.0) > 1e-9:
        return EqualLength(nothing, nothing, nothing)
    scaled = np.divide(pull, free, out=np.zeros(count), where=~fitted)
    average, slope = (_weighted_sums(columns, weight) for weight in (np.full(count, 1 / count), centred))
    effect = _weighted_sums(columns, pull)
    variance = _residual_squares(columns, centred, average, slope, scaled**2)
    cubes = _residual_cubes(columns, centred, average, slope, scaled**3)
    varied = variance > 0
    lean = np.where(varied, cubes / np.where(varied, variance, 1.0) ** 1.5, 0.0)
    low, high = interval_ends(effect, np.sqrt(variance), lean, count - 2)
    none = column_moments(columns).apart < LEAST_APART
    return EqualLength(effect, *(np.where(none, np.nan, end) for end in (low, high)))


def _weighted_sums(columns: Any, weight: Vector) -> Vector:
    return np.asarray(columns.T @ weight).ravel()


def _residual_squares(
    columns: Any, centred: Vector, average: Vector, slope: Vector, weight: Vector
) -> Vector:
    """[M] `sum_p weight_p (c_p - average - slope centred_p)^2`, without storing the zeros of c."""
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
