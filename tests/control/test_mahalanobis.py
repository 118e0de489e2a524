"""The closed form in place of a classifier: oracle against each row left out in turn and eigenvalues."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sarm_control.control.density_ratio import Mahalanobis
from sarm_control.control.density_ratio.mahalanobis import Distance, _dimensions, _unbiased, covariance

Floats = NDArray[np.float64]


def drawn(rows: int, width: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng([rows, width, seed])
    return rng.normal(1.0, 2.0, (rows, width)) @ rng.normal(size=(width, width))


def ridge_of(rows: Floats) -> float:
    return 0.001 * float(np.mean(rows.var(axis=0, ddof=1)))


def directions(rows: Floats) -> float:
    """The number of varying directions from the eigenvalues, with those that few rows hide."""
    own = np.linalg.eigvalsh(np.atleast_2d(np.cov(rows.T)))
    seen = float((own / (own + ridge_of(rows))).sum())
    return seen * max(1.0, int((rows.std(axis=0) > 0).sum()) / (len(rows) - 1))


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_oracle_the_diagonal_gets_a_thousandth_of_the_mean_variance(width: int, scale: float) -> None:
    rows = scale * drawn(12, width)
    expected = np.atleast_2d(np.cov(rows.T)) + ridge_of(rows) * np.eye(width)
    np.testing.assert_allclose(covariance(rows), expected, rtol=1e-12)


def test_rows_that_never_vary_have_a_thousandth_on_the_diagonal() -> None:
    np.testing.assert_array_equal(covariance(np.full((5, 3), 7.0)), 1e-3 * np.eye(3))


@pytest.mark.parametrize(("rows", "width"), [(30, 4), (5, 8), (3, 20)])
def test_oracle_the_directions_in_which_rows_vary(rows: int, width: int) -> None:
    human = drawn(rows, width)
    assert _dimensions(human) == pytest.approx(directions(human), rel=1e-9)
    still = np.concatenate([human, np.ones((rows, 3))], axis=1)
    assert _dimensions(still) == pytest.approx(directions(still), rel=1e-9)


@pytest.mark.parametrize(("rows", "width"), [(8, 4), (6, 3), (100, 20), (4, 1), (40, 20)])
def test_oracle_many_rows_have_hartlaps_factor(rows: int, width: int) -> None:
    assert _unbiased(drawn(rows, width)) == pytest.approx((rows - width - 2) / (rows - 1), rel=1e-12)


@pytest.mark.parametrize(("rows", "width"), [(7, 4), (5, 3), (3, 2), (4, 2), (3, 1), (10, 20), (39, 20)])
def test_oracle_few_rows_have_the_factor_of_rows_left_out_in_turn(rows: int, width: int) -> None:
    human = drawn(rows, width)
    squared = []
    for left_out in range(rows):
        others = np.delete(human, left_out, axis=0)
        apart = human[left_out] - others.mean(axis=0)
        with_ridge = np.atleast_2d(np.cov(others.T)) + ridge_of(human) * np.eye(width)
        squared.append(apart @ np.linalg.solve(with_ridge, apart))
    expected = directions(human) * (1 + 1 / (rows - 1)) / np.mean(squared)
    assert _unbiased(human) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("rows", [3, 40])
def test_oracle_the_distance_is_half_the_squared_one_less_chance_of_both_means(rows: int) -> None:
    human, batch = drawn(rows, 4), drawn(9, 4, seed=1)
    precision = np.linalg.inv(covariance(human)) * _unbiased(human)
    shift = batch.mean(axis=0) - human.mean(axis=0)
    scatter = np.trace(precision @ np.cov(batch.T)) / 2
    chance = scatter / 9 + directions(human) / 2 / rows
    distance = Distance.from_humans(human)
    assert distance.of(batch) == pytest.approx(shift @ precision @ shift / 2 - chance, rel=1e-9)
    # of a single row no scatter is known: it is taken to vary as the humans do
    alone = batch[0] - human.mean(axis=0)
    chance = directions(human) / 2 * (1 + 1 / rows)
    assert distance.of(batch[:1]) == pytest.approx(alone @ precision @ alone / 2 - chance, rel=1e-9)


@pytest.mark.parametrize("rows", [3, 6])
def test_humans_that_never_vary_have_the_distance_of_their_ridge(rows: int) -> None:
    distance = Distance.from_humans(np.full((rows, 4), 2.0))
    assert distance.chance == 0.0
    assert distance.of(np.full((5, 4), 2.0)) == 0.0
    assert distance.of(np.full((5, 4), 2.1)) == pytest.approx(0.5 * 4 * 0.1**2 * 1000)


def test_oracle_the_ratio_is_that_of_two_gaussians() -> None:
    from scipy.stats import multivariate_normal

    policy, human = drawn(6, 3, seed=2) + 1.0, drawn(50, 3)
    counts = np.array([1.0, 2.0, 1.0, 3.0, 0.5, 1.0])
    covered = covariance(human) / _unbiased(human)
    means = np.repeat(policy, (2 * counts).astype(int), axis=0).mean(axis=0), human.mean(axis=0)
    at = drawn(7, 3, seed=3)
    of_policy, of_human = (multivariate_normal(mean, covered).logpdf(at) for mean in means)
    found = Mahalanobis().fit(policy, human, counts=counts)
    np.testing.assert_allclose(found.at(at), of_policy - of_human, rtol=1e-8)
