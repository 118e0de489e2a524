"""What `estimate_kl` is made of, oracle: groups, interval, bounds, the wider model, the choice of latents."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sarm_control import KLEstimate, estimate_kl
from sarm_control.control.density_ratio import ESTIMATORS, Logistic, LogRatio, Mahalanobis, balanced_accuracy
from sarm_control.control.density_ratio.jackknife import SampleRows, cross_fit, held_out
from sarm_control.control.density_ratio.kernels import LeastSquares
from sarm_control.control.density_ratio.model_check.dictionary import dictionary
from sarm_control.control.density_ratio.model_check.wider import wider_held_out
from sarm_control.control.density_ratio.perceptron import Perceptron
from sarm_control.control.density_ratio.separation import lower_bound, sure_bound
from sarm_control.errors import DataError
from sarm_control.latents import HumanBuffer
from tests.control.batches import scored_from

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]


class Alike:
    """An estimator of one's own, for which every row is as likely under both laws."""

    def fit(self, policy: Floats, human: Floats, /, *, start: Any = None) -> LogRatio:
        """A log ratio of 0 everywhere."""
        del human, start
        return LogRatio(np.zeros(policy.shape[1]), 0.0)


def shifted(kl: float, rows: int, width: int = 3, seed: int = 0) -> tuple[Rows, Rows]:
    """Gaussian rows of two laws that differ in their mean."""
    policy, human = np.random.default_rng([seed, 5]).normal(size=(2, rows, width))
    return (policy + math.sqrt(2 * kl / width)).astype(np.float32), human.astype(np.float32)


def two_modes(rows: int, seed: int = 0, width: int = 3) -> tuple[Rows, Rows]:
    """A policy of two modes a latent, and a Gaussian with its mean and variance."""
    rng = np.random.default_rng([seed, 6])
    policy = rng.choice([-1.0, 1.0], (rows, width)) + 0.2 * rng.normal(size=(rows, width))
    return policy.astype(np.float32), (1.02 * rng.normal(size=(rows, width))).astype(np.float32)


def samples(policy: Rows, human: Rows) -> tuple[SampleRows, SampleRows]:
    buffer = HumanBuffer(tuple(range(policy.shape[1])), human, "")
    return SampleRows(buffer.features(policy), policy), SampleRows(buffer.features(human), human)


def test_groups_keep_copies_together_and_are_equally_large() -> None:
    """Of five rows there are four copies each; rows of only 0 and 1 are alike by chance."""
    copied = np.array([[0.5, 0], [2, 0], [-1, 0], [0, -2], [1, 3]], np.float32)
    chance = np.array([[0, 0]] * 6 + [[1, 0]] * 5 + [[0, 1]] * 4, np.float32)
    rows = np.concatenate([np.repeat(copied, 4, axis=0), chance])
    sample = SampleRows(rows.astype(np.float64), rows)
    for seed in (0, 1, -1):
        group = sample.groups(5, seed, "the policy")
        together = [set(group[4 * i : 4 * i + 4].tolist()) for i in range(5)]
        assert all(len(one) == 1 for one in together)
        distinct = [*(number for one in together for number in one), *group[20:].tolist()]
        assert np.bincount(distinct).tolist() == [4] * 5
        assert len(set(group[20:26].tolist())) > 1
        order = np.random.default_rng(0).permutation(35)
        turned = SampleRows(sample.features[order], rows[order]).groups(5, seed, "the policy")
        np.testing.assert_array_equal(turned[order < 20], group[order][order < 20])
    assert not np.array_equal(sample.groups(5, 0, ""), sample.groups(5, 1, ""))
    assert len(set(sample.groups(20, 0, "").tolist())) == 20
    with pytest.raises(DataError, match="the policy has 20 distinct rows among 35, at least 21 are needed"):
        sample.groups(21, 0, "the policy")


