"""Oracle, metamorphic and calibration tests of the prompt-level means and intervals."""

import inspect
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import sparse, stats

from sarm_control.statistics.formatting import missing, with_ends
from sarm_control.statistics.intervals import clustered_mean, leaves_out_zero, mean_interval, mean_intervals
from sarm_control.statistics.ratios import ratio_interval, size_ratio

Floats = NDArray[np.float64]

# Its name before scipy 1.15 and since.
GENERATOR = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
COLUMNS = {
    "one-sided": lambda rng, shape: (rng.random(shape) < 0.2) * rng.exponential(size=shape),
    "two-sided": lambda rng, shape: (rng.random(shape) < 0.2) * rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "changes": lambda rng, shape: rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.85, 0.1], size=shape),
    "Gaussian": lambda rng, shape: rng.normal(3, 2, shape),
}


def by_formula(values: Floats) -> tuple[float, float]:
    """The module's formula written out for one column."""
    count, mean = len(values), values.mean()
    t, z = stats.t.ppf(0.975, count - 1), stats.norm.ppf(0.975)
    skewness = stats.skew(values) / np.sqrt(count)
    half = t + z * (z**4 + 2 * z**2 - 3) / 36 * skewness**2
    tail = skewness * (1 / 6 + t**2 / 3)
    error = values.std(ddof=1) / np.sqrt(count)
    return mean - (half - min(tail, 0)) * error, mean + (half + max(tail, 0)) * error


@pytest.mark.parametrize("law", COLUMNS)
def test_oracle_the_interval_is_the_formula_with_scipys_moments_and_quantiles(law: str) -> None:
    values = COLUMNS[law](np.random.default_rng(0), 80)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx(by_formula(values), rel=1e-9)


def test_oracle_a_symmetric_column_has_students_interval() -> None:
    half = np.random.default_rng(1).normal(size=30)
    values = np.concatenate([half, -half]) + 5
    found = mean_interval(values)
    theirs = stats.t.interval(0.95, 59, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("law", ["one-sided", "two-sided", "changes"])
@pytest.mark.parametrize("count", [50, 200])
def test_calibration_sparse_means_are_covered_where_an_interval_is_given(law: str, count: int) -> None:
    """BCa covers .90, .87 and .93 or less at n = 50, where Student's t has the other errors."""
    truth = {"one-sided": 0.2, "two-sided": 0.0, "changes": 0.05}[law]
    found = mean_intervals(COLUMNS[law](np.random.default_rng(2), (count, 4000)))
    told = ~np.isnan(found.low)
    assert told.mean() > 0.85
    assert ((found.low <= truth) & (truth <= found.high))[told].mean() >= 0.93
    assert bca_coverage(COLUMNS[law], truth, 50) < 0.93


def bca_coverage(law: Callable[..., Any], truth: float, count: int) -> float:
    """What scipy's BCa bootstrap covers."""
    columns = law(np.random.default_rng(3), (count, 600))
    columns = columns[:, (columns != columns[0]).any(axis=0)]
    how: dict[str, Any] = {GENERATOR: np.random.default_rng(4), "n_resamples": 600, "axis": 0}
    found = stats.bootstrap((columns,), np.mean, method="BCa", **how)
    low, high = found.confidence_interval
    return float(((low <= truth) & (truth <= high)).mean())


def test_sparse_and_dense_columns_have_the_same_intervals() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([0.1, 0.4, 0.5, 0.6, 1.0])
    columns = rng.normal(1, 2, size=(40, 5)) * (rng.random((40, 5)) < rates)
    dense, thin = mean_intervals(columns), mean_intervals(sparse.csr_array(columns))
    for name in ("mean", "low", "high", "apart", "enough"):
        np.testing.assert_allclose(getattr(dense, name), getattr(thin, name))
    alone = [mean_interval(column) for column in columns.T]
    np.testing.assert_allclose(dense.low, [one.low for one in alone])
    assert [one.apart for one in dense] == [one.apart for one in alone]


@settings(max_examples=60, deadline=None)
@given(
    values=arrays(np.float64, st.integers(2, 40), elements=st.integers(-4, 4).map(float)),
    scale=st.sampled_from([-8.0, -0.5, 0.25, 4.0]),
    offset=st.sampled_from([-16.0, 0.0, 3.0]),
    order=st.randoms(use_true_random=False),
)
def test_property_intervals_follow_scale_and_shift_and_not_the_order(
    values: Floats, scale: float, offset: float, order: random.Random
) -> None:
    plain = mean_interval(values)
    shuffled = list(values)
    order.shuffle(shuffled)
    moved = mean_interval(scale * np.array(shuffled) + offset)
    ends = [plain.low, plain.high] if scale > 0 else [plain.high, plain.low]
    expected = [scale * plain.mean + offset, *(scale * end + offset for end in ends)]
    np.testing.assert_allclose([moved.mean, moved.low, moved.high], expected, rtol=1e-7, atol=1e-9)
    assert (moved.apart, moved.enough) == (plain.apart, plain.enough)
    assert not plain.given or plain.low <= plain.mean <= plain.high


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6, 5e-7, 1e-8])
def test_metamorphic_a_nearly_constant_column_has_the_interval_of_its_deviations(spread: float) -> None:
    deviations = np.random.default_rng(0).exponential(size=200)
    found, alone = mean_interval(1 + spread * deviations), mean_interval(deviations)
    ends = (np.array(found[:3]) - 1) / spread
    np.testing.assert_allclose(ends, alone[:3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([2.0], "n = 1: no interval"),
        ([1.0] * 50, "no interval: all 50 prompts are alike"),
        ([0.1 + 0.2, 0.3] * 25, "no interval: all 50 prompts are alike"),
        ([0.0] * 49 + [3.0], "too few prompts: 1 of 50 differ, about 500 would do"),
        ([0.0] * 46 + [1.0, 2.0, 1.0, 9.0], "too few prompts: 4 of 50 differ, about 130 would do"),
        (
            [*np.linspace(0, 1, 49), 200.0],
            "too few prompts: one of 50 outweighs all others, about 150 would do",
        ),
    ],
)
def test_what_too_few_prompts_differ_for_has_no_interval_and_says_how_many_would_do(
    values: list[float], said: str
) -> None:
    found = mean_interval(values)
    assert (math.isnan(found.low), math.isnan(found.high)) == (True, True)
    assert missing(found) == said
    assert with_ends(found, ".1f") == f"{found.mean:.1f} ({said})"
    assert found.as_json() == {"mean": found.mean, "low": None, "high": None, "n": len(values)}


