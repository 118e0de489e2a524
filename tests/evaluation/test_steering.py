"""Steering: oracle by hand and one edit at a time, and what is said when there is no comparison."""

from dataclasses import replace

import numpy as np
import pytest

from sarm_control.control import Edit, edit_delta
from sarm_control.evaluation.answer_places import answer_table
from sarm_control.evaluation.benchmarks.matched_edits import among_matched_edits, margin_weights
from sarm_control.evaluation.benchmarks.rm_bench import rm_bench
from sarm_control.evaluation.benchmarks.steering import steering
from sarm_control.evaluation.benchmarks.text import edits_text
from sarm_control.evaluation.probing.probe import prompt_margins
from sarm_control.latents.rows import ScoredRows
from sarm_control.statistics.matched_sets import matched_random_sets
from tests.evaluation.benchmark_rows import parsed, rm_bench_rows
from tests.evaluation.scored_pairs import make_row, make_scored
from tests.present import present

ROWS = parsed(rm_bench_rows(domains=("chat", "safety-refuse")))
BENCHMARK = rm_bench(ROWS)
OWN = len(BENCHMARK.unit_of_answer)
SAFETY = BENCHMARK.units_of(["safety"])
EDITS = [Edit(2, set=0.0), Edit(5, scale=0.5, max=1.0)]


def sparse(seed: int, answers: int, latents: int = 40) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.where(generator.random((answers, latents)) < 0.4, generator.normal(1, 1, (answers, latents)), 0)


def scored_rows(seed: int = 0) -> ScoredRows:
    head = np.random.default_rng(seed + 100).normal(size=40)
    return ScoredRows(ROWS, make_scored(sparse(seed, OWN), head))


def test_oracle_target_and_complement_by_hand() -> None:
    z = np.zeros((OWN, 3))
    inside = SAFETY[BENCHMARK.unit_of_answer]
    z[inside, 0], z[~inside, 0] = 2.0, 0.5
    z[:, 1] = np.arange(OWN)
    found = steering(ScoredRows(ROWS, make_scored(z, [3.0, 1.0, 0.0])), BENCHMARK, SAFETY, [Edit(0, set=0.0)])
    groups = {group.name: group for group in found.groups}
    assert list(groups) == [
        f"{place}{role}" for place in ("target", "complement") for role in ("", ", chosen", ", rejected")
    ]
    assert groups["target"].change.mean == pytest.approx(-6.0)
    assert groups["complement, rejected"].change.mean == pytest.approx(-1.5)
    assert found.selectivity is not None
    assert found.selectivity.mean == pytest.approx(4.0)
    assert not found.selectivity.given
    assert found.as_json()["selectivity"] == pytest.approx(4.0)
    assert found.as_json()["selectivity_interval"] == found.selectivity.as_json()
    # every prompt of the target moves by 6: how far others would move is not to be told
    assert "selectivity 4.00 (no interval: all 6 prompts are alike): |change of the target|" in edits_text(
        [], found, [Edit(0, set=0.0)]
    )
    assert groups["target"].answers == inside.sum()
    assert groups["target"].change_sd == pytest.approx(-6.0 / (z @ [3, 1, 0]).std(ddof=1))


def test_oracle_shares_and_means_of_a_group_by_hand() -> None:
    """Two prompts of six answers; the edit changes two of the first and one of the second."""
    target = np.zeros(len(SAFETY), dtype=bool)
    target[:2] = True
    units = np.flatnonzero(target[BENCHMARK.unit_of_answer])
    z = np.zeros((OWN, 2))
    z[units[:2], 0], z[units[6], 0] = 1.0, 3.0
    # active, and left as it is
    z[units[7], 0] = 0.5
    z[:, 1] = np.arange(OWN) % 5
    scored = make_scored(z, [1.0, 1.0])
    data = ScoredRows(ROWS, scored)
    edits = [Edit(0, max=0.5)]
    steered = steering(data, BENCHMARK, target, edits)
    groups = {group.name: group for group in steered.groups}
    found = groups["target"]
    before = scored.rewards.astype(float)[units]
    delta = np.minimum(z[units, 0], 0.5) - z[units, 0]
    assert (found.answers, found.active, found.changed) == (12, 4 / 12, 3 / 12)
    assert found.before == pytest.approx(before.mean())
    assert found.after == pytest.approx((before + delta).mean())
    assert found.change.mean == pytest.approx(delta.mean()) == pytest.approx((-0.5 - 0.5 - 2.5) / 12)
    assert found.change.n == 2
    assert found.change_sd == pytest.approx(delta.mean() / scored.rewards.astype(float).std(ddof=1))
    rest = groups["complement"]
    assert (rest.answers, rest.active, rest.changed, rest.change.mean) == (OWN - 12, 0.0, 0.0, 0.0)
    content = steered.as_json()
    assert (steered.selectivity, content["selectivity"], content["selectivity_interval"]) == (
        None,
        None,
        None,
    )
    assert "no selectivity: the complement does not move" in edits_text([], steered, edits)


