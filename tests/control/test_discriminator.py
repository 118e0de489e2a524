"""The metrics of the human-KL term one by one, oracle: against formulas and the fit made again by hand."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sarm_control.control import Controls, HumanKL, fit_log_ratio
from sarm_control.control.density_ratio.logistic import Logistic, mean_variance
from sarm_control.control.density_ratio.separation import calibration_slope, excess, sure_bound
from sarm_control.control.discriminator import Discriminator, Means, present_value
from sarm_control.latents import HumanBuffer
from tests.control.batches import scored_from
from tests.present import present


def sparse(rows: int, width: int, rate: float, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng([rows, seed])
    return ((rng.random((rows, width)) < rate) * rng.exponential(size=(rows, width))).astype(np.float32)


def started(human: NDArray[np.float32], seed: int = 0, **words: Any) -> Discriminator:
    width = tuple(range(human.shape[1]))
    state = Controls(human_kl=HumanKL(1.0, **words)).start(HumanBuffer(width, human, "head-a"), seed)
    return present(state.discriminator)


HUMAN = sparse(60, 4, 0.5, 0) * np.array([1, 1, 0, 1], np.float32)


@pytest.mark.parametrize(
    ("batch", "coverage", "unseen"),
    [
        # no human fires latent 2
        ([[1, 0, 0, 0], [0, 2, 0, 0]], 1.0, 0.0),
        ([[1, 0, 0, 0], [0, 2, 3, 0]], 2 / 3, 1 / 2),
        ([[0, 0, 3, 0], [0, 0, 1, 0]], 0.0, 1.0),
        # below 0 is not firing, as nothing is
        ([[-0.5, 0, -0.5, 0], [0, 2, 0, 0]], 1.0, 0.0),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], 1.0, 0.0),
        ([[-0.5, 0, -2, 0], [0, 0, 0, 0]], 1.0, 0.0),
    ],
)
def test_oracle_coverage_is_the_share_of_fired_latents_that_humans_fire(
    batch: list[list[float]], coverage: float, unseen: float
) -> None:
    info = started(HUMAN).score(scored_from(np.array(batch))).info
    assert info["human_kl/coverage"] == pytest.approx(coverage)
    assert info["human_kl/unseen_share"] == pytest.approx(unseen)


@pytest.mark.parametrize(("rows", "held"), [(8, 1), (19, 1), (20, 2), (99, 9), (2559, 255), (3000, 256)])
def test_a_tenth_of_the_humans_is_held_out(rows: int, held: int) -> None:
    info = started(sparse(rows, 2, 0.5, 0)).score(scored_from(np.ones((2, 2)))).info
    # all weights are 1 before the first fit
    assert info["human_kl/effective_sample_size"] == held
    unknown = {"kl": 0.0, "kl_low": 0.0, "kl_high": 0.0, "accuracy": 0.5, "auc": 0.5, "saturated": 0.0}
    unknown |= {"slope": 1.0, "logit_min": 0.0, "logit_max": 0.0, "clipped_share": 0.0, "fitted": 0.0}
    assert {name: info[f"human_kl/{name}"] for name in unknown} == unknown
    assert math.isnan(info["human_kl/model_fits"])


def test_oracle_the_parameters_are_those_of_a_fit_with_halving_weights() -> None:
    human = sparse(400, 3, 0.5, 0)
    batches = [sparse(40, 3, rate, 7) for rate in (0.5, 0.6, 0.7, 0.8)]
    found = started(human, half_life=2, replay=3, l2=0.1)
    for batch in batches:
        found.learn(scored_from(batch))
    features = found.human.features
    counts = np.repeat([0.5, math.sqrt(0.5), 1.0], 40)
    policy = features(np.concatenate(batches[1:]))
    words: dict[str, Any] = {"l2": 0.1, "counts": counts}
    ratio = fit_log_ratio(policy, found._fitted_on, jeffreys=True, **words)
    parameters = found.state_dict()["human_kl.parameters"]
    np.testing.assert_allclose(parameters[:7], [*ratio.weight, ratio.intercept], atol=0.03)
    variance = mean_variance(ratio, policy, found._fitted_on, **words)
    accuracy = 0.5 * (ratio.at(policy) > 0).mean() + 0.5 * (ratio.at(found._fitted_on) <= 0).mean()
    assert parameters[8:] == pytest.approx([variance, accuracy], rel=0.05)
    assert (len(found._held_out), len(found._fitted_on)) == (40, 360)
    both = np.concatenate([found._held_out, found._fitted_on])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(features(human), axis=0))


def test_oracle_the_interval_is_the_trend_of_the_batches_with_both_errors() -> None:
    human = sparse(600, 3, 0.5, 0)
    found = started(human, half_life=2)
    for seed in range(4):
        found.learn(scored_from(sparse(80, 3, 0.6, seed)))
    batch = scored_from(sparse(80, 3, 0.6, 9))
    info = found.score(batch).info
    state = found.state_dict()
    weight, intercept, (slope, variance, _) = (
        state["human_kl.parameters"][at] for at in (slice(6), 6, slice(7, 10))
    )
    raw = found.human.features(batch.latents.columns((0, 1, 2))) @ weight + intercept
    # the first batch was scored by nothing
    earlier = state["human_kl.window_log_ratios"].reshape(4, 80)[1:]
    assert state["human_kl.window_told"].tolist() == [0, 1, 1, 1]
    told = [*earlier, raw]
    line = np.polyfit(
        [3, 2, 1, 0], [one.mean() for one in told], 1, w=np.sqrt(0.5 ** (np.array([3, 2, 1, 0]) / 2))
    )
    assert info["human_kl/kl"] == pytest.approx(line[1], rel=1e-6)
    now = present_value(Means.of(told), half_life=2)
    half = 1.96 * math.sqrt(now.variance + variance)
    assert info["human_kl/kl_low"] == pytest.approx(line[1] - half, rel=1e-6)
    assert info["human_kl/kl_high"] == pytest.approx(line[1] + half, rel=1e-6)
    held = found._held_out @ weight + intercept
    assert info["human_kl/effective_sample_size"] == pytest.approx(
        np.exp(held).sum() ** 2 / np.exp(2 * held).sum()
    )
    policy = np.concatenate(told)
    area = stats.mannwhitneyu(policy.round(8), held.round(8)).statistic / len(policy) / len(held)
    assert info["human_kl/auc"] == pytest.approx(area)
    assert info["human_kl/accuracy"] == pytest.approx(((policy > 0).mean() + (held <= 0).mean()) / 2)
    assert (info["human_kl/logit_min"], info["human_kl/logit_max"]) == pytest.approx((raw.min(), raw.max()))
    assert info["human_kl/slope"] == slope
    assert info["human_kl/mean_log_ratio"] == pytest.approx(slope * raw.mean())


def test_oracle_what_is_charged_is_cut_at_clip() -> None:
    human = sparse(600, 3, 0.5, 0)
    free, cut = started(human, clip=50.0), started(human, clip=0.5)
    policy = scored_from(sparse(200, 3, 0.6, 1))
    for one in (free, cut):
        one.learn(policy)
    whole, part = free.score(policy), cut.score(policy)
    np.testing.assert_allclose(part.log_ratio, np.clip(whole.log_ratio, -0.5, 0.5))
    assert whole.info["human_kl/clipped_share"] == 0.0
    expected = (np.abs(whole.log_ratio) > 0.5).mean()
    assert 0.1 < expected < 0.99
    assert part.info["human_kl/clipped_share"] == pytest.approx(expected)
    assert part.kl == part.info["human_kl/kl"] == whole.kl


@pytest.mark.parametrize("sizes", [(5, 8, 3), (1, 8, 1), (1, 1, 1)])
def test_oracle_means_of_batches_and_their_variances(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    batches = [rng.normal(size=n) for n in sizes]
    spread = np.var(np.concatenate(batches))
    found = Means.of(batches)
    np.testing.assert_allclose(found.values, [one.mean() for one in batches])
    expected = [stats.sem(one) ** 2 if len(one) > 1 else spread for one in batches]
    np.testing.assert_allclose(found.variances, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_oracle_the_present_value_is_the_end_of_a_weighted_line(count: int) -> None:
    rng = np.random.default_rng(count)
    values, variances = rng.normal(size=count), rng.uniform(1, 2, count)
    age = np.arange(count)[::-1]
    weight = 0.5 ** (age / 1.5)
    design = np.column_stack([np.ones(count), age])[:, : 2 if count > 2 else 1]
    share = (np.linalg.inv((design.T * weight) @ design) @ (design.T * weight))[0]
    found = present_value(Means(values, variances), half_life=1.5)
    assert found == pytest.approx((share @ values, share**2 @ variances))


def folded(rows: int, seed: int) -> NDArray[np.float32]:
    """Rows of one human law's means and variances, whose log ratio to it is all but linear: two modes."""
    rng = np.random.default_rng([rows, seed, 3])
    return (2 + rng.choice([-1.0, 1.0], (rows, 3)) + 0.1 * rng.normal(size=(rows, 3))).astype(np.float32)


