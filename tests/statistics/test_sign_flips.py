"""Oracle, property and calibration tests of the sign-flip tests and of the corrections for many latents."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import sparse, stats

from sarm_control.statistics.mixed_density import MixedRows
from sarm_control.statistics.multiplicity import benjamini_hochberg, benjamini_yekutieli
from sarm_control.statistics.sign_flips import hoeffding_bound, max_t_test, sign_flip_test

Floats = NDArray[np.float64]


def exact_p(column: Floats) -> float:
    nonzero = column[column != 0]
    sums = [abs(np.dot(signs, nonzero)) for signs in itertools.product((1, -1), repeat=len(nonzero))]
    return float(np.mean(np.array(sums) >= abs(nonzero.sum()) - 1e-9))


def test_oracle_exact_p_of_a_column_computed_by_hand() -> None:
    # sums of +-1 +-2 +-3: |6| is reached by 2 of 8, |4| by 4 of 8 (6, 4, -4, -6)
    columns = np.array([[1.0, -1.0], [2.0, 2.0], [3.0, 3.0]])
    np.testing.assert_allclose(sign_flip_test(columns), [2 / 8, 4 / 8])


def test_oracle_exact_p_equals_scipy_permutation_test() -> None:
    column = np.random.default_rng(3).normal(0.5, 1.0, 10)
    expected = stats.permutation_test(
        (column,), np.mean, permutation_type="samples", vectorized=False, n_resamples=100_000
    )
    assert sign_flip_test(column[:, None])[0] == pytest.approx(expected.pvalue, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(arrays(np.int64, (9,), elements=st.integers(-4, 4)))
def test_property_exact_p_equals_enumeration_with_ties_and_zeros(column: Floats) -> None:
    expected = exact_p(column) if column.any() else 1.0
    assert sign_flip_test(column[:, None])[0] == pytest.approx(expected, abs=1e-12)


def test_oracle_monte_carlo_agrees_with_enumeration() -> None:
    columns = np.random.default_rng(5).normal(0.25, 1.0, (15, 3))
    expected = [exact_p(column) for column in columns.T]
    np.testing.assert_allclose(sign_flip_test(columns, draws=20_000), expected, rtol=0.35, atol=5e-4)


def test_smallest_monte_carlo_p_is_one_over_draws_plus_one_and_the_bound_is_below() -> None:
    # T^2 = 30 is drawn: its bound, 6e-7, is above 1 / 5001^2; T^2 = 60 is not
    assert sign_flip_test(np.ones((30, 1)), draws=5000)[0] == 1 / 5001
    assert sign_flip_test(np.ones((60, 1)), draws=5000)[0] == pytest.approx(
        2 * math.exp(-30), rel=1e-9, abs=0
    )


def test_metamorphic_p_ignores_scale_sign_prompt_order_and_silent_prompts() -> None:
    generator = np.random.default_rng(1)
    columns = generator.normal(0.2, 1.0, (12, 5))
    p = sign_flip_test(columns)
    np.testing.assert_allclose(sign_flip_test(-1e-6 * columns), p)
    np.testing.assert_allclose(sign_flip_test(columns[generator.permutation(12)]), p)
    np.testing.assert_allclose(sign_flip_test(np.vstack([columns, np.zeros((40, 5))])), p)
    np.testing.assert_allclose(sign_flip_test(sparse.csr_array(columns)), p)


def test_p_of_a_column_does_not_depend_on_the_other_columns() -> None:
    columns = np.random.default_rng(2).normal(0.1, 1.0, (40, 8))
    alone = np.concatenate([sign_flip_test(columns[:, [j]], draws=4000) for j in range(8)])
    np.testing.assert_array_equal(sign_flip_test(columns, draws=4000), alone)


def test_calibration_p_values_are_valid_under_the_null() -> None:
    generator = np.random.default_rng(11)
    columns = np.where(generator.random((120, 2000)) < 0.3, generator.normal(size=(120, 2000)), 0)
    p = sign_flip_test(columns, draws=5000)
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / 2000)
    assert (p <= 0.2).mean() >= 0.16


def test_oracle_benjamini_hochberg_by_hand() -> None:
    # 5 tests, sorted p x 5 / rank, then the running minimum from the right
    p = np.array([0.03, 0.005, 0.9, 0.02, 0.04])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.05, 0.025, 0.9, 0.05, 0.05])
    assert len(benjamini_hochberg(np.empty(0))) == 0


def test_oracle_corrections_equal_scipy() -> None:
    p = np.random.default_rng(0).random(200) ** 4
    p[:5] = p[5]
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p, method="bh"))
    np.testing.assert_allclose(benjamini_yekutieli(p), stats.false_discovery_control(p, method="by"))


def test_a_test_without_a_p_leaves_no_rank_known() -> None:
    for correction in (benjamini_hochberg, benjamini_yekutieli):
        assert np.isnan(correction(np.array([0.01, math.nan, 0.2]))).all()
        with pytest.raises(ValueError, match="between 0 and 1"):
            correction(np.array([0.01, 1.5]))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_oracle_corrections_by_their_definition(values: list[float]) -> None:
    p = np.array(values)
    # q of a test: the least of M p / rank over all p that are as large or larger
    adjusted = [min(1.0, *(len(p) * x / (p <= x).sum() for x in p if x >= own)) for own in p]
    np.testing.assert_allclose(benjamini_hochberg(p), adjusted, rtol=1e-12)


def test_oracle_benjamini_yekutieli_is_the_harmonic_number_times_hochberg() -> None:
    p = np.array([0.0003, 0.005, 0.002, 0.02, 0.004])
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5
    np.testing.assert_allclose(benjamini_yekutieli(p), harmonic * benjamini_hochberg(p))
    assert benjamini_yekutieli(np.array([0.9, 0.8])).max() == 1
    assert len(benjamini_yekutieli(np.empty(0))) == 0


def test_oracle_monte_carlo_agrees_with_the_normal_law_on_many_prompts_and_keeps_the_extremes() -> None:
    """Prompts of equal size: the sum is a binomial, whose tail is known exactly."""
    prompts = 400
    columns = np.ones((prompts, 4))
    for j, negative in enumerate((150, 175, 185, 100)):
        columns[:negative, j] = -1
    p = sign_flip_test(columns, draws=20_000)
    for j, negative in enumerate((150, 175, 185)):
        exact = 2 * stats.binom.cdf(negative, prompts, 0.5)
        assert p[j] == pytest.approx(exact, rel=0.25, abs=1.5 / 20_001)
    assert stats.binom.cdf(100, prompts, 0.5) < p[3] < 1 / 20_001**2


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (11,), elements=st.floats(-3, 3)))
def test_property_hoeffding_bounds_the_exact_p(column: Floats) -> None:
    assert hoeffding_bound(column[:, None])[0] >= sign_flip_test(column[:, None])[0] - 1e-12


def test_oracle_max_t_equals_the_step_down_algorithm_written_out() -> None:
    columns = np.random.default_rng(3).normal([0.9, 0.0, 0.6, 0.3], 1.0, (11, 4))
    scale = 1 / np.sqrt((columns**2).sum(axis=0))
    observed = np.abs(columns.sum(axis=0)) * scale
    order = np.argsort(-observed)
    exceed = np.zeros(4)
    for signs in itertools.product((1, -1), repeat=11):
        flipped = np.abs(np.array(signs) @ columns) * scale
        for rank, latent in enumerate(order):
            exceed[latent] += max(flipped[other] for other in order[rank:]) >= observed[latent] - 1e-12
    expected = np.zeros(4)
    largest = 0.0
    for latent in order:
        largest = max(largest, exceed[latent] / 2**11)
        expected[latent] = largest
    np.testing.assert_allclose(max_t_test(columns, draws=20_000), expected, atol=0.012)


def test_max_t_of_one_column_is_its_own_p_and_copies_cost_nothing() -> None:
    column = np.random.default_rng(4).normal(0.35, 1.0, (40, 1))
    alone = max_t_test(column, draws=8000)[0]
    assert alone == pytest.approx(sign_flip_test(column, draws=8000)[0], abs=0.012)
    copies = max_t_test(np.repeat(column, 30, axis=1), draws=8000)
    np.testing.assert_allclose(copies, alone)


def test_calibration_max_t_makes_a_false_finding_in_at_most_one_of_twenty_worlds() -> None:
    generator = np.random.default_rng(6)
    found = [
        max_t_test(generator.normal(size=(40, 30)) @ np.triu(np.ones((30, 30))), draws=199, seed=run).min()
        <= 0.05
        for run in range(200)
    ]
    assert 0.01 <= np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize("draws", [50, 1999, 2000])
def test_the_smallest_adjusted_p_is_one_over_draws_plus_one(draws: int) -> None:
    """No flip of 40 equal prompts reaches their sum, but the observed signs are a draw themselves."""
    columns = np.column_stack([np.ones(40), np.tile([1.0, -1.0], 20)])
    assert max_t_test(columns, draws=draws).tolist() == [1 / (draws + 1), 1.0]


def test_oracle_hoeffdings_bound_by_hand() -> None:
    # T^2 = 36 / 14, 0 and 1, and of a silent column 0
    columns = np.array([[1.0, 1.0, 0.0, 0.0], [2.0, -1.0, 5.0, 0.0], [3.0, 0.0, 0.0, 0.0]])
    expected = 2 * np.exp([-36 / 28, 0.0, -0.5, 0.0])
    np.testing.assert_allclose(hoeffding_bound(columns), expected, rtol=1e-12)
    np.testing.assert_allclose(hoeffding_bound(sparse.csr_array(columns)), expected, rtol=1e-12)


def test_max_t_of_nothing_and_of_a_silent_column() -> None:
    assert len(max_t_test(np.empty((5, 0)))) == 0
    assert max_t_test(np.array([[1.0, 0.0], [1.0, 0.0]]), draws=50)[1] == 1


def test_property_mixed_rows_multiply_like_a_dense_matrix() -> None:
    generator = np.random.default_rng(8)
    shares = np.array([0.0, 0.01, 0.2, 1.0, 0.04, 0.06])[:, None]
    dense = np.where(generator.random((6, 200)) < shares, generator.normal(size=(6, 200)), 0)
    other = generator.normal(size=(200, 7))
    np.testing.assert_allclose(MixedRows(sparse.csr_array(dense)) @ other, dense @ other, atol=1e-12)