def test_oracle_the_error_is_the_jackknifes_over_groups() -> None:
    policy, human = samples(*shifted(0.5, 30))
    groups = [side.groups(3, 7, "") for side in (policy, human)]

    def without(*out: int) -> LogRatio:
        kept = [
            side.features[~np.isin(group, out)] for side, group in zip((policy, human), groups, strict=True)
        ]
        return Mahalanobis().fit(*kept)

    found = cross_fit(policy, human, Mahalanobis(), groups=3, seed=7)
    for side, group, log_ratios in zip((policy, human), groups, (found.policy, found.human), strict=True):
        expected = [without(g).at(row[None])[0] for row, g in zip(side.features, group.tolist(), strict=True)]
        np.testing.assert_allclose(log_ratios, expected, rtol=1e-9)
    assert found.mean == pytest.approx(found.policy.mean())
    accuracies = [
        balanced_accuracy(
            without(g).at(policy.features[groups[0] != g]), without(g).at(human.features[groups[1] != g])
        )
        for g in range(3)
    ]
    assert found.fitted_accuracy == pytest.approx(np.mean(accuracies))
    means = [
        np.concatenate([without(g, h).at(policy.features[groups[0] == h]) for h in range(3) if h != g]).mean()
        for g in range(3)
    ]
    assert found.error == pytest.approx(math.sqrt(2 / 3 * np.square(means - np.mean(means)).sum()))
    assert found.freedom == 2
    apart = held_out(policy, human, Mahalanobis(), groups=3, seed=7)
    np.testing.assert_array_equal(apart.policy, found.policy)
    np.testing.assert_array_equal(apart.human, found.human)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_oracle_the_interval_is_students_with_seven_degrees(level: float) -> None:
    policy, human = shifted(0.2, 60)
    found = estimate_kl(policy, human, estimator="mahalanobis", level=level)
    fit = cross_fit(*samples(policy, human), Mahalanobis(), groups=8, seed=0)
    assert found.value == pytest.approx(fit.mean)
    half = stats.t.ppf((1 + level) / 2, 7) * fit.error
    assert (found.low, found.high) == pytest.approx((fit.mean - half, fit.mean + half))
    assert found.level == level
    if level == 0.95:
        plain = estimate_kl(policy, human, estimator="mahalanobis")
        assert (plain.value, plain.low, plain.level) == (found.value, found.low, 0.95)
        for seed in (1, -1):
            assert estimate_kl(policy, human, estimator="mahalanobis", seed=seed).value != plain.value


@pytest.mark.parametrize(("kl", "separated"), [(8.0, False), (16.0, True)])
def test_oracle_a_saturated_value_is_the_largest_of_its_bounds(kl: float, separated: bool) -> None:
    """Of its own log ratios, of those under a strong ridge, and of the interval where rows are in doubt."""
    policy, human = shifted(kl, 200)
    found = estimate_kl(policy, human)
    assert found.saturated
    assert found.bound
    assert (found.accuracy > 0.985) is separated
    sides = samples(policy, human)
    strong = held_out(*sides, Logistic(l2=30.0), groups=8, seed=0)
    fit = cross_fit(*sides, Logistic(), groups=8, seed=0)
    end = fit.mean - stats.t.ppf(0.975, 7) * fit.error
    bounds = [
        lower_bound(found.log_ratio, found.human_log_ratio),
        lower_bound(strong.policy, strong.human),
        0.0 if separated else end,
    ]
    assert found.value == pytest.approx(max(bounds), rel=1e-6)
    assert found.low == pytest.approx(min(end, max(bounds)), rel=1e-6)
    assert found.high == math.inf


@pytest.mark.parametrize("estimator", ["logistic", "mahalanobis"])
def test_oracle_where_the_model_does_not_fit_the_value_is_the_larger_sure_bound(estimator: str) -> None:
    policy, human = two_modes(160)
    found = estimate_kl(policy, human, estimator=estimator)
    assert (found.model_fits, found.bound, found.saturated) == (False, True, False)
    wider = wider_held_out(*samples(policy, human), groups=8, seed=0)
    bounds = sure_bound(found.log_ratio, found.human_log_ratio), sure_bound(wider.policy, wider.human)
    assert bounds[1] > 0.3
    assert found.value == found.low == pytest.approx(max(bounds), rel=1e-6)
    assert found.wider == pytest.approx(wider.policy.mean(), rel=1e-6)
    assert found.high == math.inf


def test_whether_another_estimators_form_fits_is_not_known() -> None:
    policy, human = shifted(0.2, 300)
    for estimator in ("mahalanobis", Alike()):
        assert estimate_kl(policy, human, estimator=estimator).model_fits is None


