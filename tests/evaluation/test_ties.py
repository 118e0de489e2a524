"""Answers that the edits make equal are paid the same by everything that compares them."""

from dataclasses import replace

import numpy as np
import pytest

from sarm_control.control import Edit, edit_delta, edited_rewards
from sarm_control.control.edits.edits import moved_rewards
from sarm_control.evaluation.benchmarks.reward_bench_2 import reward_bench_2
from sarm_control.evaluation.benchmarks.steering import steering
from sarm_control.evaluation.probing.probe import probe
from sarm_control.evaluation.reranking.candidates import candidate_sets
from sarm_control.evaluation.reranking.reranking import rerank
from sarm_control.evaluation.reranking.single_latents import single_latents
from sarm_control.latents.rows import ScoredRows
from tests.evaluation.benchmark_rows import parsed
from tests.evaluation.scored_pairs import make_row, make_scored, random_pairs

PAIRS = 200
HEAD = np.array([0.1, -0.3, 0.07, 0.011, 0.5, 0.2], np.float32)


def twins() -> np.ndarray:
    """[2 PAIRS, 6] answers of a pair differ in latent 5 alone, which the chosen one has; it is paid more."""
    generator = np.random.default_rng(1)
    z = np.abs(generator.normal(size=(PAIRS, 1, 6))).repeat(2, axis=1)
    z[:, 1, 5] = 0
    return z.reshape(-1, 6)


def pairs() -> ScoredRows:
    rows = [make_row(prompt=f"p{p}", chosen="a", rejected="b") for p in range(PAIRS)]
    return ScoredRows(rows, make_scored(twins(), HEAD))


@pytest.mark.parametrize("edit", [Edit(5, set=0.0), Edit(5, scale=0.0), Edit(5, max=0.0)])
def test_pairs_that_differ_in_the_edited_latent_alone_all_tie(edit: Edit) -> None:
    data = pairs()
    after = edited_rewards(data.scored, [edit]).reshape(-1, 2)
    np.testing.assert_array_equal(after[:, 0], after[:, 1])
    found = probe(data, [edit]).preference
    assert found is not None
    assert (found.accuracy_before.mean, found.accuracy_after.mean) == (1.0, 0.0)
    assert (found.flips.gained, found.flips.lost) == (0, PAIRS)


def test_a_tie_gives_each_candidate_half_of_the_win_in_every_table() -> None:
    data = pairs()
    sets = candidate_sets(data)
    assert rerank(sets, data.scored, [Edit(5, set=0.0)]).changed.mean == 0.5
    impact = {one.latent: one.changed.mean for one in single_latents(sets, data.scored)}
    assert impact[5] == 0.5


def test_a_benchmark_shares_the_credit_of_a_tie_also_among_matched_random_edits() -> None:
    rows = parsed(
        [
            {"id": str(p), "prompt": f"p{p}", "chosen": ["a"], "rejected": ["b"], "subset": "Safety"}
            for p in range(PAIRS)
        ]
    )
    data = ScoredRows(rows, pairs().scored)
    benchmark = reward_bench_2(rows)
    edits = [Edit(5, set=0.0)]
    np.testing.assert_array_equal(benchmark.credit(edited_rewards(data.scored, edits))[:, 0], 0.5)
    moved = np.stack([edit_delta(data.scored, edits), np.zeros(2 * PAIRS)])
    for rewards, credit in zip(moved_rewards(data.scored, moved), (0.5, 1.0), strict=True):
        np.testing.assert_array_equal(benchmark.credit(rewards)[:, 0], credit)
    target = np.ones(PAIRS, dtype=bool)
    # the other latents pay both answers of a pair the same: removing one leaves every pair as it is
    among = steering(data, benchmark, target, edits, sets=20).matched["accuracy"]
    assert (among.mean, among.sd, among.percentile) == (0.0, 0.0, 0.0)


def test_edited_rewards_are_the_exact_change_up_to_one_rounding() -> None:
    scored = random_pairs(3).scored
    edits = [Edit(3, scale=0.3), Edit(7, add=-0.5, min=0.0), Edit(9, set=1.5)]
    expected = scored.rewards + edit_delta(scored, edits)
    np.testing.assert_allclose(edited_rewards(scored, edits), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(edited_rewards(scored, []), scored.rewards)
    # scores with the edited latents alone, as a folder of chosen latents has, know the same
    values = scored.latents.columns([3, 7, 9])
    dense = np.zeros((len(scored), scored.latents.size), np.float32)
    dense[:, [3, 7, 9]] = values
    part = replace(make_scored(dense, scored.head), rewards=scored.rewards)
    np.testing.assert_allclose(edited_rewards(part, edits), expected, rtol=1e-6, atol=1e-6)
