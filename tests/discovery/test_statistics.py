"""Oracle, property and calibration tests of the prompt-level tests and intervals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse, stats

from sarm_control.discovery.statistics import (
    benjamini_hochberg,
    bootstrap_means,
    clustered_mean,
    mean_interval,
    sign_flip_test,
)


def exact_p(column):
    nonzero = column[column != 0]
    sums = [abs(np.dot(signs, nonzero)) for signs in itertools.product((1, -1), repeat=len(nonzero))]
    return np.mean(np.array(sums) >= abs(nonzero.sum()) - 1e-9)


def test_oracle_exact_p_of_a_column_computed_by_hand():
    # sums of +-1 +-2 +-3: |6| is reached by 2 of 8, |4| by 4 of 8 (6, 4, -4, -6)
    columns = np.array([[1.0, -1.0], [2.0, 2.0], [3.0, 3.0]])
    np.testing.assert_allclose(sign_flip_test(columns), [2 / 8, 4 / 8])


def test_oracle_exact_p_equals_scipy_permutation_test():
    column = np.random.default_rng(3).normal(0.5, 1.0, 10)
    expected = stats.permutation_test(
        (column,), np.mean, permutation_type="samples", vectorized=False, n_resamples=np.inf
    )
    assert sign_flip_test(column[:, None])[0] == pytest.approx(expected.pvalue, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(arrays(np.int64, (9,), elements=st.integers(-4, 4)))
def test_property_exact_p_equals_enumeration_with_ties_and_zeros(column):
    expected = exact_p(column) if column.any() else 1.0
    assert sign_flip_test(column[:, None])[0] == pytest.approx(expected, abs=1e-12)


def test_oracle_monte_carlo_agrees_with_enumeration():
    columns = np.random.default_rng(5).normal(0.25, 1.0, (15, 3))
    expected = [exact_p(column) for column in columns.T]
    np.testing.assert_allclose(sign_flip_test(columns, draws=20_000), expected, rtol=0.35, atol=5e-4)


def test_smallest_monte_carlo_p_is_one_over_draws_plus_one():
    assert sign_flip_test(np.ones((60, 1)), draws=5000)[0] == 1 / 5001


def test_metamorphic_p_ignores_scale_sign_prompt_order_and_silent_prompts():
    generator = np.random.default_rng(1)
    columns = generator.normal(0.2, 1.0, (12, 5))
    p = sign_flip_test(columns)
    np.testing.assert_allclose(sign_flip_test(-1e-6 * columns), p)
    np.testing.assert_allclose(sign_flip_test(columns[generator.permutation(12)]), p)
    np.testing.assert_allclose(sign_flip_test(np.vstack([columns, np.zeros((40, 5))])), p)
    np.testing.assert_allclose(sign_flip_test(sparse.csr_array(columns)), p)


def test_p_of_a_column_does_not_depend_on_the_other_columns():
    columns = np.random.default_rng(2).normal(0.1, 1.0, (40, 8))
    alone = np.concatenate([sign_flip_test(columns[:, [j]], draws=4000) for j in range(8)])
    np.testing.assert_array_equal(sign_flip_test(columns, draws=4000), alone)


def test_calibration_p_values_are_valid_under_the_null():
    generator = np.random.default_rng(11)
    columns = np.where(generator.random((120, 2000)) < 0.3, generator.normal(size=(120, 2000)), 0)
    p = sign_flip_test(columns, draws=5000)
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / 2000)
    assert (p <= 0.2).mean() >= 0.16


def test_oracle_benjamini_hochberg_by_hand():
    # 5 tests, sorted p x 5 / rank, then the running minimum from the right
    p = np.array([0.03, 0.005, 0.9, 0.02, 0.04])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.05, 0.025, 0.9, 0.05, 0.05])
    assert len(benjamini_hochberg(np.empty(0))) == 0


@pytest.mark.parametrize("seed", range(3))
def test_oracle_bca_interval_close_to_scipy_bootstrap(seed):
    values = np.random.default_rng(seed).exponential(1.0, 50) - 0.7
    ours = mean_interval(values, draws=20_000)
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=seed)
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.04 * width)


def test_calibration_bca_interval_covers_a_skewed_mean():
    values = np.random.default_rng(0).exponential(1.0, (60, 1500))
    ends = bootstrap_means(values, draws=1000)
    assert 0.91 <= ((ends.low <= 1.0) & (ends.high >= 1.0)).mean() <= 0.97


def test_sparse_and_dense_columns_have_the_same_intervals():
    columns = np.random.default_rng(0).normal(size=(30, 4)) * (np.random.default_rng(1).random((30, 4)) < 0.5)
    dense, thin = bootstrap_means(columns), bootstrap_means(sparse.csr_array(columns))
    np.testing.assert_allclose(dense.low, thin.low)
    np.testing.assert_allclose(dense.high, thin.high)


def test_interval_is_deterministic_in_the_seed_and_shifts_with_the_data():
    values = np.random.default_rng(4).normal(size=40)
    first = mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) == first
    assert mean_interval(values, seed=2) != first
    moved = mean_interval(values + 10, seed=1)
    np.testing.assert_allclose([moved.mean, moved.low, moved.high], np.array(first[:3]) + 10, rtol=1e-9)


def test_no_interval_below_two_prompts_and_none_is_written_for_nan():
    one = mean_interval([2.0])
    assert (one.mean, one.n) == (2.0, 1)
    assert math.isnan(one.low)
    assert mean_interval([]).as_json() == {"mean": None, "low": None, "high": None, "n": 0}
    assert mean_interval([True, True, True]) == (1.0, 1.0, 1.0, 3)


def test_clustered_mean_counts_every_prompt_once_and_is_wider_than_independent_rows():
    generator = np.random.default_rng(7)
    clusters = np.repeat(np.arange(40), 9)
    values = np.repeat(generator.normal(size=40), 9) + generator.normal(0, 0.1, 360)
    clustered, naive = clustered_mean(values, clusters), mean_interval(values)
    assert clustered.n == 40
    assert clustered.mean == pytest.approx(values.mean())
    assert clustered.high - clustered.low > 2.5 * (naive.high - naive.low)
    assert clustered_mean([1, 0, 1, 1], ["a", "a", "b", "c"]).mean == pytest.approx(2.5 / 3)
