"""Intervals of shares: oracle against scipy's exact binomial, property of the bounds, calibration."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse, stats

from sarm_control.statistics.intervals import mean_interval
from sarm_control.statistics.shares import change_of_shares, mean_of_shares, share_interval, share_intervals
from sarm_control.statistics.stratified import strata_of

UNIT = st.integers(0, 60).map(lambda n: n / 60)


@pytest.mark.parametrize(("right", "count"), [(0, 2), (2, 4), (3, 3), (19, 20), (485, 600)])
def test_oracle_of_right_and_wrong_it_is_the_exact_binomial_interval(right: int, count: int) -> None:
    found = share_interval(np.arange(count) < right)
    theirs = stats.binomtest(right, count).proportion_ci(0.95, "exact")
    assert found.mean == right / count
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(2, 9), elements=UNIT))
def test_property_the_ends_stay_from_0_to_1_and_hold_the_mean(values: np.ndarray) -> None:
    for found in (share_interval(values), mean_of_shares(values, np.arange(len(values)) % 2)):
        if found.given:
            assert 0 <= found.low <= found.mean + 1e-9
            assert found.mean - 1e-9 <= found.high <= 1


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, st.integers(2, 9), elements=UNIT))
def test_metamorphic_failures_mirror_successes(values: np.ndarray) -> None:
    found, other = share_interval(values), share_interval(1 - values)
    assert (1 - found.high, 1 - found.low) == pytest.approx((other.low, other.high), abs=1e-6, nan_ok=True)


def test_metamorphic_columns_are_like_each_alone_sparse_or_dense() -> None:
    columns = (np.random.default_rng(0).random((40, 5)) < 0.3) * np.array([0, 1, 0.5, 1, 1])
    alone = [share_interval(columns[:, j]) for j in range(5)]
    for given_as in (columns, sparse.csc_array(columns)):
        np.testing.assert_allclose([one[:3] for one in share_intervals(given_as)], [one[:3] for one in alone])


def test_shares_of_several_answers_are_known_better_than_right_and_wrong() -> None:
    rng = np.random.default_rng(1)
    values = rng.binomial(9, rng.beta(8, 2, 200)) / 9
    found, plain = share_interval(values), stats.binomtest(160, 200).proportion_ci(0.95, "exact")
    assert found.high - found.low < 0.7 * (plain.high - plain.low)
    by_t = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((by_t.low, by_t.high), abs=0.01)


def test_oracle_shares_of_several_answers_have_the_ends_of_their_effective_number() -> None:
    """Korn and Graubard's m = (z / t)^2 p (1 - p) / v, and the quantiles of beta distributions at m."""
    rng = np.random.default_rng(4)
    values = rng.binomial(9, rng.beta(8, 2, 30)) / 9
    p, variance = values.mean(), values.var(ddof=1) / 30
    effective = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 29)) ** 2 * p * (1 - p) / variance
    assert effective > 60
    right, wrong = effective * p, effective * (1 - p)
    ends = stats.beta.ppf(0.025, right, wrong + 1), stats.beta.ppf(0.975, right + 1, wrong)
    assert share_interval(values)[1:3] == pytest.approx(ends, rel=1e-9)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [1.0]])
def test_there_is_none_where_nothing_varies_or_one_prompt_is_all(values: list[float]) -> None:
    assert not share_interval(values).given


def test_oracle_a_subset_of_one_unit_leaves_the_mean_and_no_spread() -> None:
    found = strata_of([0.25, 0.75, 1.0], ["a", "a", "b"])
    assert (found.mean, found.skewness, found.freedom, found.apart) == (0.75, 0.0, 1.0, 2)
    assert math.isnan(found.variance)
    # nothing varies: a spread of 0 is known
    assert strata_of([0.5, 0.5, 1.0, 1.0], [0, 0, 1, 1])[:4] == (0.75, 0.0, 0.0, 1.0)


def test_nothing_is_the_mean_of_nothing() -> None:
    assert math.isnan(share_interval([]).mean)


def test_values_a_little_beyond_1_are_taken() -> None:
    found = share_interval([1.01, 0.3, 1.0, 0.6])
    assert found.mean == pytest.approx(0.7275)
    assert 0 <= found.low < found.mean < found.high <= 1
    above = share_interval([1.01, 1.004, 1.0, 1.002])
    assert 0 <= above.low < above.mean == above.high == pytest.approx(1.004)


def test_oracle_one_subset_and_equal_subsets() -> None:
    values = np.array([1, 1, 0, 1, 0, 1.0])
    assert mean_of_shares(values, ["a"] * 6) == share_interval(values)
    assert mean_of_shares(np.ones(6), list("aabbcc"))[:3] == pytest.approx((1, 0.025 ** (1 / 6), 1))
    assert not mean_of_shares(values, list("aaaaab")).given


def test_oracle_unequal_subsets_count_as_many_units_as_vary_alike() -> None:
    """The mean of S means of n_s right or wrong answers varies as that of S^2 / sum 1/n_s answers."""
    found = mean_of_shares(np.ones(6), list("aabbbb"))
    assert found[:3] == pytest.approx((1, 0.025 ** (1 / (4 / (1 / 2 + 1 / 4))), 1))
    assert mean_of_shares(np.zeros(6), list("aabbbb"))[:3] == pytest.approx((0, 0, 1 - found.low))


@pytest.mark.parametrize("most", [1.25, 2.0])
def test_metamorphic_what_lies_beyond_1_is_the_same_share_of_a_wider_reach(most: float) -> None:
    # values that are means themselves, so that their variance counts and not their number
    shares = np.random.default_rng(3).binomial(9, 0.6, 60) / 9
    shares[0], strata = 1.0, np.arange(60) % 7 % 3
    for found, scaled in (
        (share_interval(most * shares), share_interval(shares)),
        (mean_of_shares(most * shares, strata), mean_of_shares(shares, strata)),
    ):
        assert found.mean == pytest.approx(most * scaled.mean)
        assert found.low == pytest.approx(most * scaled.low)
        # beyond 1 only where the mean is
        assert found.high == pytest.approx(min(most * scaled.high, max(1, found.mean)))


def test_metamorphic_what_lies_below_0_mirrors_what_lies_beyond_1() -> None:
    shares, strata = np.array([1.25, 0.5, 0.25, 1.0, 0.75, 0.0]), list("aabbcc")
    for found, other in (
        (share_interval(1 - shares), share_interval(shares)),
        (mean_of_shares(1 - shares, strata), mean_of_shares(shares, strata)),
    ):
        assert (1 - found.high, 1 - found.low) == pytest.approx((other.low, other.high), abs=1e-9)


def test_changes_stay_from_minus_1_to_1() -> None:
    found = change_of_shares([0, 0, 0, 1, 1], [1, 1, 1, 1, 1])
    assert (found.mean, found.high) == (0.6, 1)
    assert not change_of_shares([0, 0], [1, 1]).given
    assert change_of_shares([0, 0, 1, 0.0], [1, 1, 0, 1.0], list("aabb")).low >= -1


@pytest.mark.parametrize("count", [5, 20])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_calibration_it_covers_95_of_100(count: int, share: float) -> None:
    draws = (np.random.default_rng(count).random((count, 4000)) < share).astype(float)
    found = share_intervals(draws)
    assert ((found.low <= share) & (share <= found.high)).mean() >= 0.945