def test_calibration_as_many_prompts_as_were_named_do_in_nine_of_ten_samples() -> None:
    rng = np.random.default_rng(5)

    def columns(count: int) -> Floats:
        found: Floats = COLUMNS["one-sided"](rng, (count, 500)) * (rng.random((count, 500)) < 0.25)
        return found

    short = [one for one in mean_intervals(columns(60)) if one.enough is not None]
    assert len(short) > 150
    usual = int(np.median([one.enough for one in short]))
    assert np.mean([one.given for one in mean_intervals(columns(usual))]) > 0.9


def test_no_mean_of_nothing() -> None:
    assert mean_interval([]).as_json() == {"mean": None, "low": None, "high": None, "n": 0}
    assert missing(mean_interval([])) == "n = 0: no interval"
    assert len(mean_intervals(np.zeros((5, 0)))) == 0


def test_clustered_mean_counts_every_prompt_once_and_is_wider_than_independent_rows() -> None:
    generator = np.random.default_rng(7)
    clusters = np.repeat(np.arange(40), 9)
    values = np.repeat(generator.normal(size=40), 9) + generator.normal(0, 0.1, 360)
    clustered, naive = clustered_mean(values, clusters), mean_interval(values)
    assert clustered.n == 40
    assert clustered.mean == pytest.approx(values.mean())
    assert clustered.high - clustered.low > 2.5 * (naive.high - naive.low)
    assert clustered_mean([1, 0, 1, 1], ["a", "a", "b", "c"]).mean == pytest.approx(2.5 / 3)


def test_oracle_the_ratio_of_two_sizes_has_the_interval_of_the_delta_method() -> None:
    generator = np.random.default_rng(1)
    above, below = generator.normal(-4, 2, 900), generator.normal(2, 1, 400)
    found = size_ratio(above, below)
    assert found.mean == pytest.approx(abs(above.mean()) / abs(below.mean()))
    relative = [values.std() / np.sqrt(len(values)) / values.mean() for values in (above, below)]
    half = 1.96 * found.mean * np.hypot(*relative)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.02)
    assert found.low < found.mean < found.high


