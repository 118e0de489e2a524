"""Fits, slopes and bounds: oracle against scipy's minimiser and written-out formulas."""

import dataclasses
import importlib
import math
import pkgutil

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

import sarm_control.control
import sarm_control.evaluation.benchmarks
import sarm_control.statistics
from sarm_control.control import LogRatio, fit_log_ratio
from sarm_control.control.density_ratio import area_under_curve, balanced_accuracy
from sarm_control.control.density_ratio.logistic import mean_variance
from sarm_control.control.density_ratio.perceptron import NetworkRatio, Perceptron
from sarm_control.control.density_ratio.separation import (
    believable_nats,
    calibration_slope,
    effective_sample_size,
    excess,
    is_saturated,
    lower_bound,
    sure_bound,
)

Floats = NDArray[np.float64]


def sides(seed: int = 0, policy: int = 25, human: int = 40) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng([seed, 90])
    return rng.normal(0.4, 1, (policy, 2)), rng.normal(0, 1.3, (human, 2)), rng.uniform(0.2, 2, policy)


def loss(theta: Floats, policy: Floats, human: Floats, counts: Floats, l2: float, jeffreys: bool) -> float:
    """The loss of the fit, row by row."""
    offset = math.log(counts.sum() / len(human))
    rows, information = 0.0, np.diag([l2] * (len(theta) - 1) + [0.0])
    for side, own, weights in ((1, policy, counts), (-1, human, np.ones(len(human)))):
        for x, count in zip(own, weights, strict=True):
            logit = x @ theta[:-1] + theta[-1] + offset
            rows += count * math.log1p(math.exp(-side * logit))
            p, full = 1 / (1 + math.exp(-logit)), np.append(x, 1.0)
            information += count * p * (1 - p) * np.outer(full, full)
    half = 0.5 * math.log(np.linalg.det(information)) if jeffreys else 0.0
    return rows + l2 / 2 * float(theta[:-1] @ theta[:-1]) - half


@pytest.mark.parametrize("jeffreys", [False, True])
@pytest.mark.parametrize("l2", [0.5, 4.0])
def test_oracle_the_fit_is_the_minimum_that_scipy_finds(l2: float, jeffreys: bool) -> None:
    policy, human, counts = sides()
    found = fit_log_ratio(policy, human, l2=l2, jeffreys=jeffreys, counts=counts)
    theirs = optimize.minimize(loss, np.zeros(3), (policy, human, counts, l2, jeffreys), tol=1e-10)
    np.testing.assert_allclose([*found.weight, found.intercept], theirs.x, atol=2e-5)


@pytest.mark.parametrize("jeffreys", [False, True])
def test_oracle_a_start_far_away_ends_at_the_minimum(jeffreys: bool) -> None:
    """A whole Newton step from there overshoots by far."""
    policy, human, counts = sides()
    for far in (-6.0, 6.0):
        start = LogRatio(np.array([far, -far]), far)
        found = fit_log_ratio(policy, human, l2=0.5, jeffreys=jeffreys, counts=counts, start=start)
        near = fit_log_ratio(policy, human, l2=0.5, jeffreys=jeffreys, counts=counts)
        np.testing.assert_allclose(found.at(human), near.at(human), atol=1e-4)


def test_oracle_the_variance_of_the_mean_is_the_sandwich_and_the_models_own() -> None:
    policy, human, counts = sides()
    fit = fit_log_ratio(policy, human, l2=0.5, counts=counts)
    theta = np.append(fit.weight, fit.intercept)
    design = np.column_stack([np.concatenate([policy, human]), np.ones(65)])
    weights, side = np.append(counts, np.ones(40)), np.append(np.ones(25), np.zeros(40))
    p = 1 / (1 + np.exp(-(design @ theta + math.log(counts.sum() / 40))))
    bread = np.linalg.inv((design.T * (weights * p * (1 - p))) @ design + np.diag([0.5, 0.5, 0]))
    scores = (weights * (side - p))[:, None] * design
    mean = (counts[:, None] * design[:25]).sum(axis=0) / counts.sum()
    robust = mean @ bread @ scores.T @ scores @ bread @ mean
    found = [mean_variance(fit, policy, human, l2=0.5, counts=counts, sandwich=one) for one in (True, False)]
    assert found == pytest.approx([robust, mean @ bread @ mean], rel=1e-6)


def test_ratios_that_say_nothing_keep_the_slope_1() -> None:
    for value in (0.0, 3.0):
        assert calibration_slope(np.full(9, value), np.full(12, value)) == 1.0


