"""Whether latents show what the state knows: planted worlds, chance, AUROC intervals against theory."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.sparse import csr_array
from sklearn import metrics

from sarm_control.control import fit_log_ratio
from sarm_control.data.rows import Row
from sarm_control.discovery.evidence.detectability import Detectability, see
from sarm_control.discovery.pairs.margins import auroc_of
from sarm_control.discovery.pairs.prompt_pairs import PromptPairs, group_by_prompt
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import from_scipy
from sarm_control.statistics.clustered_auroc import difference_over_folds, interval_over_folds, placed
from sarm_control.statistics.intervals import Interval
from sarm_control.statistics.logistic import fit_logistic
from tests.present import present

WIDTH, LATENTS = 12, 60


def world(
    prompts: int = 150,
    *,
    shown: float = 0.0,
    known: float = 0.0,
    seed: int = 0,
    order: NDArray[np.int64] | None = None,
) -> PromptPairs:
    """Two chosen and two rejected answers a prompt; latent 7 and state direction 3 carry the side."""
    generator = np.random.default_rng(seed)
    side = np.tile([1, 1, 0, 0], prompts)
    count = len(side)
    z = np.where(generator.random((count, LATENTS)) < 0.3, generator.exponential(1.0, (count, LATENTS)), 0)
    z[:, 7] += shown * side
    states = generator.normal(size=(count, WIDTH)).astype(np.float32)
    states[:, 3] += known * side
    rows = [
        Row(
            Path("p.jsonl"),
            p,
            {},
            "pair",
            f"prompt {p}",
            chosen=(f"a {p}", f"b {p}"),
            rejected=(f"c {p}", f"d {p}"),
        )
        for p in range(prompts)
    ]
    latents, head = from_scipy(csr_array(z)), np.full(LATENTS, 0.01, np.float32)
    scored = Scored(
        latents.dot(head), latents, head, np.zeros(count, np.int64), np.ones(count, bool),
        np.ones(count, np.int64), "head-1", states,
    )  # fmt: skip
    if order is None:
        return group_by_prompt(rows, scored)
    answers = (4 * np.asarray(order)[:, None] + np.arange(4)).ravel()
    return group_by_prompt([rows[p] for p in order], scored.take(answers))


def test_a_shown_attribute_is_found_in_its_latent_and_is_worth_what_theory_says() -> None:
    found = present(see(world(shown=1.5, known=3.0)))
    assert set(found.latents) == {7}
    assert found.best_latent.low > 0.8
    assert found.best_five.mean >= found.best_latent.mean - 0.02
    assert present(found.probe).mean > 0.9


def test_oracle_the_probe_reaches_the_auroc_of_the_best_direction() -> None:
    pairs = world(400, known=1.0)
    # two normals one SD apart: P(chosen > rejected) = Phi(1 / sqrt 2)
    assert present(present(see(pairs)).probe).mean == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.04)


def test_what_the_state_knows_and_no_latent_shows_is_said() -> None:
    found = present(see(world(known=3.0)))
    assert present(found.gap).low > 0.3
    assert "the state knows" in found.verdict.lower()
    assert found.verdict.endswith("what they do not show, no control on latents holds.")
    for one in (found.best_latent, found.best_five, present(found.probe)):
        assert f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]" in found.verdict


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        ((0.26, 0.06, 0.46), "what they do not show, no control on latents holds."),
        ((0.01, -0.02, 0.04), "The latents show what the state knows"),
        ((0.26, 0.04, 0.48), "Too few prompts to tell whether the state knows more than the latents show"),
        ((0.0, -0.2, 0.2), "which leads the best five by 0.00 [-0.20, 0.20]."),
    ],
)
def test_a_gap_that_may_be_large_or_nothing_is_read_as_neither(
    gap: tuple[float, float, float], said: str
) -> None:
    latent, five, probe = (
        Interval(mean, low, high, 40)
        for mean, low, high in ((0.7, 0.6, 0.8), (0.72, 0.62, 0.82), (0.9, 0.8, 0.98))
    )
    mean, low, high = gap
    verdict = Detectability(latent, five, probe, Interval(mean, low, high, 40), (1,)).verdict
    assert said in verdict
    assert ("Too few prompts" in verdict) == (low <= 0.05 <= high)


@pytest.mark.long
def test_what_both_show_and_what_nobody_knows_is_said_too() -> None:
    assert "The latents show what the state knows" in present(see(world(shown=3.0, known=3.0))).verdict
    assert "Neither the latents nor the state separate" in present(see(world(300))).verdict


@pytest.mark.long
def test_calibration_nothing_chosen_is_judged_on_its_own_answers() -> None:
    """The best of sixty latents, and a probe on states, tell labels of chance no better than chance."""
    found = [see(world(60, seed=seed), seed=seed) for seed in range(12)]
    for name in ("best_latent", "best_five", "probe"):
        assert np.mean([getattr(one, name).mean for one in found]) == pytest.approx(0.5, abs=0.03)
        covered = [getattr(one, name).low <= 0.5 <= getattr(one, name).high for one in found]
        assert sum(covered) >= 9


@pytest.mark.long
def test_the_folds_do_not_depend_on_the_order_of_the_prompts() -> None:
    there = present(see(world(60, shown=1.0)))
    shuffled = present(see(world(60, shown=1.0, order=np.random.default_rng(0).permutation(60))))
    for one, other in zip((there.best_five, there.probe), (shuffled.best_five, shuffled.probe), strict=True):
        one, other = present(one), present(other)
        assert other[:3] == pytest.approx(one[:3], abs=1e-5)


def test_without_states_there_is_no_probe_and_few_prompts_give_nothing() -> None:
    from dataclasses import replace

    pairs = world(40, shown=2.0)
    found = present(see(replace(pairs, scored=replace(pairs.scored, states=None))))
    assert (found.probe, found.gap) == (None, None)
    assert found.as_json()["probe"] is None
    assert "whether the state knows more" in found.verdict
    assert see(pairs.take(range(19))) is None


def test_oracle_auroc_and_its_error_equal_mann_whitney_and_delong() -> None:
    generator = np.random.default_rng(0)
    present = np.arange(80) < 30
    scores = np.round(generator.normal(size=80) + present, 1)
    found = placed(scores, present, np.arange(80), 80)
    statistic = stats.mannwhitneyu(scores[present], scores[~present]).statistic
    assert found.auroc == pytest.approx(statistic / (30 * 50))
    above = (scores[present][:, None] > scores[~present]) + 0.5 * (
        scores[present][:, None] == scores[~present]
    )
    delong = above.mean(1).var() / 30 + above.mean(0).var() / 50
    assert found.influence @ found.influence == pytest.approx(delong)
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)


def test_calibration_intervals_cover_when_answers_to_a_prompt_resemble_each_other() -> None:
    truth, covered, naive = stats.norm.cdf(0.8 / 2), 0, 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        prompts = np.repeat(np.arange(60), 8)
        # a prompt has answers of one side only, so that what they share does not cancel
        present = prompts < 30
        scores = generator.normal(size=60)[prompts] + generator.normal(size=480) + 0.8 * present
        found = interval_over_folds([placed(scores, present, prompts, 60)])
        covered += found.low <= truth <= found.high
        alone = interval_over_folds([placed(scores, present, np.arange(480), 480)])
        naive += alone.low <= truth <= alone.high
    assert 0.90 <= covered / 200 <= 0.985
    assert naive / 200 < 0.75


def test_the_difference_of_a_detector_and_itself_is_nothing_and_folds_average() -> None:
    generator = np.random.default_rng(3)
    present = np.tile([True, False], 40)
    folds = [
        placed(generator.normal(size=80) + present, present, np.repeat(np.arange(40), 2), 40)
        for _ in range(3)
    ]
    assert difference_over_folds(folds, folds)[:3] == (0, 0, 0)
    found = interval_over_folds(folds)
    assert found.mean == pytest.approx(np.mean([fold.auroc for fold in folds]))
    assert found.n == 120
    widths = [interval_over_folds([fold]) for fold in folds]
    assert found.high - found.low < min(one.high - one.low for one in widths)


def test_oracle_unequal_folds_count_by_their_prompts_and_their_variances_add_up() -> None:
    generator = np.random.default_rng(4)
    sizes = (20, 60)
    folds = []
    for size in sizes:
        present = np.tile([True, False], size)
        scores = generator.normal(size=2 * size) + present
        folds.append(placed(scores, present, np.repeat(np.arange(size), 2), size))
    shares = [size / sum(sizes) for size in sizes]
    found = interval_over_folds(folds)
    assert found.mean == pytest.approx(sum(s * fold.auroc for s, fold in zip(shares, folds, strict=True)))
    # an influence is a prompt's share of the error of the mean: n of them vary as one mean does
    variances = [size * fold.influence.var(ddof=1) for size, fold in zip(sizes, folds, strict=True)]
    error = math.sqrt(sum(s**2 * variance for s, variance in zip(shares, variances, strict=True)))
    assert (found.high - found.mean) == pytest.approx(1.96 * error)
    assert (found.mean - found.low) == pytest.approx(1.96 * error)
    assert found.n == sum(sizes)


def test_oracle_placements_and_pairs_give_the_area_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    present = generator.random(300) < 0.3
    for scores in (generator.normal(size=300), np.round(generator.exponential(size=300)), np.zeros(300)):
        area = metrics.roc_auc_score(present, scores)
        assert placed(scores, present, np.arange(300), 300).auroc == pytest.approx(area, abs=1e-12)
        assert auroc_of(scores[present], scores[~present]) == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("l2", [1.0, 100.0])
def test_oracle_logistic_regression_is_at_the_minimum_that_newton_finds(l2: float) -> None:
    generator = np.random.default_rng(9)
    features = np.concatenate([generator.normal(3.0, 2.0, (400, 20)), np.ones((400, 1))], axis=1)
    present = generator.random(400) < stats.logistic.cdf(features[:, 0] - features[:, 1])
    found = fit_logistic(features, present, l2=l2)
    assert found.scale[-1] == 0
    standard = (features - found.mean) * found.scale
    exact = fit_log_ratio(standard[present], standard[~present], l2=l2)
    offset = math.log(present.sum() / (~present).sum())
    np.testing.assert_allclose(found.weight, exact.weight, atol=2e-4)
    assert found.intercept == pytest.approx(exact.intercept + offset, abs=2e-4)


def test_a_fit_that_needs_more_steps_than_it_gets_says_nothing_and_tells_the_sides_apart() -> None:
    generator = np.random.default_rng(2)
    features = generator.normal(size=(200, 400)) * np.geomspace(1, 1e-3, 400)
    present = np.arange(200) < 80
    logits = fit_logistic(features, present, l2=1e-9).logits(features)
    assert metrics.roc_auc_score(present, logits) == 1


def test_oracle_logistic_regression_minimises_its_loss() -> None:
    generator = np.random.default_rng(5)
    features = generator.normal(2.0, 3.0, (60, 3))
    present = generator.random(60) < stats.logistic.cdf(features[:, 0] - 2)
    found = fit_logistic(features, present, l2=2.0)
    standard = (features - features.mean(0)) / features.std(0)
    sign = np.where(present, 1, -1)

    def loss(theta: NDArray[np.float64]) -> float:
        miss = np.log1p(np.exp(-sign * (standard @ theta[:3] + theta[3]))).sum()
        return float(miss + theta[:3] @ theta[:3])

    expected = optimize.minimize(
        loss, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-9, "maxiter": 4000}
    ).x
    np.testing.assert_allclose([*found.weight, found.intercept], expected, atol=1e-3)
    np.testing.assert_allclose(found.logits(features), standard @ found.weight + found.intercept)
