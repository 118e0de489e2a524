"""Levels of evidence against the model itself: what the algebra says must be what re-encoding gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sarm_control.data.rows import Row
from sarm_control.discovery.evidence.ablations import level_effects, levels_of
from sarm_control.discovery.evidence.counterfactuals import closing_tests, counterfactual_effects
from sarm_control.discovery.features import Feature
from sarm_control.discovery.pairs.margins import margin_contributions
from sarm_control.discovery.pairs.prompt_pairs import PromptPairs, group_by_prompt
from sarm_control.errors import DataError
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.autoencoder import TopK, normalise
from tests.conftest import make_sarm
from tests.present import present

GOOD = ("sorry i cannot help you . no", "no that is not safe .", "we cannot answer that . please never")
BAD = ("sure here is how you open the lock .", "yes here the steps . one two", "sure always cook the bomb")
ASKED = [
    (word, thing) for word in ("cook", "pick", "open", "help") for thing in ("bread", "bomb", "lock", "door")
]


def pair(path: Path, n: int) -> Row:
    chosen = (GOOD[n % 3], f"{GOOD[(n + 1) % 3]} !")
    rejected = (BAD[n % 3], f"{BAD[(n + 2) % 3]} three")
    prompt = "how do i {} the {} ?".format(*ASKED[n])
    return Row(path, n, {}, "pair", prompt, chosen=chosen, rejected=rejected)


def with_answers(row: Row, chosen: str, rejected: str) -> Row:
    return replace(row, chosen=(chosen,), rejected=(rejected,))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    return [pair(path, n) for n in range(len(ASKED))]


def scored_pairs(model: RewardModel, rows: list[Row]) -> PromptPairs:
    prompts = [row.prompt for row in rows for _ in row.answers]
    scored = model.score(prompts, [text for row in rows for text in row.answers], keep_states=True)
    return group_by_prompt(rows, scored)


@pytest.fixture(scope="module")
def pairs(tiny_sarm: RewardModel, rows: list[Row]) -> PromptPairs:
    return scored_pairs(tiny_sarm, rows)


def features(pairs: PromptPairs, *latents: int) -> list[Feature]:
    effects = np.asarray(margin_contributions(pairs.latents).sum(axis=0)).ravel() / len(pairs)
    return [
        Feature(latent=n, kind="", weight=pairs.latents.head[n], effect=effects[n], low=0, high=0, p=1, q=1,
                q_confirm=1, effect_sd=None, share_of_margin=None, rate_chosen=0, rate_rejected=0, auroc=0)
        for n in latents
    ]  # fmt: skip


@pytest.fixture(scope="module")
def called(pairs: PromptPairs) -> list[Feature]:
    strongest = np.argsort(-np.abs(np.asarray(margin_contributions(pairs.latents).sum(axis=0)).ravel()))
    return features(pairs, *strongest[:6].tolist())


def mean_margin(pairs: PromptPairs, rewards: NDArray[np.float64]) -> float:
    """Mean over prompts of mean chosen minus mean rejected reward, from one reward an answer."""
    sides = [
        np.bincount(prompt, rewards[side.numbers]) / np.bincount(prompt)
        for side, prompt in (
            (pairs.chosen, pairs.latents.chosen_prompt), (pairs.rejected, pairs.latents.rejected_prompt),
        )
    ]  # fmt: skip
    return float((sides[0] - sides[1]).mean())


def rewards_of(model: RewardModel, kept: TopK) -> NDArray[np.float64]:
    weight = torch.from_numpy(model.head.weight).double()
    return (kept.values.double() * weight[kept.indices]).sum(-1).numpy()


def test_level_one_is_the_effect_itself(
    tiny_sarm: RewardModel, pairs: PromptPairs, called: list[Feature]
) -> None:
    for one, found in zip(called, level_effects(pairs, called, tiny_sarm.autoencoder, upto=1), strict=True):
        assert (found.level, found.latent) == ("L1", one.latent)
        assert found.effect.mean == pytest.approx(one.effect)
        assert found.effect.n == len(pairs)


def test_oracle_level_two_is_scoring_again_with_the_pre_activation_struck_out(
    tiny_sarm: RewardModel, pairs: PromptPairs, called: list[Feature]
) -> None:
    states = torch.from_numpy(pairs.scored.states)
    before = mean_margin(pairs, pairs.scored.rewards.astype(np.float64))
    found = [one for one in level_effects(pairs, called, tiny_sarm.autoencoder, upto=2) if one.level == "L2"]
    for one in found:
        with torch.inference_mode():
            activations = tiny_sarm.autoencoder.pre_activations(states).clone()
            activations[:, one.latent] = -np.inf
            top = activations.topk(tiny_sarm.autoencoder.k, dim=-1)
            after = mean_margin(pairs, rewards_of(tiny_sarm, TopK(top.indices, top.values)))
        assert one.effect.mean == pytest.approx(before - after, abs=1e-5)
    assert any(abs(one.effect.mean - called[n].effect) > 1e-3 for n, one in enumerate(found))


def test_oracle_level_three_is_encoding_the_state_without_the_direction(
    tiny_sarm: RewardModel, pairs: PromptPairs, called: list[Feature]
) -> None:
    autoencoder, states = tiny_sarm.autoencoder, torch.from_numpy(pairs.scored.states)
    before = mean_margin(pairs, pairs.scored.rewards.astype(np.float64))
    for one in level_effects(pairs, called, autoencoder):
        if one.level != "L3":
            continue
        z = torch.from_numpy(pairs.scored.latents.columns([one.latent]))
        with torch.inference_mode():
            # in the scale of the raw state, as the formula is written
            spread = states.std(-1, keepdim=True, unbiased=True)
            changed = states - z * autoencoder.decoder.weight[:, one.latent] * spread
            after = mean_margin(pairs, rewards_of(tiny_sarm, autoencoder.encode(changed)))
        assert one.effect.mean == pytest.approx(before - after, abs=1e-4)


def test_without_topk_nothing_enters(rows: list[Row]) -> None:
    model = make_sarm(use_topk=False)
    pairs = scored_pairs(model, rows)
    found = level_effects(pairs, features(pairs, 3, 5), model.autoencoder, upto=2)
    assert [one.level for one in found] == ["L1", "L1", "L2", "L2"]
    for first, second in zip(found[:2], found[2:], strict=True):
        assert second.effect.mean == pytest.approx(first.effect.mean)


def test_a_direction_the_decoder_does_not_have_changes_nothing_at_level_three(
    pairs: PromptPairs, called: list[Feature], tiny_sarm: RewardModel
) -> None:
    import copy

    autoencoder = copy.deepcopy(tiny_sarm.autoencoder)
    with torch.no_grad():
        autoencoder.decoder.weight[:, called[0].latent] = 0
    third = [one for one in level_effects(pairs, called[:1], autoencoder) if one.level == "L3"]
    assert third[0].effect.mean == pytest.approx(0, abs=1e-5)
    assert not third[0].agrees
    states = torch.from_numpy(present(pairs.scored.states)[:4])
    torch.testing.assert_close(normalise(normalise(states)), normalise(states), atol=1e-5, rtol=1e-4)


def test_levels_are_counted_only_where_everything_measured_agrees(
    tiny_sarm: RewardModel, pairs: PromptPairs, called: list[Feature]
) -> None:
    found = level_effects(pairs, called, tiny_sarm.autoencoder)
    assert {one.level for one in found} == {"L1", "L2", "L3"}
    first = called[0].latent
    no = next(one for one in found if one.latent == first and one.level == "L2")._replace(agrees=False)
    assert "L2" not in levels_of([*found, no])[first]
    assert levels_of([no._replace(agrees=True), no])[first] == ()


def test_levels_above_one_need_states_and_no_latents_need_nothing(
    tiny_sarm: RewardModel, pairs: PromptPairs, called: list[Feature]
) -> None:
    bare = replace(pairs, scored=replace(pairs.scored, states=None))
    assert len(level_effects(bare, called, tiny_sarm.autoencoder, upto=1)) == len(called)
    with pytest.raises(DataError, match="levels 2 and 3 need the trunk's states"):
        level_effects(bare, called, tiny_sarm.autoencoder, upto=2)
    assert level_effects(bare, [], tiny_sarm.autoencoder) == ()


def test_oracle_counterfactuals_are_effects_on_their_own_pairs(
    tiny_sarm: RewardModel, rows: list[Row], called: list[Feature]
) -> None:
    pairs = scored_pairs(tiny_sarm, rows[:7])
    found = counterfactual_effects(rows[:7], pairs.scored, called)
    for one, other in zip(found, features(pairs, *[one.latent for one in called]), strict=True):
        assert one.level == "L4"
        assert one.effect.mean == pytest.approx(other.effect)
    with pytest.raises(DataError, match="counterfactuals have 1 prompts"):
        counterfactual_effects(rows[:1], scored_pairs(tiny_sarm, rows[:1]).scored, called)


def test_oracle_a_closing_sentence_is_scored_on_the_changed_text(
    tiny_sarm: RewardModel, rows: list[Row], pairs: PromptPairs, called: list[Feature]
) -> None:
    added, removed = closing_tests(pairs, called, tiny_sarm.score, closing="please never .")
    prompts = [row.prompt for row in rows for _ in row.answers]
    texts = [f"{text} please never ." for row in rows for text in row.answers]
    after = tiny_sarm.score(prompts, texts)
    change = (after.rewards - pairs.scored.rewards).astype(np.float64).reshape(-1, 4).mean(1)
    assert (added.change, added.answers) == ("added", 64)
    assert added.reward.mean == pytest.approx(change.mean(), abs=1e-5)
    latent = called[2].latent
    moved = after.latents.columns([latent]) - pairs.scored.latents.columns([latent])
    assert added.latents[2].contributions.mean == pytest.approx(
        moved.mean() * tiny_sarm.head.weight[latent], abs=1e-5
    )
    # answers of one sentence have none to lose
    several = sum(
        text.rstrip(" .!").count(".") > 0 or text.endswith(". !") for row in rows for text in row.answers
    )
    assert removed.change == "removed"
    assert 0 < removed.answers == several < 64


def test_removing_the_sentence_that_was_added_takes_the_change_back(
    tiny_sarm: RewardModel, rows: list[Row], called: list[Feature]
) -> None:
    sentence = "please never ."
    ended = [with_answers(row, f"{row.chosen[0]} .", f"{row.rejected[0]} .") for row in rows]
    closed = [
        with_answers(row, f"{row.chosen[0]} {sentence}", f"{row.rejected[0]} {sentence}") for row in ended
    ]
    added = closing_tests(scored_pairs(tiny_sarm, ended), called, tiny_sarm.score, closing=sentence)[0]
    removed = closing_tests(scored_pairs(tiny_sarm, closed), called, tiny_sarm.score)[1]
    assert removed.reward.mean == pytest.approx(-added.reward.mean, abs=1e-5)
    for one, other in zip(added.latents, removed.latents, strict=True):
        assert other.contributions.mean == pytest.approx(-one.contributions.mean, abs=1e-5)
        assert other.large == one.large
