"""Oracle and calibration tests of the prompt-level means and intervals."""

import math

import numpy as np
import pytest
from scipy import sparse, stats

from sarm_control.discovery.statistics import (
    bootstrap_means,
    clustered_mean,
    mean_interval,
    size_ratio,
)


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


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6, 5e-7, 1e-8])
def test_metamorphic_a_nearly_constant_column_has_the_interval_of_its_deviations(spread):
    deviations = np.random.default_rng(0).exponential(size=200)
    found, alone = mean_interval(1 + spread * deviations), mean_interval(deviations)
    ends = (np.array(found[:3]) - 1) / spread
    np.testing.assert_allclose(ends, alone[:3], rtol=1e-5, atol=1e-5)


def test_oracle_the_ratio_of_two_sizes_has_the_interval_of_the_delta_method():
    generator = np.random.default_rng(1)
    above, below = generator.normal(-4, 2, 900), generator.normal(2, 1, 400)
    found = size_ratio(above, below, seed=2)
    assert found.mean == pytest.approx(abs(above.mean()) / abs(below.mean()))
    relative = [values.std() / np.sqrt(len(values)) / values.mean() for values in (above, below)]
    half = 1.96 * found.mean * np.hypot(*relative)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.07)
    assert found.low < found.mean < found.high


def test_a_ratio_to_what_may_be_nothing_has_no_upper_end():
    generator = np.random.default_rng(3)
    found = size_ratio(generator.normal(1, 0.1, 50), generator.normal(0, 1, 50))
    assert found.high > 20 * found.low
    nothing = size_ratio([1.0, 1.0], [0.0, 0.0])
    assert (nothing.mean, nothing.low, nothing.high) == (math.inf, math.inf, math.inf)
    assert nothing.as_json() == {"mean": None, "low": None, "high": None, "n": 2}
    assert math.isnan(size_ratio([1.0], [1.0, 2.0]).low)
