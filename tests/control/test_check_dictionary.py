"""What the linearity check is made of, oracle: its columns, statistics and p-value one by one."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sarm_control.control.density_ratio.model_check.dictionary import _kept, _products, _shapes, _waves
from sarm_control.control.density_ratio.model_check.linearity import Rows, _p_value, _Residuals, _statistics
from sarm_control.seeds import numpy_generator

Floats = NDArray[np.float64]


def standard(*columns: NDArray[Any]) -> Floats:
    """Columns [N, J] with mean 0 and SD 1."""
    rows: Floats = np.stack(columns, axis=1).astype(np.float64)
    return np.asarray((rows - rows.mean(axis=0)) / rows.std(axis=0))


def indicator(ones: int, rows: int = 100) -> Floats:
    return (np.arange(rows) < ones).astype(np.float64)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_oracle_columns_that_two_rows_decide_are_left_out(scale: float) -> None:
    """Of 100 rows with m ones: 100 p (1 - p) >= 2.5 (1 - p)^2 with p = m / 100 holds from m = 3 on."""
    columns = [scale * indicator(ones) for ones in (0, 1, 2, 3, 50, 97)]
    found = _kept(np.stack(columns, axis=1))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, standard(indicator(3), indicator(50), indicator(97)), rtol=1e-5)


def test_oracle_columns_are_kept_from_two_and_a_half_times_the_largest_square() -> None:
    """Rows at +-1 and 34 at +-a: the sum of squares, 2 + 34 a^2, is 2.5 at a^2 = 0.5 / 34."""
    for a, kept in ((np.sqrt(0.505 / 34), 1), (np.sqrt(0.495 / 34), 0)):
        column = np.array([1.0, -1.0, *([a, -a] * 17)])
        assert _kept(column[:, None]).shape[1] == kept


def test_oracle_shapes_of_a_latent_that_fires_in_a_third_of_the_rows() -> None:
    z = np.zeros((60, 1), np.float32)
    z[::3, 0] = np.arange(20, 0, -1)
    values = z.astype(np.float64) / 7 - 1
    # of 20 values the quantiles are those at places 2, 5, 10, 15 and 18 from 0; above the last is one row
    above = [z[:, 0] > end for end in (3, 6, 11, 16)]
    expected = standard(values[:, 0] ** 2, np.log1p(np.abs(values[:, 0])), *above)
    np.testing.assert_allclose(_shapes(z, values), expected, atol=1e-5)


def test_oracle_shapes_of_a_latent_of_both_signs_are_over_all_rows() -> None:
    z = np.concatenate([np.zeros(30), np.arange(-35, 0), np.arange(1, 36)]).astype(np.float32)[:, None]
    values = z.astype(np.float64)
    # places 10, 25, 50, 75 and 90 of the sorted 100
    above = [z[:, 0] > end for end in (-25, -10, 0, 11, 26)]
    expected = standard(values[:, 0] ** 2, np.log1p(np.abs(values[:, 0])), *above)
    np.testing.assert_allclose(_shapes(z, values), expected, atol=1e-5)


def test_a_latent_that_never_fires_has_no_shapes() -> None:
    z = np.zeros((40, 2), np.float32)
    assert _shapes(z, z.astype(np.float64)).shape == (40, 0)


def test_oracle_products_of_latents_that_meet_in_ten_rows_or_more() -> None:
    rng = np.random.default_rng(0)
    z = np.zeros((100, 4), np.float32)
    z[:50, 0], z[40:90, 1], z[41:80, 2], z[:100, 3] = (rng.uniform(1, 2, n) for n in (50, 50, 39, 100))
    values = z + 0.5
    # together in 10 rows: 0 and 1; in 9: 0 and 2; in all but few: those of 3, apart in 50, 50 and 61
    pairs = [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)]
    fire = [(z[:, a] > 0) & (z[:, b] > 0) for a, b in pairs]
    expected = standard(*fire, *(values[:, a] * values[:, b] for a, b in pairs))
    np.testing.assert_allclose(_products(z, values.astype(np.float64)), expected, atol=1e-5)


def test_oracle_of_many_latents_the_least_random_and_the_most_even_pairs_are_taken() -> None:
    rng = np.random.default_rng(1)
    z = (rng.random((300, 40)) < rng.uniform(0.1, 0.9, 40)).astype(np.float32)
    z[:, 1] = z[:, 0]
    pairs = [(a, b) for a in range(40) for b in range(a + 1, 40)]
    meet = np.array([(z[:, a] * z[:, b]).sum() for a, b in pairs])
    chance = np.array([300 * z[:, a].mean() * z[:, b].mean() for a, b in pairs], np.float64)
    even = np.minimum(meet, 300 - meet)
    unlike = np.abs(meet - chance) / np.sqrt(chance + 1)
    # 250 of each; those that are both count once
    taken = {*np.argsort(-even, kind="stable")[:250], *np.argsort(-unlike, kind="stable")[:250]}
    own = [pairs[i] for i in sorted(taken) if even[i] >= 10]
    assert 250 < len(own) < 500
    fire = [z[:, a] * z[:, b] for a, b in own]
    np.testing.assert_allclose(
        _products(z, z.astype(np.float64)), standard(*fire, *fire).astype(np.float32), atol=1e-4
    )


def test_oracle_waves_have_half_once_and_twice_the_distance_between_rows() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(200, 3)) * [1.0, 2.0, 0.5]
    apart = features[:, None] - features[None]
    # the mean over all pairs, each row with itself too
    distance = np.sqrt((apart**2).sum(axis=2).mean())
    own = numpy_generator(4, "waves of the check for what is not linear")
    directions, phases = own.normal(size=(3, 256)), own.uniform(0, 2 * np.pi, 256)
    waves = [
        np.cos(features @ directions[:, j] / (distance * (0.5, 1.0, 2.0)[j % 3]) + phases[j])
        for j in range(256)
    ]
    np.testing.assert_allclose(_waves(features, 4), standard(*waves), atol=1e-4)


def test_rows_without_any_distance_have_waves_without_division_by_zero() -> None:
    with np.errstate(all="raise"):
        assert np.isfinite(_waves(np.zeros((40, 3)), 0)).all()


@pytest.mark.parametrize(
    ("statistics", "p"),
    [
        # 1 + the draws that reach the sample's own, of 1 + all; equal ones reach it
        ([[3.0, 3.0, 1.0, 2.0]], 2 / 4),
        ([[3.0, 2.9, 1.0, 2.0]], 1 / 4),
        ([[0.0, 2.9, 1.0, 2.0]], 4 / 4),
        # draws without spread: their own is above, equal, below
        ([[5.0, 1.0, 1.0, 1.0]], 1 / 4),
        ([[1.0, 1.0, 1.0, 1.0]], 4 / 4),
        ([[0.0, 1.0, 1.0, 1.0]], 4 / 4),
        # in SDs of draws: of the first 0.5 SD above the mean, of the second 2; draws have 1 at most
        ([[105.0, 90.0, 110.0], [0.4, 0.1, -0.1]], 1 / 3),
        ([[105.0, 90.0, 110.0], [-0.1, 0.1, -0.1]], 3 / 3),
        ([[115.0, 90.0, 110.0], [-0.1, 0.1, -0.1]], 1 / 3),
    ],
)
def test_oracle_the_p_value_by_hand(statistics: list[list[float]], p: float) -> None:
    assert _p_value(np.array(statistics)) == pytest.approx(p, abs=1e-12)


def test_metamorphic_the_p_value_minds_neither_scale_nor_shift_of_a_statistic() -> None:
    statistics = np.random.default_rng(3).normal(size=(3, 40))
    moved = statistics * np.array([[1.0], [100.0], [0.01]]) + np.array([[5.0], [0.0], [-2.0]])
    assert _p_value(moved) == _p_value(statistics)
    assert _p_value(np.zeros((0, 40))) == 1.0


def weighted(rows: int = 80) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(rows, 3))
    return features, 1 / (1 + np.exp(-features[:, 0]))


def test_oracle_residuals_are_those_of_weighted_least_squares() -> None:
    features, chance = weighted()
    found = _Residuals.of(np.concatenate([features, features[:, :1]], axis=1), chance, 30, seed=0)
    assert found.scaled.shape == (80, 400)
    # the copied feature adds no direction
    assert found.span.shape == (80, 4)
    np.testing.assert_allclose(found.span.T @ found.span, np.eye(4), atol=1e-5)
    root = np.sqrt(chance * (1 - chance))
    design = np.column_stack([features, np.ones(80)]) * root[:, None]
    own = ((np.arange(80) < 30) - chance) / root
    left = own - design @ np.linalg.lstsq(design, own, rcond=None)[0]
    np.testing.assert_allclose(found.scaled[:, 0], left, atol=1e-5)
    assert np.abs(design.T @ found.scaled).max() < 1e-3
    # a draw's residual: 1 or 0 minus its chance, over the root and that of 1 - leverage, less the fitted part
    rng = numpy_generator(0, "sides of the check for what is not linear")
    sides = rng.random((399, 80)) < chance
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    for draw in (0, 398):
        wide = (sides[draw] - chance) / root / np.sqrt(1 - np.minimum(leverage, 0.5))
        left = wide - design @ np.linalg.lstsq(design, wide, rcond=None)[0]
        np.testing.assert_allclose(found.scaled[:, 1 + draw], left, atol=1e-5)
    # as the draws are of the fitted law, their mean square is that of the rows less the directions
    assert (found.scaled[:, 1:] ** 2).sum(axis=0).mean() == pytest.approx(80, rel=0.05)


def test_oracle_statistics_are_the_largest_partial_correlation_and_the_sum_of_squares() -> None:
    features, chance = weighted()
    weight = chance * (1 - chance)
    residuals = _Residuals.of(features, chance, 30, seed=0)
    columns = standard(features[:, 0] ** 2, np.sin(3 * features[:, 1]), features @ [1.0, 2.0, 0.5])
    found = _statistics(columns.astype(np.float32), residuals, weight)
    design = np.column_stack([features, np.ones(80)]) * np.sqrt(weight)[:, None]
    scores = []
    # the third column is a sum of features, of which nothing is left
    for column in columns[:, :2].T:
        scaled = column * np.sqrt(weight)
        left = scaled - design @ np.linalg.lstsq(design, scaled, rcond=None)[0]
        scores.append(left / np.linalg.norm(left) @ residuals.scaled)
    expected = np.stack([np.abs(scores).max(axis=0), np.square(scores).sum(axis=0)])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert _statistics(columns[:, 2:].astype(np.float32), residuals, weight).shape == (0, 400)


def test_distinct_rows_keep_one_of_copies_and_all_that_are_only_0_and_1() -> None:
    latents = np.array([[0.5, 0], [0, 1], [0.5, 0], [0, 1], [2, 1], [0, 0], [0, 0], [0.5, 1]], np.float32)
    features = np.arange(8.0)[:, None]
    found = Rows.distinct(latents, features)
    values, counts = np.unique(found.latents, axis=0, return_counts=True)
    assert dict(zip(map(tuple, values.tolist()), counts.tolist(), strict=True)) == {
        (0.0, 0.0): 2,
        (0.0, 1.0): 2,
        (0.5, 0.0): 1,
        (0.5, 1.0): 1,
        (2.0, 1.0): 1,
    }
    # a row keeps its features
    np.testing.assert_array_equal(latents[found.features[:, 0].astype(int)], found.latents)
    turned = Rows.distinct(latents[::-1], features[::-1])
    np.testing.assert_array_equal(turned.latents, found.latents)
    few = Rows.distinct(latents, features, 3)
    np.testing.assert_array_equal(few.latents, found.latents[:3])
