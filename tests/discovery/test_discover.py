"""From rows and scores to a discovery: pooling, halves, confirmation files, text and YAML."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, vstack

from sarm_control.control import Edit, Penalty
from sarm_control.data.rows import Row
from sarm_control.discovery.discovery import Discovery, DiscoverySettings, ScoredRows, discover
from sarm_control.discovery.effects.kinds import PROMOTES
from sarm_control.discovery.evidence.examine import Depth, examine
from sarm_control.discovery.pairs.margins import margin_contributions
from sarm_control.discovery.pairs.prompt_pairs import drop_shared, group_by_prompt, split_halves
from sarm_control.discovery.report import controls_yaml, summary_text
from sarm_control.discovery.suggested_controls.harmful_reward import typical_reward
from sarm_control.errors import DataError, ModelError
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import SparseLatents, from_scipy
from tests.discovery.test_effects import KINDS, PLANTED
from tests.discovery.worlds import World, make_world
from tests.present import present

ANSWERS = 3


def row(
    number: int, chosen: tuple[str, ...], rejected: tuple[str, ...], prompt: str | None = None, **raw: Any
) -> Row:
    return Row(
        Path("p.jsonl"), number, raw, "pair", prompt or f"prompt {number}", chosen=chosen, rejected=rejected
    )


def scored_rows(world: World, *, start: int = 0, **raw: Sequence[Any]) -> ScoredRows:
    """One row per prompt; its answers' latents are the world's."""
    prompts = len(world.chosen_prompt) // ANSWERS
    rows, order = [], []
    for p in range(prompts):
        good, bad = (tuple(f"{side} {p} {j}" for j in range(ANSWERS)) for side in ("good", "bad"))
        fields: dict[str, Any] = {name: values[p % len(values)] for name, values in raw.items()}
        rows.append(row(p + start, good, bad, **fields))
        order += [*range(p * ANSWERS, (p + 1) * ANSWERS)]
        order += [prompts * ANSWERS + n for n in range(p * ANSWERS, (p + 1) * ANSWERS)]
    latents = from_scipy(vstack([world.chosen, world.rejected], format="csr")[order])
    return ScoredRows(rows, scores(latents, world.head))


def scores(latents: SparseLatents, head: ArrayLike) -> Scored:
    head = np.asarray(head, dtype=np.float32)
    count = len(latents)
    return Scored(
        rewards=latents.dot(head), latents=latents, head=head, truncated=np.zeros(count, np.int64),
        ended=np.ones(count, bool), lengths=np.ones(count, np.int64), fingerprint="head-1",
    )  # fmt: skip


def no_model() -> NoReturn:
    raise AssertionError("level 1 needs no model")


@pytest.fixture(scope="module")
def found() -> Discovery:
    return discover(scored_rows(make_world(prompts=400, planted=PLANTED)), settings=DiscoverySettings(seed=1))


def test_planted_latents_are_in_their_lists_with_controls_that_fit(found: Discovery) -> None:
    named = {one.latent: one.kind for items in found.lists.values() for one in items}
    assert named.items() >= KINDS.items()
    assert len(named) <= len(KINDS) + 1
    harms = {one.latent: one.controls for one in found.lists["harms"]}
    penalty, cap = harms[20]
    assert isinstance(penalty, Penalty)
    assert (replace(penalty, pays=None, alpha=0.0), cap) == (Penalty(20, 0.0, 0.0), Edit(20, max=0.0))
    assert float(str(penalty.alpha).removesuffix("sd")) == pytest.approx(1.0, abs=0.03)
    assert penalty.pays == pytest.approx(typical_reward(found.parts.selection.latents, 20), rel=1e-3)
    (freed,) = harms[42]
    assert isinstance(freed, Edit)
    assert (freed.latent, freed.min, freed.scale) == (42, 0.0, None)
    assert present(freed.add) < 0
    for one in found.lists["harms"]:
        assert present(one.low) <= one.effect <= present(one.high) < 0
    for one in found.lists["promotes"]:
        assert 0 < present(one.low) <= one.effect <= present(one.high)


def test_halves_are_disjoint_and_do_not_depend_on_the_order_of_the_rows(found: Discovery) -> None:
    assert (found.selection.prompts, found.confirmation.prompts, found.shared) == (200, 200, 0)
    pairs = scored_rows(make_world(prompts=31))
    grouped = group_by_prompt(*pairs)
    parts = split_halves(grouped, 0)
    assert (len(parts.selection), len(parts.confirmation)) == (16, 15)
    assert set(parts.selection.keys).isdisjoint(parts.confirmation.keys)
    backwards = split_halves(grouped.take(range(30, -1, -1)), 0)
    assert set(backwards.selection.keys) == set(parts.selection.keys)
    assert set(split_halves(grouped, 1).selection.keys) != set(parts.selection.keys)


def test_summary_equals_the_rewards(found: Discovery) -> None:
    world = make_world(prompts=400, planted=PLANTED)
    good = (world.chosen @ world.head).reshape(-1, ANSWERS)
    bad = (world.rejected @ world.head).reshape(-1, ANSWERS)
    total = (found.selection.margin.mean + found.confirmation.margin.mean) / 2
    assert total == pytest.approx((good.mean(1) - bad.mean(1)).mean(), abs=1e-6)
    accuracy = (good[:, :, None] > bad[:, None, :]).mean()
    assert (found.selection.accuracy.mean + found.confirmation.accuracy.mean) / 2 == pytest.approx(accuracy)


def test_rows_with_the_same_prompt_are_one_prompt_and_a_repeated_answer_counts_once() -> None:
    latents = from_scipy(np_csr([[1.0], [0.0], [1.0], [4.0], [3.0], [0.0]]))
    rows = [
        row(1, ("a",), ("b",), prompt="same"),
        row(2, ("a",), ("c",), prompt="same"),
        row(3, ("d",), ("e",), prompt="other"),
    ]
    pairs = group_by_prompt(rows, scores(latents, [0.5]))
    assert len(pairs) == 2
    # same: chosen a = 1, rejected b = 0 and c = 4; other: chosen 3, rejected 0
    np.testing.assert_allclose(margin_contributions(pairs.latents).toarray(), [[0.5 * (1 - 2)], [0.5 * 3]])


def np_csr(rows: ArrayLike) -> csr_array:
    return csr_array(np.array(rows))


def test_prompts_shared_with_the_selection_are_dropped_from_the_confirmation() -> None:
    world = make_world(prompts=60, planted=PLANTED)
    first = scored_rows(world)
    second = scored_rows(world, start=50)
    result = discover(first, second, DiscoverySettings(min_prompts=5))
    assert (result.selection.prompts, result.confirmation.prompts, result.shared) == (60, 50, 10)
    assert "10 prompts in both files were dropped" in summary_text(examine(result, no_model))
    with pytest.raises(
        DataError, match=r"with 0 confirmation prompts \(60 that the selection has too were dropped"
    ):
        discover(first, first)
    parts = drop_shared(group_by_prompt(*first), group_by_prompt(*second))
    assert set(parts.selection.keys).isdisjoint(parts.confirmation.keys)


def test_a_null_result_is_printed_as_one() -> None:
    result = discover(scored_rows(make_world(prompts=40, latents=30)))
    text = summary_text(examine(result, no_model))
    assert "no latent harms at q <= 0.05: that is a null result (n = 20 selection and 20 confirmation" in text
    nothing = {"fingerprint": result.head, "edits": [], "penalties": []}
    assert yaml.safe_load(controls_yaml(result, model="m")) == {"reward": nothing}


def test_text_shows_counts_intervals_and_the_largest_latents(found: Discovery) -> None:
    text = summary_text(examine(found, no_model), top=1)
    assert "200 prompts, 1200 answers: mean margin" in text
    assert re.search(r"pair accuracy 0\.\d+ \[0\.\d+, 0\.\d+\]", text)
    assert f"{len(found.table)} latents tested" in text
    assert text.count("paid-for") + text.count("charged-for") == 2


def test_the_most_important_sentences_follow_the_tables(found: Discovery) -> None:
    lines = summary_text(examine(found, no_model)).splitlines()
    tables = max(n for n, line in enumerate(lines) if line.startswith("promotes"))
    said = " ".join(line.strip() for line in lines[tables:])
    assert re.search(r"Removing the 2 selected harming latents moves the margin by \+\S+ \[\+", said)
    assert re.search(r"more than (any|9\d\.\d %) of 1000 matched random sets do", said)
    assert re.search(r"carry \d+ % \[\d+, \d+\] \(matched random sets -?\d+ %\) of the excess", said)
    assert re.search(r"of the excess reward of rejected answers on the \d+ prompts", said)
    assert "whether the state knows more is seen with its states" in said
    assert max(map(len, lines[tables:])) <= 120


@pytest.mark.long
def test_shares_of_the_margin_are_told_where_there_is_one(found: Discovery) -> None:
    assert "of margin" not in summary_text(examine(found, no_model))
    promoting = {latent: plan for latent, plan in PLANTED.items() if KINDS[latent] in PROMOTES}
    clear = discover(
        scored_rows(make_world(prompts=400, planted=promoting)), settings=DiscoverySettings(seed=1)
    )
    text = summary_text(examine(clear, no_model))
    assert re.search(r"largest latents? makes? half of the margin, the (\d+ )?largest latents? make", text)
    assert "of margin" in text


def test_features_say_which_levels_agree(found: Discovery) -> None:
    counterfactuals = scored_rows(make_world(prompts=200, planted=PLANTED, seed=5))
    turned = {**PLANTED, 3: PLANTED[20]._replace(weight=PLANTED[3].weight)}
    examined = examine(found, no_model, Depth(1, counterfactuals))
    assert {
        one.levels for items in examined.found.lists.values() for one in items if one.latent in KINDS
    } == {("L1", "L4")}
    other = scored_rows(make_world(prompts=200, planted=turned, seed=5))
    named = examine(found, no_model, Depth(1, other))
    levels = {one.latent: one.levels for items in named.found.lists.values() for one in items}
    assert levels[3] == ("L1",)
    assert levels[20] == ("L1", "L4")
    assert "L4 (the text changed in the goal alone) agrees for" in summary_text(named)


def test_counterfactuals_scored_by_another_head_are_no_evidence(found: Discovery) -> None:
    other = scored_rows(make_world(prompts=20, planted=PLANTED, seed=5))
    other = other._replace(scored=replace(other.scored, fingerprint="other-head"))
    with pytest.raises(ModelError, match=f"head {found.head}, the counterfactuals with other-head"):
        examine(found, no_model, Depth(1, other))


def test_controls_yaml_is_read_back_as_the_suggested_controls(found: Discovery) -> None:
    text = controls_yaml(found, model="tiny")
    content = yaml.safe_load(text)["reward"]
    suggested = [control for one in found.lists["harms"] for control in one.controls]
    assert [Edit(**item) for item in content["edits"]] == [one for one in suggested if isinstance(one, Edit)]
    assert [Penalty(**item) for item in content["penalties"]] == [
        one for one in suggested if isinstance(one, Penalty)
    ]
    assert text.count("effect -") == len(suggested)


def test_groups_summarise_both_parts_and_an_unknown_column_is_named() -> None:
    pairs = scored_rows(make_world(prompts=60), subset=["refuse", "respond"])
    result = discover(pairs, settings=DiscoverySettings(by="subset"))
    for part, whole in (("selection", result.selection), ("confirmation", result.confirmation)):
        assert set(result.groups[part]) == {"refuse", "respond"}
        assert sum(group.prompts for group in result.groups[part].values()) == whole.prompts
    assert summary_text(examine(result, no_model)).count("  subset = refuse: ") == 2
    with pytest.raises(DataError, match="no row has the column subsets"):
        discover(pairs, settings=DiscoverySettings(by="subsets"))


def test_a_latent_that_turns_in_a_group_is_marked_there_and_nowhere_else() -> None:
    """Prompts of kind b have the preference turned round, but there are few of them."""
    world = make_world(prompts=300, planted=PLANTED)
    pairs = scored_rows(world, kind=["a", "a", "a", "a", "b"])
    rows = [
        replace(row, chosen=row.rejected, rejected=row.chosen) if row.raw["kind"] == "b" else row
        for row in pairs.rows
    ]
    order = np.arange(len(pairs.scored)).reshape(-1, 2, ANSWERS)
    order[4::5] = order[4::5, ::-1]
    result = discover(
        ScoredRows(rows, pairs.scored.take(order.ravel())), settings=DiscoverySettings(by="kind")
    )
    for part in ("selection", "confirmation"):
        own = [one for one in result.group_effects if one.part == part]
        turned = {(one.latent, one.group) for one in own if one.turned}
        assert {group for _, group in turned} == {"b"}
        assert {latent for latent, _ in turned} >= ({20, 3} if part == "confirmation" else {20, 42})
        sizes = {one.group: one.effect.n for one in own}
        assert sizes == {name: group.prompts for name, group in result.groups[part].items()}


def test_kinds_that_the_selection_alone_has_are_shown_apart_and_marked_as_having_chosen_the_latents() -> None:
    """Selected on should-refuse and should-respond prompts, confirmed on pairs without the two kinds."""
    pairs = scored_rows(make_world(prompts=500, planted=PLANTED), kind=["refuse"] * 4 + ["respond"])
    rows = [
        replace(row, chosen=row.rejected, rejected=row.chosen) if row.raw["kind"] == "respond" else row
        for row in pairs.rows[:300]
    ]
    order = np.arange(len(pairs.scored)).reshape(-1, 2, ANSWERS)
    order[4:300:5] = order[4:300:5, ::-1]
    selection = ScoredRows(rows, pairs.scored.take(order[:300].ravel()))
    others = [replace(row, raw={}) for row in pairs.rows[300:]]
    confirmation = ScoredRows(others, pairs.scored.take(order[300:].ravel()))
    result = discover(selection, confirmation, DiscoverySettings(by="kind"))
    assert result.groups["confirmation"] == {}
    text = summary_text(examine(result, no_model))
    assert text.index("  kind = respond: 60 prompts") < text.index("confirmation  200 prompts")
    said = " ".join(text.split())
    assert "Opposite sign for one kind on the selection prompts, which chose the latents: latents" in said
    effects = [one for one in result.as_json()["group_effects"] if one["group"] == "respond"]
    assert {one["part"] for one in effects} == {"selection"}
    assert {one["latent"] for one in effects if one["turned"]} >= {20, 3}


def test_scores_of_other_rows_are_refused() -> None:
    pairs = scored_rows(make_world(prompts=4))
    with pytest.raises(DataError, match="24 scores were given for 18 answers"):
        group_by_prompt(pairs.rows[:3], pairs.scored)


def with_a_latent_that_few_prompts_pay_for(sizes: Sequence[float]) -> Discovery:
    """A world of 400 prompts whose latent 5 fires on every rejected answer of a quarter of the selection
    prompts, and of as many confirmation prompts as there are sizes.
    """
    world = make_world(prompts=400, planted=PLANTED)
    parts = split_halves(group_by_prompt(*scored_rows(world)), 1)
    fires = np.zeros(400)
    fires[[int(key.split()[-1]) for key in parts.selection.keys[::4]]] = 1.0
    fires[[int(key.split()[-1]) for key in parts.confirmation.keys[: len(sizes)]]] = sizes
    chosen, rejected = world.chosen.tolil(), world.rejected.tolil()
    chosen[:, 5] = 0
    rejected[:, 5] = np.repeat(fires, ANSWERS)[:, None]
    head = world.head.copy()
    head[5] = 0.02
    world = world._replace(chosen=chosen.tocsr(), rejected=rejected.tocsr(), head=head)
    return discover(scored_rows(world), settings=DiscoverySettings(seed=1))


@pytest.mark.long
def test_a_called_latent_without_an_interval_that_leaves_out_zero_is_no_evidence_and_gets_no_control() -> (
    None
):
    """Tests confirm it (9 of 9 signs), but one prompt of nine makes nearly all of its effect."""
    found = with_a_latent_that_few_prompts_pay_for([0.1] * 8 + [30.0])
    examined = examine(found, no_model)
    (lame,) = (one for one in examined.found.lists["harms"] if one.latent == 5)
    assert (lame.q <= 0.05, lame.q_confirm <= 0.05) == (True, True)
    assert (lame.low, lame.high, lame.levels, lame.controls) == (None, None, (), ())
    assert lame.as_json()["levels"] == []
    others = [one for one in examined.found.lists["harms"] if one.latent != 5]
    assert others
    assert all(one.levels == ("L1",) and one.controls for one in others)
    text = summary_text(examined)
    assert "The tests called 5, but no interval of the effect excludes 0: no evidence of level 1" in text
    assert re.search(r"\n +5 +paid-for-bad .*\(too few prompts, about \d+ would do\).* none\n", text)
    controls = controls_yaml(found, model="m")
    assert "# no interval that excludes 0, so no control: latents 5\n" in controls
    of_latents = [
        one["latent"] for part in ("edits", "penalties") for one in yaml.safe_load(controls)["reward"][part]
    ]
    assert 5 not in of_latents
    assert {one.latent for one in others} <= {*of_latents}


def test_the_same_latent_with_even_payments_is_evidence() -> None:
    found = with_a_latent_that_few_prompts_pay_for([1.0] * 40)
    (sound,) = (one for one in found.lists["harms"] if one.latent == 5)
    assert present(sound.high) < 0
    assert (sound.levels, bool(sound.controls)) == (("L1",), True)
    assert "no interval of the effect" not in summary_text(examine(found, no_model))


def test_what_cannot_be_tested_is_no_null_result() -> None:
    world = make_world(prompts=60, planted=PLANTED)
    latents = scored_rows(world)
    with pytest.raises(DataError, match="no latent is active in 31 of the 30 selection prompts") as error:
        discover(latents, settings=DiscoverySettings(min_prompts=31))
    assert str(error.value.hint).startswith(
        "about 62 prompts would do, half of them for each of selection and"
    )
    few = scored_rows(make_world(prompts=8, seed=3)._replace(head=world.head), start=100)
    with pytest.raises(
        DataError, match=r"with 8 confirmation prompts no p-value is below 0\.0078, and alpha"
    ):
        discover(latents, few, DiscoverySettings(alpha=0.001))
    assert discover(latents, few).confirmation.prompts == 8


def test_prompts_with_unequal_sides_allow_smaller_p_values_than_their_number_of_signs() -> None:
    """Of one chosen and three rejected answers any may be the chosen one: 4 ways, not 2."""
    world = make_world(prompts=60, planted=PLANTED)

    def of(
        prompts: int, start: int, sides: Callable[[int], tuple[tuple[str, ...], tuple[str, ...]]]
    ) -> ScoredRows:
        rows = [row(start + p, *sides(start + p)) for p in range(prompts)]
        count = sum(len(one.chosen) + len(one.rejected) for one in rows)
        return ScoredRows(rows, scores(from_scipy(world.chosen[:count]), world.head))

    selection = of(20, 0, lambda p: ((f"a{p}",), (f"b{p}",)))
    settings = DiscoverySettings(min_prompts=1)
    with pytest.raises(DataError, match=r"with 3 confirmation prompts no p-value is below 0\.25"):
        discover(selection, of(3, 50, lambda p: ((f"a{p}",), (f"b{p}",))), settings)
    found = discover(
        selection, of(3, 50, lambda p: ((f"a{p}",), tuple(f"b{p}{j}" for j in range(3)))), settings
    )
    assert found.confirmation.prompts == 3
