"""The residual in a discovery: what effects sum to (property), planted residuals, what is said of them."""

from dataclasses import replace

import numpy as np
import pytest

from sarm_control.discovery.discovery import Discovery, DiscoverySettings, ScoredRows, discover
from sarm_control.discovery.effects.margin_summary import cumulative_margin, lost_margin, summarise
from sarm_control.discovery.effects.residual_effect import residual_effect
from sarm_control.discovery.evidence.detectability import see
from sarm_control.discovery.evidence.examine import Depth, examine
from sarm_control.discovery.pairs.margins import (
    margin_contributions,
    pair_accuracy,
    pair_latents,
    prompt_margins,
    residual_alone,
    residual_margins,
    rewards,
    watched_values,
)
from sarm_control.discovery.pairs.prompt_pairs import group_by_prompt
from sarm_control.discovery.report import summary_text
from sarm_control.errors import DataError
from tests.discovery.test_discover import no_model, scored_rows
from tests.discovery.test_effects import PLANTED
from tests.discovery.worlds import make_world

SETTINGS = DiscoverySettings(sets=20)


def attached(
    residual_of_rejected: float, *, seed: int = 0, prompts: int = 120, spread: float = 0.02
) -> ScoredRows:
    """Pairs under a reward model with a residual, which gives rejected answers this much more."""
    pairs = scored_rows(make_world(seed=seed, prompts=prompts, planted=PLANTED))
    rng = np.random.default_rng(seed + 100)
    rejected = np.concatenate([[False] * len(row.chosen) + [True] * len(row.rejected) for row in pairs.rows])
    residual = rng.normal(scale=spread, size=len(rejected)) + residual_of_rejected * rejected
    whole = pairs.scored.latents.sums(pairs.scored.head) + residual + 0.7
    states = rng.normal(size=(len(rejected), 8)).astype(np.float32)
    scored = replace(
        pairs.scored,
        rewards=whole.astype(np.float32),
        residual=residual,
        constant=0.7,
        kind="attached",
        states=states,
    )
    return ScoredRows(pairs.rows, scored)


@pytest.fixture(scope="module")
def harmed() -> Discovery:
    return discover(attached(0.03), settings=SETTINGS)


def test_effects_of_all_latents_and_the_residual_sum_to_the_mean_margin() -> None:
    pairs = attached(0.03)
    grouped = group_by_prompt(pairs.rows, pairs.scored).latents
    effects = np.asarray(margin_contributions(grouped).mean(axis=0)).ravel()
    mean_margin = summarise(grouped).margin.mean
    assert effects.sum() + residual_margins(grouped).mean() == pytest.approx(mean_margin, abs=1e-12)
    # from the rewards themselves: the constant cancels
    keys = [row.prompt_key for row in pairs.rows]
    by_prompt = pairs.scored.rewards.astype(np.float64).reshape(len(keys), 2, -1).mean(axis=2)
    np.testing.assert_allclose(prompt_margins(grouped), by_prompt[:, 0] - by_prompt[:, 1], atol=1e-6)
    both = np.concatenate(rewards(grouped))
    assert np.sort(both + 0.7) == pytest.approx(np.sort(pairs.scored.rewards), abs=1e-6)


def test_a_planted_residual_harms_promotes_or_does_neither(harmed: Discovery) -> None:
    assert harmed.residual is not None
    assert harmed.residual.direction == "harms"
    assert harmed.residual.effect.high < 0
    assert harmed.residual.effect.mean == pytest.approx(-0.03, abs=0.01)
    assert harmed.residual.share_of_margin == pytest.approx(
        harmed.residual.effect.mean / harmed.confirmation.margin.mean
    )
    promoted = discover(attached(-0.03), settings=SETTINGS).residual
    neither = discover(attached(0.0), settings=SETTINGS).residual
    assert promoted is not None
    assert neither is not None
    assert (promoted.direction, neither.direction) == ("promotes", None)
    assert promoted.effect.low > 0
    assert neither.p_confirm is None or neither.p > 0.001


@pytest.mark.long
def test_calibration_a_residual_of_noise_is_seldom_called() -> None:
    called = 0
    for seed in range(60):
        pairs = attached(0.0, seed=seed, prompts=60)
        grouped = group_by_prompt(pairs.rows, pairs.scored).latents
        halves = grouped.take_prompts(np.arange(30)), grouped.take_prompts(np.arange(30, 60))
        found = residual_effect(*halves)
        called += found is not None and found.direction is not None
    # both tests at 5 %, of the same sign: one in 800
    assert called <= 1


