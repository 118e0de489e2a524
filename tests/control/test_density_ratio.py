"""The density ratio against closed forms (oracle), and its symmetries (property)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.control import LogRatio, fit_log_ratio
from sarm_control.control.density_ratio import (
    Logistic,
    Mahalanobis,
    area_under_curve,
    balanced_accuracy,
    mmd_test,
)
from sarm_control.control.density_ratio.kernels import LeastSquares
from sarm_control.control.density_ratio.logistic import mean_variance
from sarm_control.control.density_ratio.mahalanobis import Distance
from sarm_control.control.density_ratio.perceptron import Perceptron
from sarm_control.control.density_ratio.separation import (
    believable_nats,
    calibration_slope,
    effective_sample_size,
    lower_bound,
)
from sarm_control.errors import DataError
from sarm_control.latents import HumanBuffer
from tests.control.batches import laws_with_kl


def estimate(policy: np.ndarray, human: np.ndarray, fresh: np.ndarray) -> float:
    buffer = HumanBuffer(tuple(range(human.shape[1])), human, "head-a")
    ratio = Logistic().fit(buffer.features(policy), buffer.features(human))
    return float(ratio.at(buffer.features(fresh)).mean())


@pytest.mark.parametrize(("truth", "tolerance"), [(0.0, 0.05), (0.23, 0.06), (1.39, 0.14), (4.40, 0.44)])
def test_oracle_sparse_latents_with_a_known_divergence(truth: float, tolerance: float) -> None:
    rng = np.random.default_rng(7)
    policy, human = laws_with_kl(max(truth, 1e-9), 16, rng)
    found = estimate(policy.draw(2048, rng), human.draw(2048, rng), policy.draw(2048, rng))
    assert found == pytest.approx(truth, abs=tolerance)


def test_oracle_gaussian_shift() -> None:
    rng = np.random.default_rng(3)
    shift = np.full(10, 0.4)
    policy, human, fresh = rng.normal(size=(3, 2048, 10))
    ratio = fit_log_ratio(policy + shift, human, l2=3.0)
    assert ratio.at(fresh + shift).mean() == pytest.approx(0.5 * shift @ shift, abs=0.08)
    np.testing.assert_allclose(ratio.weight, shift, atol=0.12)


BINARY_POLICY = np.repeat([1.0, 0.0], [30, 70])[:, None]
BINARY_HUMAN = np.repeat([1.0, 0.0], [30, 270])[:, None]
ONE_AND_ZERO = np.array([[1.0], [0.0]])


def test_oracle_one_binary_feature_has_the_log_odds_ratio() -> None:
    ratio = fit_log_ratio(BINARY_POLICY, BINARY_HUMAN, l2=1e-9)
    np.testing.assert_allclose(ratio.at(ONE_AND_ZERO), np.log([0.3 / 0.1, 0.7 / 0.9]), atol=1e-6)


def test_oracle_the_jeffreys_term_adds_half_a_row_to_each_cell() -> None:
    """Firth's estimate for a two-by-two table is known in closed form."""
    ratio = fit_log_ratio(BINARY_POLICY, BINARY_HUMAN, l2=1e-9, jeffreys=True)
    expected = np.log([30.5 / 30.5, 70.5 / 270.5]) - np.log(100 / 300)
    np.testing.assert_allclose(ratio.at(ONE_AND_ZERO), expected, atol=1e-5)


def test_oracle_the_jeffreys_term_removes_the_bias_of_many_features() -> None:
    """60 features on 300 rows a side: maximum likelihood overstates the divergence by a fifth."""
    rng = np.random.default_rng(0)
    shift = np.full(60, np.sqrt(2 * 1.4 / 60))
    plain: list[float] = []
    corrected: list[float] = []
    for _ in range(12):
        policy, human, fresh = rng.normal(size=(3, 300, 60))
        for found, jeffreys in ((plain, False), (corrected, True)):
            ratio = fit_log_ratio(policy + shift, human, l2=1e-6, jeffreys=jeffreys, tolerance=1e-6)
            found.append(float(ratio.at(fresh + shift).mean()))
    assert np.mean(plain) > 1.4 * 1.15
    assert np.mean(corrected) == pytest.approx(1.4, rel=0.06)


