"""What a latent does between answers of equal length: the partial effect beside the plain one.

    c_pi = effect_i + slope_i x_p + error      x_p = mean log(1 + tokens) of chosen - of rejected

The regression is fitted over prompts; its intercept is the effect where both sides are equally long.

Shapes: `P` prompts, `M` latents.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.discovery.margins import PairLatents, averager

Vector = NDArray[np.float64]


class EqualLength(NamedTuple):
    """Effects at equal length, [M] each, with 95 % intervals; NaN where lengths leave it undefined."""

    effect: Vector
    low: Vector
    high: Vector

    def as_json(self, latent: int = 0) -> dict[str, float] | None:
        """One of them as a JSON object; null where undefined."""
        ends = {"mean": self.effect, "low": self.low, "high": self.high}
        values = {name: float(column[latent]) for name, column in ends.items()}
        return values if np.isfinite(list(values.values())).all() else None


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

    Intervals are normal with the HC3 variance (MacKinnon and White 1985), so prompts may differ in
    spread. Undefined (NaN) for fewer than 4 prompts, where every prompt has the same difference other
    than 0 (then no prompt says what equal length would give), and where one prompt alone differs from
    all others and they differ from 0 (it alone says so, without a residual to judge it by).

    Args:
        columns: [P, M] contributions, scipy sparse.
        difference: [P] from `length_difference`.
    """
    from scipy.special import stdtrit

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
    half = stdtrit(count - 2, 0.975) * np.sqrt(variance)
    return EqualLength(effect, effect - half, effect + half)


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