def test_oracle_chosen_and_rejected_answers_stand_apart_and_a_rise_is_a_change_too() -> None:
    """The edits take 2 from every chosen answer and give 3 to every rejected one."""
    chosen = answer_table(ROWS, OWN).role == "chosen"
    z = np.zeros((OWN, 3))
    z[chosen, 0], z[~chosen, 1], z[::5, 2] = 2.0, 3.0, 1.0
    data = ScoredRows(ROWS, make_scored(z, [1.0, -1.0, 1.0]))
    found = steering(data, BENCHMARK, SAFETY, [Edit(0, set=0.0), Edit(1, set=0.0)])
    told = {group.name: (group.answers, group.change.mean) for group in found.groups}
    for place in ("target", "complement"):
        assert told[place] == pytest.approx((36, 0.5))
        assert told[f"{place}, chosen"] == pytest.approx((18, -2.0))
        assert told[f"{place}, rejected"] == pytest.approx((18, 3.0))
    assert {(group.active, group.changed) for group in found.groups} == {(1.0, 1.0)}
    assert present(found.selectivity).mean == pytest.approx(1.0)
    # all but one of the latents are edited: two others would be needed
    assert found.unmatched == "1 other latents fire, 2 are to be matched"


def test_rewards_without_spread_have_no_change_in_sds() -> None:
    z = np.zeros((OWN, 2))
    z[:, 0] = 1.0
    found = steering(ScoredRows(ROWS, make_scored(z, [1.0, 1.0])), BENCHMARK, SAFETY, [Edit(0, set=0.0)])
    assert [group.change_sd for group in found.groups] == [None] * 6
    assert {group.changed for group in found.groups} == {1.0}


def test_the_random_sets_of_no_seed_are_those_of_seed_0() -> None:
    data = scored_rows()
    for compared in (
        among_matched_edits(data, BENCHMARK, SAFETY, EDITS, sets=100),
        steering(data, BENCHMARK, SAFETY, EDITS, sets=100).matched,
    ):
        assert compared == among_matched_edits(data, BENCHMARK, SAFETY, EDITS, sets=100, seed=0)
        assert compared != among_matched_edits(data, BENCHMARK, SAFETY, EDITS, sets=100, seed=-1)


def test_oracle_the_place_by_accuracy_is_that_of_each_set_alone() -> None:
    data = scored_rows()
    scored = data.scored
    found = among_matched_edits(data, BENCHMARK, SAFETY, EDITS, sets=40, seed=3)["accuracy"]
    rate = (scored.latents.to_scipy() != 0).sum(axis=0) / OWN
    random = matched_random_sets([2, 5], rate, np.abs(scored.head), sets=40, seed=3)

    def change(edits: list[Edit]) -> float:
        plain = scored.rewards.astype(float)
        figures = [
            BENCHMARK.credit(one)[SAFETY, 0].mean() for one in (plain, plain + edit_delta(scored, edits))
        ]
        return float(figures[1] - figures[0])

    others = [
        change([replace(e, latent=int(i)) for e, i in zip(EDITS, row, strict=True)]) for row in random.latents
    ]
    assert (found.mean, found.sd) == pytest.approx((np.mean(others), np.std(others)), abs=1e-9)
    assert found.percentile == pytest.approx(100 * np.mean(np.array(others) < change(EDITS) - 1e-12))


def test_oracle_margin_weights_leave_out_prompts_without_both_sides() -> None:
    table = answer_table(ROWS, OWN)
    inside = np.zeros(OWN, dtype=bool)
    first = np.flatnonzero(table.prompt == table.prompt[0])
    chosen, rejected = (first[table.role[first] == role] for role in ("chosen", "rejected"))
    inside[chosen[:2]] = inside[rejected] = True
    # of a second prompt only rejected answers, and of a third only chosen ones
    for prompt, role in ((1, "rejected"), (2, "chosen")):
        inside |= (table.prompt == np.unique(table.prompt)[prompt]) & (table.role == role)
    expected = np.zeros(OWN)
    expected[chosen[:2]], expected[rejected] = 1 / 2, -1 / 3
    np.testing.assert_allclose(margin_weights(table, OWN, inside), expected)
    assert not margin_weights(table, OWN, np.zeros(OWN, dtype=bool)).any()


def test_oracle_margin_weights_of_prompts_with_one_answer_on_a_side() -> None:
    rows = [
        make_row(prompt="a", chosen="x", rejected="y"),
        make_row(prompt="b", chosen="x", rejected=["y", "z"]),
        make_row(prompt="c", chosen=["x", "y"], rejected="z"),
        make_row(prompt="d", chosen="x", rejected="y"),
    ]
    expected = np.array([1, -1, 1, -1 / 2, -1 / 2, 1 / 2, 1 / 2, -1]) / 3
    # of the first eight answers: those of the last row are not the benchmark's
    np.testing.assert_allclose(margin_weights(answer_table(rows, 10), 8, np.ones(8, dtype=bool)), expected)