def test_oracle_counts_are_repeated_rows() -> None:
    rng = np.random.default_rng(4)
    policy, human = rng.normal(0.5, 1, (40, 3)), rng.normal(size=(60, 3))
    counts = rng.integers(1, 4, 40)
    counted = fit_log_ratio(policy, human, l2=1.0, counts=counts.astype(float))
    repeated = fit_log_ratio(np.repeat(policy, counts, axis=0), human, l2=1.0)
    np.testing.assert_allclose(counted.weight, repeated.weight, atol=1e-9)


def test_oracle_the_variance_of_the_mean_is_that_of_the_log_odds() -> None:
    ratio = fit_log_ratio(BINARY_POLICY, BINARY_HUMAN, l2=1e-9)
    expected = 0.3**2 * (1 / 30 + 1 / 30) + 0.7**2 * (1 / 70 + 1 / 270)
    assert mean_variance(ratio, BINARY_POLICY, BINARY_HUMAN, l2=1e-9) == pytest.approx(expected, rel=1e-4)


def samples(seed: int, n_policy: int, n_human: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.5, 1.0, (n_policy, 4)), rng.normal(0.0, 1.2, (n_human, 4))


@given(st.integers(0, 100), st.integers(5, 60), st.integers(5, 60), st.booleans())
@settings(max_examples=30)
def test_property_swapping_the_samples_flips_the_sign(
    seed: int, n_policy: int, n_human: int, jeffreys: bool
) -> None:
    policy, human = samples(seed, n_policy, n_human)
    there = fit_log_ratio(policy, human, l2=1.0, jeffreys=jeffreys)
    back = fit_log_ratio(human, policy, l2=1.0, jeffreys=jeffreys)
    np.testing.assert_allclose(there.at(policy), -back.at(policy), atol=1e-8)


@given(st.integers(0, 100), st.integers(5, 60), st.integers(5, 60), st.booleans())
@settings(max_examples=30)
def test_property_the_order_of_rows_changes_nothing(
    seed: int, n_policy: int, n_human: int, jeffreys: bool
) -> None:
    policy, human = samples(seed, n_policy, n_human)
    rng = np.random.default_rng(seed)
    shuffled = fit_log_ratio(rng.permutation(policy), rng.permutation(human), l2=1.0, jeffreys=jeffreys)
    ordered = fit_log_ratio(policy, human, l2=1.0, jeffreys=jeffreys)
    np.testing.assert_allclose(shuffled.at(policy), ordered.at(policy), atol=1e-8)


@given(st.integers(0, 100), st.floats(-3, 3), st.booleans())
@settings(max_examples=30)
def test_property_where_the_fit_begins_changes_nothing(seed: int, begin: float, jeffreys: bool) -> None:
    policy, human = samples(seed, 40, 40)
    start = LogRatio(np.full(4, begin), begin)
    warm = fit_log_ratio(policy, human, l2=1.0, jeffreys=jeffreys, start=start)
    cold = fit_log_ratio(policy, human, l2=1.0, jeffreys=jeffreys)
    np.testing.assert_allclose(warm.at(policy), cold.at(policy), atol=1e-4 if jeffreys else 1e-8)


@given(st.integers(0, 100))
@settings(max_examples=20)
def test_property_the_units_of_a_feature_change_nothing(seed: int) -> None:
    """The Jeffreys term, unlike a ridge, does not mind how features are scaled and mixed."""
    policy, human = samples(seed, 60, 60)
    mix = np.random.default_rng(seed).normal(size=(4, 4)) + 3 * np.eye(4)
    plain = fit_log_ratio(policy, human, l2=1e-9, jeffreys=True)
    mixed = fit_log_ratio(policy @ mix, human @ mix, l2=1e-9, jeffreys=True)
    np.testing.assert_allclose(mixed.at(policy @ mix), plain.at(policy), atol=1e-3)