def round_law(rows: int, seed: int) -> NDArray[np.float32]:
    """Gaussian rows with the same means and variances."""
    rng = np.random.default_rng([rows, seed, 4])
    return (2 + 1.005 * rng.normal(size=(rows, 3))).astype(np.float32)


@pytest.mark.parametrize("estimator", ["logistic", "mahalanobis"])
def test_the_check_looks_at_the_batches_of_the_last_two_half_lives(estimator: Any) -> None:
    """A half-life of one batch: one that is not linear is seen in two checks, and in a third no more."""
    found = started(round_law(500, 0), half_life=1.0, estimator=estimator)
    fits = []
    for batch in (folded(200, 1), round_law(200, 2), round_law(200, 3), round_law(200, 4)):
        found.learn(scored_from(batch))
        fits.append(found.score(scored_from(round_law(50, 9))).info["human_kl/model_fits"])
    assert fits[:2] == [0.0, 0.0]
    # of the closed form more would have to fit than is checked
    known = [1.0, 1.0] if estimator == "logistic" else [math.nan, math.nan]
    np.testing.assert_array_equal(fits[2:], known)


@pytest.mark.parametrize(
    ("half_life", "ages"), [(1.0, [0, 0, 0, 0, 0]), (2.0, [0, 1, 0, 1, 0]), (2.5, [0, 1, 2, 0, 1])]
)
def test_oracle_a_check_follows_after_a_half_life(half_life: float, ages: list[int]) -> None:
    found = started(sparse(60, 3, 0.5, 0), half_life=half_life)
    assert found.state_dict()["human_kl.check"].tolist() == [-1, 0]
    known = []
    for seed in range(5):
        found.learn(scored_from(sparse(20, 3, 0.5, seed)))
        known.append(int(found.state_dict()["human_kl.check"][1]))
    assert known == ages