def test_an_edit_that_is_like_every_other_ranks_above_none() -> None:
    """All latents are the same, so that whichever are edited the rewards change alike."""
    z = np.repeat(sparse(6, OWN, latents=1), 12, axis=1)
    data = ScoredRows(ROWS, make_scored(z, np.full(12, 0.3)))
    found = among_matched_edits(data, BENCHMARK, SAFETY, [Edit(3, set=0.0), Edit(4, max=0.5)], sets=30)
    for among in found.values():
        assert (among.percentile, among.sets) == (0.0, 30)
        assert among.sd == pytest.approx(0.0, abs=1e-12)
    assert found["margin"].mean != 0


def test_a_ratio_to_a_change_that_may_be_nothing_is_not_quoted() -> None:
    z = np.zeros((OWN, 3))
    inside = SAFETY[BENCHMARK.unit_of_answer]
    outside = np.arange(int((~inside).sum()))
    z[inside, 0] = 2.0 + np.arange(int(inside.sum())) / 100
    z[~inside, 0] = np.where(outside // 6 % 2, 1.0, -1.0) + 0.01
    z[:, 1] = np.arange(OWN)
    edits = [Edit(0, set=0.0)]
    found = steering(ScoredRows(ROWS, make_scored(z, [3.0, 1.0, 0.0])), BENCHMARK, SAFETY, edits)
    (complement,) = (group.change for group in found.groups if group.name == "complement")
    assert complement.low < 0 < complement.high
    assert found.selectivity is not None
    assert found.selectivity.low < 6 < found.selectivity.mean
    text = edits_text([], found, edits)
    assert "no selectivity: the complement's change may be 0" in text
    assert f"at least {found.selectivity.low:.2g} (95 %)" in text
    assert f"{found.selectivity.mean:.2f}" not in text


def test_further_rows_belong_to_the_complement() -> None:
    more = [make_row(prompt="another", response="x")]
    z = np.vstack([sparse(1, OWN), np.full((1, 40), 2.0)])
    data = ScoredRows([*ROWS, *more], make_scored(z, np.ones(40)))
    everything = np.ones(len(SAFETY), dtype=bool)
    found = {group.name: group for group in steering(data, BENCHMARK, everything, [Edit(0, set=0.0)]).groups}
    assert found["complement"].answers == 1
    assert found["complement"].change.mean == pytest.approx(-2.0)


def test_oracle_margin_weights_give_the_margin_of_the_target() -> None:
    data = scored_rows()
    table = answer_table(data.rows, OWN)
    rewards = data.scored.rewards.astype(float)
    everything = margin_weights(table, OWN, np.ones(OWN, dtype=bool))
    assert everything @ rewards == pytest.approx(prompt_margins(table, rewards).mean())
    inside = SAFETY[BENCHMARK.unit_of_answer]
    assert not margin_weights(table, OWN, inside)[~inside].any()


def test_oracle_random_sets_are_the_same_edits_on_other_latents() -> None:
    data = scored_rows()
    scored = data.scored
    found = among_matched_edits(data, BENCHMARK, SAFETY, EDITS, sets=100, seed=3)
    rate = (scored.latents.to_scipy() != 0).sum(axis=0) / OWN
    random = matched_random_sets([2, 5], rate, np.abs(scored.head), sets=100, seed=3)
    weights = margin_weights(answer_table(data.rows, OWN), OWN, SAFETY[BENCHMARK.unit_of_answer])
    one_by_one = [
        weights @ edit_delta(scored, [replace(e, latent=int(i)) for e, i in zip(EDITS, row, strict=True)])
        for row in random.latents
    ]
    own = weights @ edit_delta(scored, EDITS)
    assert found["margin"].mean == pytest.approx(np.mean(one_by_one))
    assert found["margin"].percentile == pytest.approx(100 * np.mean(np.array(one_by_one) < own))


def test_an_edit_better_than_chance_ranks_above_all_random_ones() -> None:
    z = sparse(4, OWN)
    table = answer_table(ROWS, OWN)
    # Latent 7 is paid for in rejected answers alone and fires as often as the others.
    z[:, 7] = np.where(table.role == "rejected", 3.0 * (np.arange(OWN) % 2), 0.0)
    data = ScoredRows(ROWS, make_scored(z, np.ones(40)))
    found = among_matched_edits(
        data, BENCHMARK, np.ones(len(SAFETY), dtype=bool), [Edit(7, set=0.0)], sets=200
    )
    assert found["margin"].percentile == 100
    assert found["accuracy"].percentile > 95


def test_what_cannot_be_compared_is_said() -> None:
    z = sparse(5, OWN)
    z[:, 0] = 0
    data = ScoredRows(ROWS, make_scored(z, np.ones(40)))
    found = steering(data, BENCHMARK, np.ones(len(SAFETY), dtype=bool), [Edit(0, set=0.0)])
    assert found.matched == {}
    assert found.unmatched == "no edited latent is active in these answers"
    text = edits_text([], found, [Edit(0, set=0.0)])
    assert "not compared with random latents: no edited latent is active" in text
    assert "no selectivity: every answer is in the target" in text