@pytest.mark.parametrize(("rows", "width", "more"), [(150, 3, False), (400, 1, True)])
def test_oracle_the_wider_model_is_a_ridge_on_the_columns_that_the_residuals_ask_for(
    rows: int, width: int, more: bool
) -> None:
    """Of one latent more columns than 60 are asked for, and the 60 with the largest scores are taken."""
    sides = samples(*two_modes(rows, 1, width))
    features = np.concatenate([side.features for side in sides])
    own = np.arange(2 * rows) < rows
    latents = np.concatenate([side.latents for side in sides])
    columns = np.concatenate(dictionary(latents, features, 4), axis=1).astype(np.float64)
    group = np.concatenate([side.groups(2, 4, "") for side in sides])
    expected = np.zeros(2 * rows)
    for g in range(2):
        kept = group != g
        fit = Logistic().fit(features[kept & own], features[kept & ~own])
        logit = fit.at(features[kept]) + math.log((kept & own).sum() / (kept & ~own).sum())
        chance = 1 / (1 + np.exp(-logit))
        root = np.sqrt(chance * (1 - chance))[:, None]
        design, scaled = np.column_stack([features[kept], np.ones(kept.sum())]) * root, columns[kept] * root
        left = scaled - design @ np.linalg.lstsq(design, scaled, rcond=None)[0]
        scores = np.abs(left.T @ ((own[kept] - chance) / root[:, 0])) / np.linalg.norm(left, axis=0)
        scores[(left**2).sum(axis=0) <= 0.01 * (scaled**2).sum(axis=0)] = 0.0
        assert bool((scores > 3).sum() > 60) is more
        best = [j for j in np.argsort(-scores, kind="stable")[:60] if scores[j] > 3]
        wide = np.column_stack([features, columns[:, best]])
        ratio = Logistic(l2=10.0, jeffreys=False).fit(wide[kept & own], wide[kept & ~own])
        expected[~kept] = ratio.at(wide[~kept])
    found = wider_held_out(*sides, groups=2, seed=4)
    np.testing.assert_allclose(np.concatenate([found.policy, found.human]), expected, atol=1e-3)


def fired(counts: list[int], rows: int = 80) -> Rows:
    """[rows, len(counts)]: each latent fires in so many rows, drawn by chance."""
    rng = np.random.default_rng(11)
    z = np.zeros((rows, len(counts)), np.float32)
    for latent, count in enumerate(counts):
        z[rng.permutation(rows)[:count], latent] = rng.exponential(size=count) + 0.1
    return z


def chosen(z: Rows) -> tuple[int, ...]:
    return estimate_kl(scored_from(z[:40]), scored_from(z[40:]), estimator=Alike()).latents


def test_oracle_latents_that_fire_in_ten_rows_and_are_silent_in_ten_are_compared() -> None:
    z = fired([9, 10, 70, 71, 80, 0, 40, 40])
    # values below 0 do not fire
    z[:, 7] *= -1
    assert chosen(z) == (1, 2, 6)


def test_oracle_of_many_latents_the_256_that_fire_nearest_to_half_of_the_rows_are_compared() -> None:
    counts = [10 + 7 * latent % 61 for latent in range(300)]
    says = [min(count, 80 - count) for count in counts]
    expected = sorted(range(300), key=lambda latent: (-says[latent], latent))[:256]
    assert chosen(fired(counts)) == tuple(sorted(expected))


def test_oracle_coverage_is_of_the_latents_that_fire() -> None:
    rng = np.random.default_rng(12)
    policy, human = rng.uniform(0.5, 1.5, (2, 8, 3)).astype(np.float32)
    policy[:, 2] *= -1
    human[:, 1] *= -1
    # the policy fires the first two, of which humans fire the first; eight rows a side are enough
    assert estimate_kl(policy, human, estimator=Alike()).coverage == 0.5
    assert estimate_kl(-np.abs(policy), human, estimator=Alike()).coverage == 1.0


@pytest.mark.parametrize("models", [(None, None), ("m1", "m1"), ("m1", None), (None, "m1")])
def test_scores_whose_models_may_be_the_same_are_compared(models: tuple[str | None, str | None]) -> None:
    sides = [
        replace(scored_from(z), model_fingerprint=model)
        for z, model in zip(shifted(0.1, 20), models, strict=True)
    ]
    assert estimate_kl(sides[0], sides[1], estimator=Alike()).value == 0.0