def test_oracle_the_ends_of_a_ratio_solve_the_equation_of_donner_and_zou() -> None:
    """At an end the interval of `above - ratio below` ends at 0 (their MOVER)."""
    generator = np.random.default_rng(8)
    numerator, denominator = generator.exponential(3, 60), generator.normal(-2, 1.5, 40)
    found = size_ratio(numerator, denominator)
    above, below = mean_interval(numerator), mean_interval(-denominator)
    sides = (
        (found.low, above.mean - above.low, below.high - below.mean),
        (found.high, above.high - above.mean, below.mean - below.low),
    )
    for end, of_above, of_below in sides:
        assert (above.mean - end * below.mean) ** 2 == pytest.approx(of_above**2 + (end * of_below) ** 2)
    assert found.low < found.mean < found.high


def test_oracle_below_a_long_tail_the_smallest_ratio_is_that_of_the_ends() -> None:
    # the upper end is more than twice the mean, so that its mirror image is below 0
    denominator = stats.expon.ppf((np.arange(8) + 0.5) / 8)
    numerator = np.random.default_rng(2).normal(5, 1, 30)
    above, below = mean_interval(numerator), mean_interval(denominator)
    assert below.low > 0
    assert below.high > 2 * below.mean
    found = size_ratio(numerator, denominator)
    assert found.low == pytest.approx(above.low / below.high)
    of_above, of_below = above.high - above.mean, below.mean - below.low
    missed = above.mean - found.high * below.mean
    assert missed**2 == pytest.approx(of_above**2 + (found.high * of_below) ** 2)


def test_a_ratio_to_what_may_be_nothing_has_no_upper_end() -> None:
    generator = np.random.default_rng(3)
    above, below = generator.normal(1, 0.1, 50), generator.normal(0, 1, 50)
    found = size_ratio(above, below)
    assert found.high == math.inf
    assert found.low <= above.mean() / np.abs(mean_interval(below)[1:3]).max()
    nothing = size_ratio(above, np.zeros(50))
    assert (nothing.mean, math.isnan(nothing.low)) == (math.inf, True)
    assert missing(nothing) == "no interval: all 50 prompts are alike"
    assert math.isnan(size_ratio([1.0], [1.0, 2.0]).low)


def test_oracle_the_ratio_over_the_same_prompts_has_the_interval_of_the_delta_method() -> None:
    generator = np.random.default_rng(4)
    below = generator.uniform(1, 3, 500)
    above = 0.4 * below + generator.normal(0, 0.3, 500)
    found, ratio = ratio_interval(above, below), above.sum() / below.sum()
    error = np.std(above - ratio * below, ddof=1) / below.mean() / np.sqrt(500)
    assert found.mean == pytest.approx(ratio)
    assert (found.high - found.low) / 2 == pytest.approx(1.965 * error, rel=0.03)
    turned = ratio_interval(above, -below)
    np.testing.assert_allclose([turned.low, turned.high], [-found.high, -found.low])


def test_a_ratio_that_few_prompts_pay_for_has_no_interval_although_its_denominator_varies() -> None:
    below = np.random.default_rng(6).exponential(size=50)
    above = np.where(np.arange(50) < 3, below, 0)
    assert missing(ratio_interval(above, below)) == "too few prompts: 3 of 50 differ, about 170 would do"
    assert math.isnan(ratio_interval(np.zeros(50), below).low)
    even = np.random.default_rng(7).uniform(1.9, 2.1, 50)
    paid = [ratio_interval(np.where(np.arange(50) < some, even, 0), even).given for some in (4, 5)]
    assert paid == [False, True]


@pytest.mark.parametrize(
    ("mean", "low", "high", "outside"),
    [
        (0.02, 0.01, 0.03, True),
        (-0.02, -0.03, -0.01, True),
        (0.02, -0.01, 0.05, False),
        (-0.02, -0.05, 0.01, False),
        # an end at 0 does not leave 0 out
        (0.02, 0.0, 0.04, False),
        (-0.02, -0.04, 0.0, False),
        (0.02, None, 0.03, False),
        (0.02, 0.01, None, False),
    ],
)
def test_an_interval_leaves_out_zero_where_both_ends_are_on_the_side_of_the_mean(
    mean: float, low: float | None, high: float | None, outside: bool
) -> None:
    assert leaves_out_zero(mean, low, high) is outside
