"""`estimate_kl` against closed forms (oracle), its symmetries (property), and what it refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control import estimate_kl
from sarm_control.control.density_ratio import Logistic
from sarm_control.control.density_ratio.jackknife import SampleRows, cross_fit
from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.latents import HumanBuffer
from tests.control.batches import laws_with_kl, scored_from


def sparse(kl: float, width: int = 16, n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    policy, human = laws_with_kl(kl, width, rng)
    return policy.draw(n, rng), human.draw(n, rng)


@pytest.mark.long
@pytest.mark.parametrize("truth", [0.1, 0.5, 1.4, 3.0])
def test_oracle_the_mean_over_draws_is_the_divergence(truth: float) -> None:
    found = [estimate_kl(*sparse(truth, seed=seed)) for seed in range(8)]
    assert np.mean([one.value for one in found]) == pytest.approx(truth, rel=0.1, abs=0.03)
    assert sum(one.low <= truth <= one.high for one in found) >= 7
    assert not any(one.saturated for one in found)


def test_oracle_alike_samples_have_an_interval_around_zero() -> None:
    found = [estimate_kl(*np.random.default_rng(seed).normal(size=(2, 300, 6))) for seed in range(8)]
    assert all(one.low <= 0 <= one.high for one in found)
    assert np.mean([one.accuracy for one in found]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.long
def test_the_interval_shrinks_with_the_rows_and_grows_with_the_level() -> None:
    few, many = (estimate_kl(*sparse(0.5, n=n)) for n in (200, 3200))
    assert many.high - many.low < 0.5 * (few.high - few.low)
    wide = estimate_kl(*sparse(0.5, n=200), level=0.99)
    assert wide.value == few.value
    assert wide.low < few.low < few.high < wide.high


@pytest.mark.parametrize("kl", [9.0, 16.0, 40.0])
def test_samples_too_far_apart_give_a_lower_bound_and_say_so(kl: float) -> None:
    found = estimate_kl(*sparse(kl, n=300))
    assert found.saturated
    assert 0 < found.value <= kl
    assert found.low <= found.value
    assert found.high == np.inf
    assert "at least" in repr(found)


@pytest.mark.long
@pytest.mark.parametrize("rows", [16, 24, 80])
def test_oracle_few_rows_that_are_alike_show_no_divergence(rows: int) -> None:
    """Few rows are told apart by any fit, so many of these are flagged: what is shown at least is nothing."""
    found = [estimate_kl(*sparse(1e-9, n=rows, seed=seed)) for seed in range(100, 108)]
    assert all(one.low <= 0 <= one.high for one in found)
    assert all(one.value == 0 for one in found if one.saturated)
    assert any(one.saturated for one in found) == (rows < 80)


@pytest.mark.long
@pytest.mark.parametrize(("kl", "least"), [(8.0, 5.5), (12.0, 7.0)])
def test_oracle_what_many_rows_show_at_least_is_below_the_truth_and_not_much(kl: float, least: float) -> None:
    shift = np.full(10, np.sqrt(2 * kl / 10))
    draws = [np.random.default_rng(seed).normal(size=(2, 1024, 10)) for seed in range(100, 108)]
    found = [estimate_kl(policy + shift, human) for policy, human in draws]
    assert all(one.saturated for one in found)
    assert max(one.value for one in found) <= kl
    assert np.mean([one.value for one in found]) > least


@pytest.mark.long
@pytest.mark.parametrize(("distinct", "copies"), [(64, 8), (12, 30)])
def test_oracle_copies_of_rows_make_nothing_of_chance(distinct: int, copies: int) -> None:
    """A collapsed policy: each row stands there several times, and both samples are of one law."""
    found = []
    for seed in range(100, 110):
        rows = np.random.default_rng(seed).normal(size=(2, distinct, 4))
        found.append(estimate_kl(*np.repeat(rows, copies, axis=1)))
    assert sum(one.low <= 0 <= one.high for one in found) >= 9
    assert np.mean([one.accuracy for one in found]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.long
def test_rows_that_are_equal_by_chance_are_no_copies() -> None:
    """Most rows of one rare latent are 0: they are answers of their own."""
    rng = np.random.default_rng(100)
    policy, human = ((rng.random((4000, 1)) < rate) * rng.exponential(size=(4000, 1)) for rate in (0.3, 0.1))
    truth = 0.3 * np.log(0.3 / 0.1) + 0.7 * np.log(0.7 / 0.9)
    assert estimate_kl(policy, human).value == pytest.approx(truth, abs=0.03)
    fires = [(rows > 0).astype(float) for rows in (policy, human)]
    assert estimate_kl(fires[0], fires[1]).value == pytest.approx(truth, abs=0.03)


def test_fewer_distinct_rows_than_groups_are_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 40, 3))
    few = np.repeat(rows[0][:5], 8, axis=0)
    message = "has 5 distinct rows among 40, at least 8 are needed"
    for sides, what in (((few, rows[1]), "the policy"), ((rows[1], few), "the human buffer")):
        with pytest.raises(DataError, match=f"{what} {message}"):
            estimate_kl(*sides)


@pytest.mark.long
@given(st.integers(0, 20))
@settings(max_examples=5)
def test_property_the_order_of_rows_changes_nothing(seed: int) -> None:
    policy, human = sparse(0.7, width=4, n=80, seed=seed)
    rng = np.random.default_rng(seed)
    plain, shuffled = estimate_kl(policy, human), estimate_kl(rng.permutation(policy), rng.permutation(human))
    np.testing.assert_allclose(
        [shuffled.value, shuffled.low, shuffled.auc], [plain.value, plain.low, plain.auc], atol=1e-4
    )


@pytest.mark.long
@given(st.integers(0, 20))
@settings(max_examples=5)
def test_property_swapping_the_samples_flips_the_sign_of_every_row(seed: int) -> None:
    policy, human = sparse(0.7, width=4, n=400, seed=seed)
    there, back = estimate_kl(policy, human), estimate_kl(human, policy)
    np.testing.assert_allclose(there.log_ratio, -back.human_log_ratio, rtol=0.05, atol=0.05)
    np.testing.assert_allclose(there.human_log_ratio, -back.log_ratio, rtol=0.05, atol=0.05)


@pytest.mark.long
@given(st.integers(0, 20), st.sampled_from([300, 600, 1200]), st.sampled_from([300, 600, 1200]))
@settings(max_examples=6)
def test_property_unequal_sizes_do_not_bias(seed: int, n_policy: int, n_human: int) -> None:
    policy, human = sparse(1.0, width=6, n=1200, seed=seed)
    whole, part = estimate_kl(policy, human), estimate_kl(policy[:n_policy], human[:n_human])
    assert abs(part.value - whole.value) < part.high - part.low
    assert part.value == pytest.approx(1.0, abs=0.5)


@pytest.mark.long
@given(st.integers(0, 20), st.integers(0, 5), st.sampled_from([0.1, 0.5, 1.4]))
@settings(max_examples=6)
def test_property_a_latent_given_twice_changes_less_than_the_interval(
    seed: int, latent: int, kl: float
) -> None:
    policy, human = sparse(kl, width=6, n=400, seed=seed)
    once = estimate_kl(policy, human)
    twice = estimate_kl(*(np.concatenate([z, z[:, [latent]]], axis=1) for z in (policy, human)))
    assert abs(twice.value - once.value) < 0.5 * (once.high - once.low)


def test_metamorphic_the_units_of_a_latent_change_nothing() -> None:
    policy, human = sparse(0.5, width=6)
    units = np.array([1e-3, 0.1, 1, 10, 100, 1e3])
    plain = estimate_kl(policy, human)
    # rows are dealt to groups by their content, so other rows are left out
    assert abs(estimate_kl(policy * units, human * units).value - plain.value) < 0.25 * (
        plain.high - plain.low
    )


def test_metamorphic_sparse_latents_scores_and_arrays_agree() -> None:
    policy, human = sparse(0.5, width=6, n=200)
    scored = scored_from(policy), scored_from(human)
    from_arrays = estimate_kl(policy, human)
    assert estimate_kl(*scored).value == pytest.approx(from_arrays.value)
    assert estimate_kl(scored[0].latents, scored[1].latents).latents == (0, 1, 2, 3, 4, 5)
    assert estimate_kl(*scored, latents=[3, 1]).value == pytest.approx(
        estimate_kl(policy[:, [3, 1]], human[:, [3, 1]]).value
    )


def test_latents_that_never_or_always_fire_are_not_chosen() -> None:
    policy, human = sparse(0.5, width=4, n=200)
    extra = np.tile([0.0, 1.5], (200, 1))
    scored = [scored_from(np.concatenate([z, extra], axis=1)) for z in (policy, human)]
    assert estimate_kl(*scored).latents == (0, 1, 2, 3)


def test_latents_no_human_fires_are_reported() -> None:
    policy, human = sparse(0.2, width=4, n=200)
    human[:, 3] = 0
    found = estimate_kl(policy, human)
    assert found.coverage == pytest.approx(0.75)
    assert np.isfinite(found.value)


@pytest.mark.long
@pytest.mark.parametrize(("name", "tolerance"), [("mahalanobis", 0.15), ("mlp", 0.35), ("rulsif", 0.7)])
def test_oracle_other_estimators_by_name(name: str, tolerance: float) -> None:
    rng = np.random.default_rng(1)
    policy, human = rng.normal(size=(2, 120, 2)) + np.array([[[0.7]], [[0.0]]])
    found = estimate_kl(policy, human, estimator=name)
    assert found.value == pytest.approx(0.49, abs=tolerance)
    assert found.auc == pytest.approx(0.76, abs=0.12)


def test_bad_input_is_named() -> None:
    policy, human = sparse(0.5, width=4, n=40)
    broken = policy.copy()
    broken[7, 2] = np.nan
    cases: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
        (DataError, "the policy has a latent that is NaN or infinite in row 7", (broken, human), {}),
        (DataError, "the human buffer has a latent that is NaN", (policy, broken), {}),
        (DataError, "the policy has 5 rows, at least 8 are needed", (policy[:5], human), {}),
        (DataError, "the human buffer has 5 rows", (policy, human[:5]), {}),
        (DataError, r"shapes \(40, 4\) and \(40, 3\)", (policy, human[:, :3]), {}),
        (DataError, r"shapes \(40, 3\) and \(40, 4\)", (policy[:, :3], human), {}),
        (DataError, r"shapes \(40,\)", (policy[:, 0], human), {}),
        (DataError, r"shapes \(40, 4, 1\)", (policy[:, :, None], human[:, :, None]), {}),
        (DataError, "constant over all demonstrations", (policy, np.ones((40, 4))), {}),
        (DataError, "one sample is an array", (scored_from(policy), human), {}),
        (DataError, "no latent fires in at least 10", (scored_from(policy * 0),) * 2, {}),
        (ConfigError, "latent 99 does not exist: there are 4 latents", (policy, human), {"latents": [99]}),
        (ConfigError, "latent -1 does not exist", (policy, human), {"latents": [-1]}),
        (ConfigError, "latent 99 does not exist", (scored_from(policy),) * 2, {"latents": [99]}),
        (ConfigError, "latent -1 does not exist", (scored_from(policy),) * 2, {"latents": [-1]}),
        (ConfigError, "no estimator is called 'logit'", (policy, human), {"estimator": "logit"}),
        *(
            (
                ConfigError,
                f"the level of the interval is {level:g}, it must be between 0 and 1",
                (policy, human),
                {"level": level},
            )
            for level in (95, 1.5, 1, 0, -0.5)
        ),
        (
            ModelError,
            "scored with head a, the humans with b",
            (scored_from(policy, fingerprint="a"), scored_from(human, fingerprint="b")),
            {},
        ),
        (
            ModelError,
            "scored with head b, the humans with a",
            (scored_from(policy, fingerprint="b"), scored_from(human, fingerprint="a")),
            {},
        ),
        (
            ModelError,
            "scored with model m1, the humans with m2: the heads are equal",
            tuple(replace(scored_from(z), model_fingerprint=m) for z, m in ((policy, "m1"), (human, "m2"))),
            {},
        ),
        (
            ModelError,
            "autoencoders of 4 and 3 latents",
            (scored_from(policy).latents, scored_from(human[:, :3]).latents),
            {},
        ),
        (
            ModelError,
            "autoencoders of 3 and 4 latents",
            (scored_from(policy[:, :3]).latents, scored_from(human).latents),
            {},
        ),
    ]
    for kind, message, (first, second), options in cases:
        with pytest.raises(kind, match=message):
            estimate_kl(first, second, **options)


def shifted(kl: float, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows a side of two Gaussians in 10 dimensions that differ in their mean."""
    policy, human = np.random.default_rng(seed).normal(size=(2, rows, 10))
    return (policy + np.sqrt(2 * kl / 10)).astype(np.float32), human.astype(np.float32)


@pytest.mark.long
def test_oracle_a_flagged_value_is_the_interval_s_lower_end_at_least_and_not_above_the_truth() -> None:
    found = [estimate_kl(*shifted(8.0, 1024, seed)) for seed in range(100, 108)]
    values, lows = np.array([(one.value, one.low) for one in found]).T
    assert all(one.saturated and one.high == np.inf for one in found)
    assert (values >= lows).all()
    assert values.max() <= 8.0
    assert values.mean() > 6.2
    assert (values == lows).any()


@pytest.mark.long
@pytest.mark.parametrize("seed", [5, 40])
def test_oracle_an_interval_of_what_the_regularisation_made_is_no_bound(seed: int) -> None:
    """Twelve nats apart hardly a row is in doubt: fits without one of the groups agree, on too much."""
    policy, human = shifted(12.0, 1024, seed)
    buffer = HumanBuffer(tuple(range(10)), human, "")
    one, other = (SampleRows(buffer.features(z), z) for z in (policy, human))
    told = cross_fit(one, other, Logistic(), groups=8, seed=0)
    assert told.mean - 2.36 * told.error > 12.0
    assert estimate_kl(policy, human).value <= 12.0
