"""Planted effects, calibration on permuted labels, and what a swap of the labels must do."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_array

from sarm_control.discovery.effects.effects import (
    enough_draws,
    latents_to_test,
    margin_effects,
    replicated_effects,
)
from sarm_control.discovery.effects.kinds import HARMS, PROMOTES, direction, name_kinds, name_replicated
from sarm_control.discovery.pairs.margins import PairLatents, pair_latents
from sarm_control.errors import ConfigError, DataError
from sarm_control.statistics.multiplicity import benjamini_hochberg
from sarm_control.statistics.sign_flips import hoeffding_bound, sign_flip_test
from tests.discovery.worlds import Planted, World, make_world

PLANTED = {
    3: Planted(0.02, 0.5, 0.2),  # w > 0, fires on chosen
    11: Planted(-0.02, 0.1, 0.4),  # w < 0, fires on rejected: it protects
    20: Planted(0.02, 0.05, 0.3),  # w > 0, fires on rejected
    42: Planted(-0.02, 0.45, 0.1),  # w < 0, fires on chosen
}
KINDS = {3: "paid-for-good", 11: "charged-for-bad", 20: "paid-for-bad", 42: "charged-for-good"}


def halves(world: World) -> tuple[PairLatents, PairLatents]:
    pairs = pair_latents(*world)
    middle = pairs.prompts // 2
    return pairs.take_prompts(range(middle)), pairs.take_prompts(range(middle, pairs.prompts))


def permuted(world: World, seed: int) -> World:
    """The same answers with the preference of each prompt decided by a coin."""
    pairs = pair_latents(*world)
    turned = np.flatnonzero(np.random.default_rng(seed).random(pairs.prompts) < 0.5)
    good, bad = np.isin(pairs.chosen_prompt, turned), np.isin(pairs.rejected_prompt, turned)
    chosen = np.vstack([world.chosen.toarray()[~good], world.rejected.toarray()[bad]])
    rejected = np.vstack([world.rejected.toarray()[~bad], world.chosen.toarray()[good]])
    chosen_prompt = np.concatenate([pairs.chosen_prompt[~good], pairs.rejected_prompt[bad]])
    rejected_prompt = np.concatenate([pairs.rejected_prompt[~bad], pairs.chosen_prompt[good]])
    return world._replace(
        chosen=csr_array(chosen),
        rejected=csr_array(rejected),
        chosen_prompt=chosen_prompt,
        rejected_prompt=rejected_prompt,
    )


def test_planted_latents_are_found_and_named_on_prompts_not_used_to_select() -> None:
    table = replicated_effects(*halves(make_world(prompts=400, planted=PLANTED)))
    kinds = dict(zip(table["latent"].tolist(), table["kind"].tolist(), strict=True))
    assert {latent: kinds[latent] for latent in KINDS} == KINDS
    others = [kind for latent, kind in kinds.items() if latent not in KINDS]
    assert sum(direction(kind) is not None for kind in others) <= 1


def test_a_negative_weight_that_fires_on_rejected_answers_promotes() -> None:
    """Removing it pays rejected answers more: the sign of the weight alone says nothing."""
    world = make_world(prompts=300, planted=PLANTED)
    table = margin_effects(*world)
    row = next(row for row in table.rows() if row["latent"] == 11)
    assert row["weight"] < 0 < row["low"] <= row["effect"] <= row["high"]
    assert direction(row["kind"]) == "promotes"
    assert row["auroc"] < 0.5
    removed = world.head.copy()
    removed[11] = 0
    rise = world.rejected @ removed - world.rejected @ world.head
    assert rise.mean() > 5 * (world.chosen @ removed - world.chosen @ world.head).mean() / 4 > 0


def test_metamorphic_swapping_the_labels_flips_every_effect_and_keeps_every_p() -> None:
    world = make_world(planted=PLANTED)
    swapped = world._replace(
        chosen=world.rejected,
        rejected=world.chosen,
        chosen_prompt=world.rejected_prompt,
        rejected_prompt=world.chosen_prompt,
    )
    table, turned = margin_effects(*world), margin_effects(*swapped)
    np.testing.assert_array_equal(turned["latent"], table["latent"])
    np.testing.assert_allclose(turned["effect"], -table["effect"], atol=1e-15)
    np.testing.assert_array_equal(turned["p"], table["p"])
    np.testing.assert_allclose(turned["auroc"], 1 - table["auroc"])
    np.testing.assert_allclose(turned["low"], -table["high"], atol=0.1 * np.abs(table["effect"]).max())
    opposite = dict(zip(PROMOTES + HARMS, HARMS + PROMOTES, strict=True))
    opposite["not significant"] = "not significant"
    assert turned["kind"].tolist() == [opposite[kind] for kind in table["kind"]]


def test_metamorphic_scaling_the_head_scales_the_effects_only() -> None:
    world = make_world(planted=PLANTED)
    table, doubled = margin_effects(*world), margin_effects(*world._replace(head=2 * world.head))
    np.testing.assert_allclose(doubled["effect"], 2 * table["effect"])
    for name in ("p", "q", "effect_sd", "share_of_margin", "d_z", "auroc"):
        np.testing.assert_allclose(doubled[name], table[name], rtol=1e-9)
    np.testing.assert_array_equal(doubled["kind"], table["kind"])


@pytest.mark.long
def test_calibration_permuted_labels_give_few_discoveries() -> None:
    world = make_world(prompts=80, latents=60, planted=PLANTED)
    runs = [margin_effects(*permuted(world, seed))["q"] <= 0.05 for seed in range(40)]
    assert np.mean([found.any() for found in runs]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)
    assert np.mean([found.mean() for found in runs]) <= 0.05


@pytest.mark.long
def test_calibration_permuted_labels_are_not_confirmed_either() -> None:
    world = make_world(prompts=120, latents=60, planted=PLANTED)
    named = 0
    for seed in range(20):
        kinds = replicated_effects(*halves(permuted(world, seed)))["kind"]
        named += sum(direction(kind) is not None for kind in kinds)
    assert named <= 1


def test_bars_planted_latents_are_recalled_and_halves_agree_in_sign() -> None:
    """benchmarks/discovery.py prints the same on larger worlds."""
    recalled, agreed = [], []
    for seed in range(4):
        first, second = halves(make_world(prompts=400, planted=PLANTED, seed=seed))
        table = replicated_effects(first, second, seed=seed)
        rows = {row["latent"]: row for row in table.rows()}
        assert all(abs(rows[latent]["d_z"]) >= 0.2 for latent in PLANTED)
        recalled += [rows[latent]["kind"] == kind for latent, kind in KINDS.items()]
        agreed += [rows[latent]["effect"] * rows[latent]["selection_effect"] > 0 for latent in PLANTED]
    assert np.mean(recalled) >= 0.9
    assert np.mean(agreed) >= 0.9


def test_effects_sum_to_the_margin_when_every_latent_is_tested() -> None:
    world = make_world(planted=PLANTED)
    table = margin_effects(*world, min_prompts=1)
    assert table["effect"].sum() == pytest.approx(
        (world.chosen @ world.head - world.rejected @ world.head).mean()
    )
    assert table["share_of_margin"].sum() == pytest.approx(1)


def test_the_filter_does_not_see_the_labels() -> None:
    world = make_world(prompts=40, latents=200)
    pairs = pair_latents(*world)
    kept = latents_to_test(pairs, 20)
    assert 0 < len(kept) < 200
    np.testing.assert_array_equal(latents_to_test(pairs.swap(), 20), kept)
    np.testing.assert_array_equal(latents_to_test(pair_latents(*permuted(world, 0)), 20), kept)


def test_names_cover_the_two_by_two_and_need_significance_and_replication() -> None:
    weight = np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    effect = np.array([1.0, 1.0, -1.0, -1.0, 0.0])
    yes = np.ones(5, dtype=bool)
    assert name_kinds(weight, effect, yes).tolist() == [*PROMOTES, *HARMS, "not significant"]
    assert set(name_kinds(weight, effect, ~yes)) == {"not significant"}
    turned = name_replicated(weight, -effect, effect, yes, yes)
    assert turned.tolist() == ["not replicated"] * 4 + ["not significant"]
    assert name_replicated(weight, effect, effect, yes, ~yes)[0] == "not replicated"


def test_the_table_reads_as_rows_arrow_and_parquet(tmp_path: Path) -> None:
    table = replicated_effects(*halves(make_world(prompts=60, planted=PLANTED)))
    rows = list(table.rows())
    assert len(rows) == len(table)
    assert {type(row["latent"]) for row in rows} == {int}
    unselected = next(row for row in rows if row["q"] > 0.05)
    assert unselected["q_confirm"] is None
    table.write_parquet(tmp_path / "effects.parquet")
    assert pq.read_table(tmp_path / "effects.parquet").to_pylist() == rows
    assert pa.table(table).num_rows == len(rows)
    assert [path.name for path in tmp_path.iterdir()] == ["effects.parquet"]


def test_the_same_seed_gives_the_same_table() -> None:
    parts = halves(make_world(prompts=60, planted=PLANTED))
    first, again = (replicated_effects(*parts, seed=4) for _ in range(2))
    assert list(first.rows()) == list(again.rows())


@pytest.mark.parametrize(("tests", "prompts"), [(400, 800), (8_352, 10_000), (65_536, 400), (65_536, 1_500)])
def test_one_borderline_latent_among_all_tested_can_be_selected(tests: int, prompts: int) -> None:
    draws = enough_draws(tests, 0.05, prompts)
    assert tests / (draws + 1) <= 0.05
    assert draws * prompts <= 4_000_000_000


def test_oracle_one_latent_among_twenty_thousand_is_selected_by_its_own_p() -> None:
    """T = 6: the normal law gives p = 2e-9, the Hoeffding bound is too large to stand in for draws."""
    column = np.random.default_rng(0).normal(size=(400, 1))
    column += 6 / np.sqrt(400) * column.std() - column.mean()
    p = sign_flip_test(column, draws=enough_draws(20_000, 0.05, 400))
    assert hoeffding_bound(column)[0] > 1e-8
    assert benjamini_hochberg(np.concatenate([p, np.ones(19_999)]))[0] <= 0.05


def test_draws_stay_affordable_where_prompts_are_many() -> None:
    assert enough_draws(65_536, 0.05, 10_000) == 400_000
    assert enough_draws(3, 0.05, 10**9) == 10_000


def test_no_testable_latent_gives_an_empty_table() -> None:
    table = margin_effects(*make_world(prompts=5), min_prompts=10)
    assert len(table) == 0
    assert {"latent", "effect", "low", "high", "p", "q", "kind"} <= set(table.names)


def test_bad_input_is_named() -> None:
    first, second = halves(make_world(prompts=12))
    for alpha in (0, 1.5):
        with pytest.raises(ConfigError, match=rf"alpha is {alpha}, wants a rate between 0 and 1"):
            replicated_effects(first, second, alpha=alpha)
        with pytest.raises(ConfigError, match=rf"alpha is {alpha}, wants a rate between 0 and 1"):
            margin_effects(*make_world(prompts=12), alpha=alpha)
    with pytest.raises(DataError, match="the data has 1 prompts, wants at least 2") as raised:
        margin_effects(*make_world(prompts=1))
    assert "every distinct prompt counts once" in str(raised.value.hint)
    world = make_world(prompts=2, answers=1)
    unsorted: Any = [None, "a"]
    with pytest.raises(DataError, match="labels of the prompts cannot be sorted"):
        margin_effects(world.chosen, world.rejected, unsorted, unsorted, world.head)
    with pytest.raises(ConfigError, match="min_prompts is 0"):
        replicated_effects(first, second, min_prompts=0)
    with pytest.raises(DataError, match="confirmation part has 1 prompts, wants at least 2"):
        replicated_effects(first, second.take_prompts([0]))
    other = pair_latents(*make_world(prompts=12, seed=1))
    with pytest.raises(DataError, match="different heads"):
        replicated_effects(first, other)
