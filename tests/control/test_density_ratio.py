"""The density ratio against closed forms (oracle), and its symmetries (property)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.control import LogRatio, fit_log_ratio
from sarm_control.control.density_ratio import balanced_accuracy
from sarm_control.latents import HumanBuffer
from tests.control.batches import laws_with_kl


def estimate(policy: np.ndarray, human: np.ndarray, fresh: np.ndarray) -> float:
    buffer = HumanBuffer(tuple(range(human.shape[1])), human, "head-a")
    ratio = fit_log_ratio(buffer.features(policy), buffer.features(human), l2=3.0)
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


def test_oracle_one_binary_feature_has_the_log_odds_ratio() -> None:
    policy = np.repeat([1.0, 0.0], [30, 70])[:, None]
    human = np.repeat([1.0, 0.0], [30, 270])[:, None]
    ratio = fit_log_ratio(policy, human, l2=1e-9)
    np.testing.assert_allclose(ratio.at(np.array([[1.0], [0.0]])), np.log([0.3 / 0.1, 0.7 / 0.9]), atol=1e-6)


def samples(seed: int, n_policy: int, n_human: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.5, 1.0, (n_policy, 4)), rng.normal(0.0, 1.2, (n_human, 4))


@given(st.integers(0, 100), st.integers(5, 60), st.integers(5, 60))
@settings(deadline=None, max_examples=30)
def test_property_swapping_the_samples_flips_the_sign(seed: int, n_policy: int, n_human: int) -> None:
    policy, human = samples(seed, n_policy, n_human)
    there, back = fit_log_ratio(policy, human, l2=1.0), fit_log_ratio(human, policy, l2=1.0)
    np.testing.assert_allclose(there.at(policy), -back.at(policy), atol=1e-8)


@given(st.integers(0, 100), st.integers(5, 60), st.integers(5, 60))
@settings(deadline=None, max_examples=30)
def test_property_the_order_of_rows_changes_nothing(seed: int, n_policy: int, n_human: int) -> None:
    policy, human = samples(seed, n_policy, n_human)
    rng = np.random.default_rng(seed)
    shuffled = fit_log_ratio(rng.permutation(policy), rng.permutation(human), l2=1.0)
    ordered = fit_log_ratio(policy, human, l2=1.0)
    np.testing.assert_allclose(shuffled.at(policy), ordered.at(policy), atol=1e-8)


@given(st.integers(0, 100), st.floats(-3, 3))
@settings(deadline=None, max_examples=30)
def test_property_where_the_fit_begins_changes_nothing(seed: int, begin: float) -> None:
    policy, human = samples(seed, 40, 40)
    start = LogRatio(np.full(4, begin), begin)
    warm = fit_log_ratio(policy, human, l2=1.0, start=start)
    np.testing.assert_allclose(warm.at(policy), fit_log_ratio(policy, human, l2=1.0).at(policy), atol=1e-8)


@pytest.mark.parametrize(("n_policy", "n_human"), [(4000, 4000), (1000, 4000), (4000, 1000)])
def test_property_unequal_sizes_do_not_bias(n_policy: int, n_human: int) -> None:
    rng = np.random.default_rng(11)
    policy, human = laws_with_kl(1.0, 8, rng)
    found = estimate(policy.draw(n_policy, rng), human.draw(n_human, rng), policy.draw(4000, rng))
    assert found == pytest.approx(1.0, abs=0.12)


def test_separable_samples_stay_finite() -> None:
    ratio = fit_log_ratio(np.full((20, 3), 5.0), np.full((30, 3), -5.0), l2=1e-3)
    assert np.isfinite(ratio.weight).all()
    assert ratio.at(np.full((1, 3), 5.0))[0] > 3


def test_oracle_balanced_accuracy_counts_each_sample_half() -> None:
    assert balanced_accuracy(np.array([1.0, -1.0]), np.array([-1.0] * 9 + [1.0])) == pytest.approx(0.7)