def test_a_restored_check_is_the_one_that_was_saved() -> None:
    human = round_law(500, 0)
    for batch, code in ((folded(200, 1), [0, 0]), (round_law(400, 1), [1, 0]), (round_law(20, 1), [-1, 0])):
        one, other = started(human), started(human)
        one.learn(scored_from(batch))
        assert one.state_dict()["human_kl.check"].tolist() == code
        other.load_state_dict(one.state_dict())
        assert other.state_dict()["human_kl.check"].tolist() == code
        infos = [found.score(scored_from(batch)).info for found in (one, other)]
        assert infos[0] == pytest.approx(infos[1], nan_ok=True, rel=0, abs=0)


def test_oracle_an_estimate_that_is_not_linear_is_less_its_excess_and_has_the_sure_bound() -> None:
    found = started(round_law(500, 0), half_life=2.0)
    for seed in range(3):
        found.learn(scored_from(folded(120, seed) + np.float32(0.6)))
    batch = scored_from(folded(120, 9) + np.float32(0.6))
    info, state = found.score(batch).info, found.state_dict()
    assert (info["human_kl/model_fits"], info["human_kl/saturated"]) == (0.0, 0.0)
    weight, intercept = state["human_kl.parameters"][:6], state["human_kl.parameters"][6]
    raw = found.human.features(batch.latents.columns((0, 1, 2))) @ weight + intercept
    held = found._held_out @ weight + intercept
    told = [*state["human_kl.window_log_ratios"].reshape(3, 120)[1:], raw]
    value = present_value(Means.of(told), half_life=2.0).value
    assert 0 < value - excess(held) < 0.9
    assert info["human_kl/kl"] == pytest.approx(value - excess(held), rel=1e-6)
    # for the policy as it is now: of the last half-life
    least = sure_bound(np.concatenate(told[-2:]), held)
    assert info["human_kl/kl_low"] == pytest.approx(min(least, value - excess(held)), rel=1e-6)
    assert info["human_kl/kl_high"] == math.inf