@given(st.integers(0, 100), st.floats(0.15, 1.0), st.booleans())
@settings(max_examples=8)
def test_property_unequal_sizes_do_not_bias(seed: int, share: float, few_policy: bool) -> None:
    rng = np.random.default_rng(seed)
    policy, human = laws_with_kl(1.0, 8, rng)
    n_policy, n_human = (int(4000 * share), 4000) if few_policy else (4000, int(4000 * share))
    found = estimate(policy.draw(n_policy, rng), human.draw(n_human, rng), policy.draw(4000, rng))
    assert found == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("jeffreys", [False, True])
def test_separable_samples_stay_finite(jeffreys: bool) -> None:
    ratio = fit_log_ratio(np.full((20, 3), 5.0), np.full((30, 3), -5.0), l2=1e-3, jeffreys=jeffreys)
    assert np.isfinite(ratio.weight).all()
    assert ratio.at(np.full((1, 3), 5.0))[0] > 3


def test_more_features_than_rows_stay_finite() -> None:
    rng = np.random.default_rng(0)
    ratio = Logistic().fit(rng.normal(size=(10, 50)) + 1, rng.normal(size=(12, 50)))
    assert np.isfinite(ratio.weight).all()
    assert np.abs(ratio.at(rng.normal(size=(100, 50)))).max() < 30