@pytest.mark.parametrize("scale", [0.2, 1.0, 10.0])
def test_oracle_the_slope_is_that_of_a_logistic_regression_from_0_to_1(scale: float) -> None:
    policy, human, counts = (one.ravel() for one in sides(3))
    policy, human = scale * policy[:25], scale * human[:40]
    ends = np.concatenate([policy, human]).std()

    def of_slope(theta: Floats) -> float:
        return loss(theta, policy[:, None] / ends, human[:, None] / ends, counts, 1e-3, False)

    slope = optimize.minimize(of_slope, np.zeros(2), tol=1e-10).x[0] / ends
    assert calibration_slope(policy, human, counts) == pytest.approx(np.clip(slope, 0, 1), abs=1e-5)
    assert calibration_slope(-policy, -human, counts) == 0.0


@pytest.mark.parametrize(
    ("value", "accuracy", "fitted", "saturated"),
    [
        (2.9, 0.97, 0.985, False),
        (2.9, 0.971, 0.5, True),
        (2.9, 0.5, 0.986, True),
        (math.log(50) - 1, 0.5, 0.5, False),
        (math.log(50) - 0.99, 0.5, 0.5, True),
    ],
)
def test_what_saturates(value: float, accuracy: float, fitted: float, saturated: bool) -> None:
    assert is_saturated(value, accuracy, fitted, (50, 400)) is saturated
    assert is_saturated(value, accuracy, fitted, (400, 50)) is saturated


def test_oracle_bounds_of_sizes_weights_and_signs() -> None:
    assert believable_nats(20, 90) == believable_nats(90, 20) == pytest.approx(math.log(20) - 1)
    assert believable_nats(2980, 9999) < 7.0 == believable_nats(2981, 9999)
    weights = np.array([1.0, 2.0, 5.0])
    assert effective_sample_size(np.log(weights)) == pytest.approx(8**2 / 30)
    assert effective_sample_size(np.log(weights) + 800) == pytest.approx(8**2 / 30)
    # a log ratio of 0 is on the human side
    assert balanced_accuracy(np.array([0.0, 1.0]), np.array([0.0, -1.0, 2.0])) == pytest.approx(
        (0.5 + 2 / 3) / 2
    )
    assert area_under_curve(np.array([1.0 + 1e-10]), np.array([1.0])) == 0.5
    assert area_under_curve(np.array([1.0 + 1e-6]), np.array([1.0])) == 1.0


def test_oracle_the_excess_is_the_logarithm_of_the_mean_ratio() -> None:
    assert excess(np.log([1.0, 2.0, 6.0])) == pytest.approx(math.log(3))
    assert excess(np.log([0.1, 0.2, 0.6])) == 0.0


@pytest.mark.parametrize(("policy", "human"), [(60, 90), (90, 60)])
def test_oracle_the_sure_bound_by_its_formula(policy: int, human: int) -> None:
    rng = np.random.default_rng(7)
    told, other = rng.normal(3.0, 1.5, policy), rng.normal(-2.0, 1.5, human)
    told[0], other[0], other[1] = 30.0, 30.0, 2.0
    cut, ratios = (np.minimum(one, math.log(60)) for one in (told, other))
    errors = cut.var(ddof=1) / policy + stats.sem(np.exp(ratios)) ** 2 / np.exp(ratios).mean() ** 2
    expected = cut.mean() - max(math.log(np.exp(ratios).mean()), 0) - 2.576 * math.sqrt(errors)
    assert expected > 0.1
    assert sure_bound(told, other) == pytest.approx(expected, rel=1e-9)
    assert sure_bound(told[:2], other[:2]) >= 0.0


def test_oracle_the_lower_bound_of_ratios_without_spread_is_their_cut_mean() -> None:
    assert lower_bound(np.full(30, 2.0), np.full(20, 2.0)) == 0.0
    assert lower_bound(np.full(30, -2.0), np.full(20, -2.0)) == 0.0


@pytest.mark.long
@pytest.mark.parametrize(("policy", "human"), [(60, 90), (90, 60)])
def test_oracle_the_lower_bound_is_the_larger_of_both_by_their_formulas(policy: int, human: int) -> None:
    rng = np.random.default_rng(8)
    for shrink, of_fit in ((1.0, False), (0.1, True)):
        told, other = rng.normal(3.2, 1.0, policy) * shrink, rng.normal(-6.0, 2.0, human) * shrink
        told[0] = 20.0 * shrink
        cut = np.minimum(told, math.log(60))
        share = max(math.log(np.exp(np.minimum(other, math.log(60))).mean()), 0)
        shown = cut.mean() - stats.t.ppf(0.995, policy - 1) * stats.sem(cut) - share
        ends = np.concatenate([told, other]).std()
        a, b = told[:, None] / ends, other[:, None] / ends
        fit = optimize.minimize(loss, np.zeros(2), (a, b, np.ones(policy), 1e-3, True), tol=1e-9).x
        ratio = LogRatio(fit[:1], float(fit[1]))
        variance = mean_variance(ratio, a, b, l2=1e-3, sandwich=False)
        fitted = float(ratio.at(a).mean()) - 2.576 * math.sqrt(variance)
        assert bool(fitted > shown) is of_fit
        assert lower_bound(told, other) == pytest.approx(max(shown, fitted), rel=2e-3)