ESTIMATE = KLEstimate(
    value=1.25,
    low=1.0,
    high=1.5,
    accuracy=0.75,
    auc=0.8125,
    saturated=False,
    log_ratio=np.zeros(30),
    human_log_ratio=np.zeros(40),
    slope=0.9,
    effective_sample_size=12.25,
    coverage=0.5,
    latents=(3, 5),
    level=0.9,
)


@pytest.mark.parametrize(
    ("saturated", "fits", "why"),
    [
        (False, None, ""),
        (False, True, ""),
        (True, None, "the samples are too far apart for their sizes"),
        (True, True, "the samples are too far apart for their sizes"),
        (False, False, "the log ratio is not linear in the features"),
        (
            True,
            False,
            "the samples are too far apart for their sizes; the log ratio is not linear in the features",
        ),
    ],
)
def test_golden_an_estimate_in_words(saturated: bool, fits: bool | None, why: str) -> None:
    found = replace(ESTIMATE, saturated=saturated, model_fits=fits)
    assert found.bound is bool(why)
    least = "at least " if why else ""
    assert repr(found) == (
        f"KLEstimate({least}1.25 nats [1, 1.5], 2 latents, 30 policy and 40 human rows, "
        f"accuracy 0.750, auc 0.812, saturated={saturated}, model_fits={fits})"
    )
    page = found._repr_html_()
    assert f">{least}1.25 nats<" in page
    assert "90% interval" in page
    assert "50.0%" in page
    assert ("a lower bound" in page) is bool(why)
    assert why in page
    assert ("; the log ratio" in page) is (";" in why)
    assert ESTIMATE.wider is None


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_oracle_a_relative_ratio_is_turned_into_one_of_both_laws(alpha: float) -> None:
    """`r = p / (a p + (1 - a) q)` gives `p / q = (1 - a) r / (1 - a r)`; far away nothing is known."""
    policy, human = (side.astype(np.float64) for side in shifted(0.5, 60, width=1))
    found = LeastSquares(alpha).fit(policy, human)
    at = np.array([[0.0], [0.5], [1.0], [1.5], [60.0]])
    relative = np.asarray(found.fitted.compute_density_ratio(at), np.float64).ravel()
    ratio = np.maximum((1 - alpha) * relative / np.maximum(1 - alpha * relative, 0.001), 0.001)
    np.testing.assert_allclose(found.at(at), np.log(ratio), rtol=1e-12)
    assert found.at(at)[-1] == pytest.approx(math.log(0.001))


def test_golden_the_estimators_by_name_have_the_settings_of_the_benchmark() -> None:
    assert {name: make() for name, make in ESTIMATORS.items()} == {
        "logistic": Logistic(l2=0.001, jeffreys=True, tolerance=1e-4),
        "mlp": Perceptron(hidden=64, rate=0.003, decay=0.1, epochs=200, patience=10, seed=0),
        "ulsif": LeastSquares(alpha=0.0, kernels=100, seed=0),
        "rulsif": LeastSquares(alpha=0.5, kernels=100, seed=0),
        "mahalanobis": Mahalanobis(),
    }


@pytest.mark.parametrize(
    ("policy", "coverage"),
    [([[1, 0, 0], [0, 0, 0]], 1.0), ([[1, 0, 1], [1, 0, 0]], 0.5), ([[0, 0, 1], [0, 0, 1]], 0.0)],
)
def test_oracle_coverage_of_an_estimate_is_the_share_of_fired_latents_that_humans_fire(
    policy: list[list[float]], coverage: float
) -> None:
    """Humans fire latents 0 and 1 in half of their rows, latent 2 never; the policy never fires latent 1."""
    human = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (40, 1))
    found = estimate_kl(np.tile(np.array(policy, np.float32), (40, 1)), human)
    assert found.coverage == coverage


def test_oracle_a_sure_bound_of_three_rows_takes_students_t_of_two_degrees() -> None:
    """Log ratios that lie close together and far above the humans', by the formula of the docstring."""
    policy, human = np.array([1.0, 1.001, 1.002]), np.array([-30.0, -30.0, -30.0])
    below = stats.t.ppf(0.995, 2) * policy.std(ddof=1) / math.sqrt(3)
    assert sure_bound(policy, human) == pytest.approx(policy.mean() - below, rel=0.01)