def gaussian_shift(kl: float, width: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    policy, human = rng.normal(size=(2, n, width))
    return policy + np.sqrt(2 * kl / width), human


@pytest.mark.parametrize("estimator", [Mahalanobis(), Perceptron()])
def test_oracle_other_estimators_find_a_gaussian_shift(estimator: Logistic) -> None:
    """A plain shift suits them; the benchmark shows what 64 sparse latents do to them."""
    policy, human = gaussian_shift(0.5, 1, 300)
    fresh, _ = gaussian_shift(0.5, 1, 1500, seed=1)
    assert estimator.fit(policy, human).at(fresh).mean() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize(("kl", "rows"), [(0.0, 32), (0.0, 1), (0.5, 32)])
def test_oracle_the_distance_of_a_small_batch_has_no_bias(kl: float, rows: int) -> None:
    """Uncorrected, 32 rows of 128 features lie 2 nats and more from the humans by chance alone."""
    rng = np.random.default_rng(100)
    shift = np.full(128, np.sqrt(2 * kl / 128))
    found = []
    for _ in range(12):
        distance = Distance.from_humans(rng.normal(size=(1024, 128)))
        found += [distance.of(rng.normal(size=(rows, 128)) + shift) for _ in range(60 // rows + 6)]
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(kl, abs=4 * error)
    assert error < 0.6 if rows == 1 else error < 0.06


@pytest.mark.parametrize(
    ("rows", "least", "most"), [(10, 0.6, 1.1), (16, 0.5, 1), (23, 0.55, 1), (30, 0.7, 1), (40, 0.8, 1.05)]
)
def test_oracle_the_distance_is_right_on_average_for_any_number_of_human_rows(
    rows: int, least: float, most: float
) -> None:
    """20 features: below 23 rows the Gaussian correction has no value; at 23 it is 30 times too small."""
    rng = np.random.default_rng(7)
    mixing = rng.normal(size=(20, 20))
    found = []
    for _ in range(400):
        direction = rng.normal(size=20)
        direction *= np.sqrt(2.0) / np.linalg.norm(direction)  # 1 nat
        human, policy = (rng.normal(size=(n, 20)) for n in (rows, 400))
        found.append(Distance.from_humans(human @ mixing).of((policy + direction) @ mixing))
    assert least < np.mean(found) < most


@pytest.mark.parametrize("humans", [24, 30, 39])
def test_oracle_the_distance_of_few_sparse_rows_is_that_of_many(humans: int) -> None:
    """Ten latents that fire in 40 % and 60 % of the answers, as `[1(z > 0), z]`."""
    rng = np.random.default_rng(8)

    def drawn(n: int, rate: float) -> np.ndarray:
        z = np.where(rng.random((n, 10)) < rate, rng.exponential(size=(n, 10)), 0.0)
        return np.concatenate([z > 0, z], axis=1).astype(float)

    many, moved = drawn(100_000, 0.4), drawn(100_000, 0.6)
    shift = moved.mean(axis=0) - many.mean(axis=0)
    truth = 0.5 * shift @ np.linalg.solve(np.cov(many, rowvar=False), shift)
    found = [Distance.from_humans(drawn(humans, 0.4)).of(drawn(400, 0.6)) for _ in range(400)]
    assert np.mean(found) == pytest.approx(truth, rel=0.3)


def test_the_distance_needs_three_human_rows() -> None:
    with pytest.raises(DataError, match="a covariance needs at least 3 rows, there are 2"):
        Distance.from_humans(np.eye(2))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_oracle_least_squares_follow_the_ratio_where_it_is_not_small(alpha: float) -> None:
    policy, human = gaussian_shift(0.5, 1, 200)
    at = np.linspace(0, 2, 9)[:, None]
    told = LeastSquares(alpha).fit(policy, human).at(at)
    assert np.corrcoef(told, at[:, 0] - 0.5)[0, 1] > 0.7


def test_other_estimators_leave_global_generators_alone() -> None:
    import torch

    policy, human = gaussian_shift(0.5, 2, 50)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = np.random.random(), torch.rand(())
    np.random.seed(5)
    torch.manual_seed(5)
    first = [LeastSquares().fit(policy, human).at(human), Perceptron().fit(policy, human).at(human)]
    assert (np.random.random(), torch.rand(())) == expected
    again = [LeastSquares().fit(policy, human).at(human), Perceptron().fit(policy, human).at(human)]
    np.testing.assert_array_equal(first, again)


def test_oracle_balanced_accuracy_counts_each_sample_half() -> None:
    assert balanced_accuracy(np.array([1.0, -1.0]), np.array([-1.0] * 9 + [1.0])) == pytest.approx(0.7)


def test_oracle_the_area_counts_pairs() -> None:
    policy, human = np.array([3.0, 1.0, 0.0]), np.array([0.0, 2.0])
    wins = [(p > h) + 0.5 * (p == h) for p in policy for h in human]
    assert area_under_curve(policy, human) == pytest.approx(np.mean(wins))


def test_oracle_equal_ratios_keep_every_row_and_one_large_ratio_keeps_one() -> None:
    assert effective_sample_size(np.zeros(50)) == pytest.approx(50)
    assert effective_sample_size(np.array([30.0, *np.zeros(49)])) == pytest.approx(1.0)


def test_believed_divergences_grow_with_the_rows_up_to_seven_nats() -> None:
    assert believable_nats(1024, 4096) == pytest.approx(np.log(1024) - 1)
    assert believable_nats(10**6, 10**6) == 7.0


def test_oracle_overstated_log_ratios_are_shrunk_back() -> None:
    policy, human = gaussian_shift(1.0, 1, 4000)
    exact = LogRatio(np.array([np.sqrt(2.0)]), -1.0)
    assert calibration_slope(3 * exact.at(policy), 3 * exact.at(human)) == pytest.approx(1 / 3, abs=0.03)
    assert calibration_slope(exact.at(policy), exact.at(human)) == pytest.approx(1, abs=0.08)
    noise = np.random.default_rng(0).normal(size=(2, 500))
    assert calibration_slope(noise[0], noise[1]) == pytest.approx(0, abs=0.1)


def test_the_discrepancy_sees_a_difference_and_none_where_there_is_none() -> None:
    policy, human = gaussian_shift(0.25, 8, 300)
    assert mmd_test(policy, human).p == pytest.approx(1 / 1000)
    p_values = [mmd_test(*gaussian_shift(0.0, 4, 60, seed=seed)).p for seed in range(40)]
    assert np.mean(np.array(p_values) < 0.25) == pytest.approx(0.25, abs=0.2)
    assert min(p_values) > 0.001


def test_oracle_the_discrepancy_of_two_points_a_side() -> None:
    policy, human = np.array([[0.0], [0.1]]), np.array([[2.0], [2.1]])
    found = mmd_test(policy, human)
    assert found.bandwidth == pytest.approx(1.95)

    def kernel(a: float, b: float) -> float:
        return float(np.exp(-0.5 * (a - b) ** 2 / found.bandwidth**2))

    cross = np.mean([kernel(a, b) for a in (0.0, 0.1) for b in (2.0, 2.1)])
    assert found.statistic == pytest.approx(2 * kernel(0, 0.1) - 2 * cross)


def test_oracle_the_discrepancy_of_unequal_samples_pair_by_pair() -> None:
    rng = np.random.default_rng(6)
    policy, human = rng.normal(0.5, 1, (3, 2)), rng.normal(size=(5, 2))
    rows = np.concatenate([policy, human])
    apart = [np.linalg.norm(rows[i] - rows[j]) for i in range(8) for j in range(i)]
    found = mmd_test(policy, human)
    assert found.bandwidth == pytest.approx(np.median(apart))

    def mean(one: list[np.ndarray], other: list[np.ndarray]) -> float:
        """Over pairs of different rows."""
        kernels = [
            np.exp(-0.5 * np.sum((a - b) ** 2) / found.bandwidth**2) for a in one for b in other if a is not b
        ]
        return float(np.mean(kernels))

    one, other = list(policy), list(human)
    assert found.statistic == pytest.approx(mean(one, one) + mean(other, other) - 2 * mean(one, other))
    assert mmd_test(policy, human, seed=0) == found
    assert {mmd_test(policy, human, seed=seed).p for seed in (1, -1)} != {found.p}


def test_rows_that_are_all_equal_show_no_discrepancy() -> None:
    assert mmd_test(np.ones((4, 2)), np.ones((5, 2))) == pytest.approx((0.0, 1.0, 1.0))


def test_samples_that_the_discrepancy_cannot_compare_are_refused() -> None:
    good, broken = np.random.default_rng(0).normal(size=(2, 20, 3))
    broken[4, 1] = np.nan
    cases = [
        (broken, good, "the policy has a latent that is NaN or infinite in row 4"),
        (good, broken, "the human sample has a latent that is NaN or infinite in row 4"),
        (good[:1], good, "the policy has 1 rows, at least 2 are needed"),
        (good, good[:0], "the human sample has 0 rows, at least 2 are needed"),
        (good[:, :2], good, r"shapes \(20, 2\) and \(20, 3\)"),
        (good[0], good, r"shapes \(3,\) and \(20, 3\)"),
    ]
    for policy, human, message in cases:
        with pytest.raises(DataError, match=message):
            mmd_test(policy, human)


def told_at(kl: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The true log ratios of 1,024 rows a side of two Gaussians that differ in their mean."""
    noise = np.random.default_rng(seed).normal(size=(2, 1024)) * np.sqrt(2 * kl)
    return noise[0] + kl, noise[1] - kl


@pytest.mark.parametrize("kl", [8.0, 12.0])
def test_oracle_the_lower_bound_is_below_the_truth_and_near_or_above_the_cut_mean(kl: float) -> None:
    told = [told_at(kl, seed) for seed in range(100, 160)]
    bounds = np.array([lower_bound(*one) for one in told])
    cut = np.array([np.minimum(policy, np.log(1024)).mean() for policy, _ in told])
    assert bounds.max() <= kl
    assert (bounds >= 0.9 * cut).all()
    assert bounds.mean() - cut.mean() > 0.1 * (kl - cut.mean())


@pytest.mark.parametrize("rows", [16, 40, 80])
def test_oracle_the_lower_bound_of_few_rows_that_are_alike_is_zero(rows: int) -> None:
    """Log ratios of rows that no fit has seen, as a fit on few rows gives them: large, and saying nothing."""
    rng = np.random.default_rng([rows, 100])
    bounds = [lower_bound(*rng.normal(0, 3, (2, rows))) for _ in range(200)]
    assert min(bounds) == 0.0
    assert np.mean(np.array(bounds) > 0) <= 0.02


def test_metamorphic_the_lower_bound_mends_log_ratios_that_were_shrunk() -> None:
    policy, human = told_at(12.0, 0)
    shrunk = lower_bound(0.3 * policy, 0.3 * human)
    assert shrunk == pytest.approx(lower_bound(policy, human), rel=1e-6)
    assert shrunk > 1.5 * (0.3 * policy).mean()


def test_a_lower_bound_of_log_ratios_that_say_nothing_is_zero() -> None:
    assert lower_bound(np.zeros(20), np.zeros(30)) == 0.0
    assert lower_bound(np.array([9.0]), np.full(30, -9.0)) == 0.0