def test_oracle_the_first_slope_is_that_of_every_other_row() -> None:
    human, batch = sparse(200, 3, 0.5, 0), sparse(61, 3, 0.7, 1)
    found = started(human)
    found.learn(scored_from(batch))
    policy = found.human.features(batch)
    half = Logistic().fit(policy[0::2], found._fitted_on, counts=np.ones(31))
    slope = calibration_slope(half.at(policy[1::2]), half.at(found._held_out))
    assert 0.1 < slope < 0.99
    assert found.state_dict()["human_kl.parameters"][7] == pytest.approx(slope, abs=1e-9)


def test_oracle_a_later_slope_is_of_batches_that_were_scored_before_a_fit_saw_them() -> None:
    human = sparse(300, 3, 0.5, 0)
    batches = [sparse(40 + seed, 3, 0.6, seed) for seed in range(3)]
    found = started(human, half_life=2)
    ratios, slopes = [], []
    for batch in batches:
        found.learn(scored_from(batch))
        parameters = found.state_dict()["human_kl.parameters"]
        ratios.append((parameters[:6], parameters[6]))
        slopes.append(parameters[7])
    # the first batch was scored by nothing; humans by the fit that the newest batch was scored by
    told = [found.human.features(batches[at]) @ ratios[at - 1][0] + ratios[at - 1][1] for at in (1, 2)]
    held = [found._held_out @ weight + intercept for weight, intercept in ratios]
    assert slopes[1] == pytest.approx(calibration_slope(told[0], held[0]), abs=1e-9)
    counts = np.repeat([math.sqrt(0.5), 1.0], [41, 42])
    assert slopes[2] == pytest.approx(calibration_slope(np.concatenate(told), held[1], counts), abs=1e-9)
    # neither cut at an end nor equal by chance
    assert 0.01 < min(slopes[1:]) < max(slopes[1:]) < 0.999


@pytest.mark.parametrize(
    ("humans", "answers", "plain"), [(79, 40, True), (80, 40, False), (200, 1, True), (200, 2, False)]
)
def test_few_rows_are_not_shrunk(humans: int, answers: int, plain: bool) -> None:
    """Fewer than 8 humans held out, or a single answer, say nothing about the slope."""
    found = started(sparse(humans, 3, 0.5, 0))
    found.learn(scored_from(sparse(answers, 3, 0.5, 2)))
    slope = found.score(scored_from(np.ones((2, 3)))).info["human_kl/slope"]
    assert 0 <= slope <= 1
    assert bool(slope == 1.0) is plain