def test_oracle_a_network_ratio_is_its_weights_by_hand() -> None:
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    first, second = ([p.detach().numpy().astype(float) for p in network[i].parameters()] for i in (0, 2))
    at = np.random.default_rng(9).normal(size=(5, 2))
    expected = np.tanh(at @ first[0].T + first[1]) @ second[0][0] + second[1][0]
    np.testing.assert_allclose(NetworkRatio(network, 0.25).at(at), 0.25 * expected, atol=1e-6)


@pytest.mark.parametrize(("rows", "held"), [(4, 2), (10, 2), (14, 2), (15, 3), (50, 10)])
def test_a_fifth_and_at_least_two_rows_are_held_out_of_a_network(rows: int, held: int) -> None:
    kept, out = Perceptron()._split(np.arange(rows, dtype=float)[:, None])
    assert (len(kept), len(out)) == (rows - held, held)
    assert sorted([*kept[:, 0], *out[:, 0]]) == list(range(rows))


def test_metamorphic_a_network_stops_after_its_patience_with_its_best_weights() -> None:
    """The rows kept say the reverse of those held out, so that the first pass is the best."""
    rng = np.random.default_rng(10)
    policy, human = rng.normal(1, 1, (40, 2)), rng.normal(-1, 1, (40, 2))

    def trained(**words: int) -> Floats:
        network = Perceptron(hidden=8, **words)._trained(policy, human, human, policy)
        return NetworkRatio(network, 1.0).at(policy)

    np.testing.assert_array_equal(trained(epochs=200, patience=3), trained(epochs=1))
    # and where they say the same, more passes are better ones
    forth = Perceptron(hidden=8, epochs=100)._trained(policy, human, policy, human)
    back = Perceptron(hidden=8, epochs=2)._trained(policy, human, policy, human)
    assert NetworkRatio(forth, 1.0).at(policy).mean() > NetworkRatio(back, 1.0).at(policy).mean() + 0.5


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_oracle_a_network_keeps_the_best_pass_before_patience_passes_without_a_better_one(
    patience: int,
) -> None:
    """Its held-out losses rise and fall again at this rate, so that more patience finds more."""
    rng = np.random.default_rng(11)
    policy, human, policy_held, human_held = (
        rng.normal(0.3, 1, (4, 30, 2)) * np.array([1, -1, 1, -1])[:, None, None]
    )

    def after(passes: int, patience: int) -> tuple[float, Floats]:
        own = Perceptron(hidden=8, rate=0.5, epochs=passes, patience=patience)
        ratio = NetworkRatio(own._trained(policy, human, policy_held, human_held), 1.0)
        told, other = ratio.at(policy_held), ratio.at(human_held)
        return (np.logaddexp(0, -told).mean() + np.logaddexp(0, other).mean()) / 2, ratio.at(policy)

    best = [after(passes, 99)[0] for passes in range(1, 26)]
    # the loss of the best pass so far falls at the passes that are better
    better = [0, *(i for i in range(1, 25) if best[i] < best[i - 1])]
    gaps = np.diff([*better, 99])
    stays = better[int(np.argmax(gaps > patience))]
    np.testing.assert_array_equal(after(25, patience)[1], after(stays + 1, 99)[1])


@pytest.mark.parametrize(
    "room", [sarm_control.control, sarm_control.statistics, sarm_control.evaluation.benchmarks]
)
def test_no_data_class_of_these_rooms_can_be_changed(room: object) -> None:
    """They are keys, are shared between steps and are compared: a change of one would change all."""
    path, name = room.__path__, room.__name__  # type: ignore[attr-defined]
    modules = [importlib.import_module(one.name) for one in pkgutil.walk_packages(path, f"{name}.")]
    found = {
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and dataclasses.is_dataclass(one) and one.__module__ == module.__name__
    }
    assert found
    assert [one for one in found if not one.__dataclass_params__.frozen] == []  # type: ignore[attr-defined]