def test_what_lies_outside_the_dictionary_is_said(harmed: Discovery) -> None:
    text = " ".join(summary_text(examine(harmed, no_model, Depth())).split())
    assert "The residual, which no latent holds, adds -0.0" in text
    assert "harms (p = " in text
    assert "--penalize residual:tau=q0.95,alpha=0.5sd,form=hinge" in text
    assert "of the excess reward of rejected answers lies outside the dictionary (residual)" in text
    assert harmed.lost is not None
    assert harmed.lost.outside is not None
    assert harmed.lost.outside.mean > 0.3
    values = harmed.as_json()
    assert values["residual"]["direction"] == "harms"
    assert set(values["residual"]["effect"]) >= {"mean", "low", "high"}
    assert values["lost_margin"]["share_of_residual"]["mean"] == harmed.lost.outside.mean


def test_shares_of_the_lost_margin_sum_to_one() -> None:
    pairs = attached(0.05)
    grouped = group_by_prompt(pairs.rows, pairs.scored).latents
    everything = lost_margin(grouped, range(grouped.chosen.shape[1]), sets=2)
    assert everything is not None
    assert everything.outside is not None
    assert everything.carried.mean + everything.outside.mean == pytest.approx(1.0)


def test_of_a_sarm_nothing_is_said() -> None:
    found = discover(scored_rows(make_world(prompts=60)), settings=SETTINGS)
    assert found.residual is None
    assert found.as_json()["residual"] is None
    text = summary_text(examine(found, no_model, Depth()))
    assert "residual" not in text
    with pytest.raises(DataError, match="a SARM has no residual"):
        residual_alone(found.parts.selection.latents)


def test_where_the_residual_makes_the_margin_no_number_of_latents_does() -> None:
    pairs = attached(-2.0)
    grouped = group_by_prompt(pairs.rows, pairs.scored).latents
    found = cumulative_margin(grouped, grouped)
    assert found is not None
    assert found.needed == {0.5: None, 0.9: None}
    assert found.curve[-1][1] < 0.5
    said = summary_text(examine(discover(pairs, settings=SETTINGS), no_model, Depth()))
    assert "of the margin; the rest is residual." in " ".join(said.split())


@pytest.mark.long
def test_metamorphic_an_attached_models_probe_is_that_of_states_under_any_constants() -> None:
    """The dictionary encodes (x - m) / s: other m and s give the same probe, as no z-score of a row would."""
    pairs = attached(0.0)
    scored, states = pairs.scored, pairs.scored.states
    assert states is not None
    rejected = np.concatenate([[0] * len(row.chosen) + [1] * len(row.rejected) for row in pairs.rows])
    # the goal is written in the states' mean alone, which a z-score of each state erases
    known = states + (2.0 * rejected[:, None]).astype(np.float32)
    moved = (known - np.arange(8, dtype=np.float32)) / np.float32(3.0)
    found = []
    for of in (known, moved):
        seen = see(group_by_prompt(pairs.rows, replace(scored, states=of)))
        assert seen is not None
        assert seen.probe is not None
        found.append(seen.probe)
    assert found[0].mean > 0.99
    assert found[1].mean == pytest.approx(found[0].mean, abs=1e-3)


def test_pairs_carry_their_residuals_along(harmed: Discovery) -> None:
    pairs = harmed.parts.confirmation.latents
    few = pairs.take_prompts([3, 1])
    np.testing.assert_allclose(prompt_margins(few), prompt_margins(pairs)[[3, 1]], atol=1e-12)
    np.testing.assert_allclose(prompt_margins(pairs.swap()), -prompt_margins(pairs), atol=1e-12)
    assert (pair_accuracy(pairs) + pair_accuracy(pairs.swap())).max() <= 1.0
    assert pairs.chosen_residual is not None
    np.testing.assert_array_equal(watched_values(pairs, "residual").chosen, pairs.chosen_residual)
    np.testing.assert_array_equal(watched_values(pairs, 3).rejected, pairs.rejected[:, [3]].toarray().ravel())


@pytest.mark.parametrize(
    ("residuals", "message"),
    [
        ({"chosen_residual": [0.0, 1.0]}, "rejected_residual is missing: give the residuals of both sides"),
        (
            {"chosen_residual": [0.0], "rejected_residual": [0.0, 1.0]},
            "chosen_residual wants one finite number for each of the 2 chosen answers",
        ),
        (
            {"chosen_residual": [0.0, 1.0], "rejected_residual": [0.0, np.nan]},
            "rejected_residual wants one finite number",
        ),
    ],
)
def test_residuals_that_do_not_fit_are_refused(residuals: dict[str, list[float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pair_latents(np.ones((2, 3)), np.ones((2, 3)), [0, 1], [0, 1], np.ones(3), **residuals)
