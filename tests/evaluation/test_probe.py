"""Probes: oracle by hand and against edited latents, metamorphic, and the rows written."""

import numpy as np
import pytest

from sarm_control.control import Edit, apply_edits
from sarm_control.errors import DataError
from sarm_control.evaluation.answer_places import answer_table
from sarm_control.evaluation.probing.probe import (
    probe,
    probe_text,
    probed_rows,
    prompt_accuracy,
    prompt_margins,
)
from sarm_control.latents.rows import ScoredRows
from tests.evaluation.scored_pairs import make_row, make_scored, random_pairs

EDITS = [Edit(0, set=0.0), Edit(3, max=0.5), Edit(7, scale=0.5, add=0.25)]


def test_oracle_two_pairs_by_hand() -> None:
    rows = [
        make_row(prompt="a", chosen="x", rejected="y"),
        make_row(prompt="b", chosen=["x", "z"], rejected="y"),
    ]
    # One latent of weight 2: prompt a is 1 against 2 (wrong), b is 3 and 0 against 1 (half right).
    data = ScoredRows(rows, make_scored([[1, 0], [2, 0], [3, 0], [0, 5], [1, 0]], [2.0, 0.0]))
    found = probe(data, [Edit(0, max=1.0)])
    np.testing.assert_allclose(found.before, [2, 4, 6, 0, 2])
    np.testing.assert_allclose(found.delta, [0, -2, -4, 0, 0])
    chosen, rejected = found.sides
    assert (chosen.name, chosen.answers, chosen.active, chosen.changed) == ("chosen", 3, 2 / 3, 1 / 3)
    assert (rejected.answers, rejected.active, rejected.changed) == (2, 1.0, 0.5)
    # Every prompt counts once: chosen of a did not move, of b by -4 and 0.
    assert chosen.delta.mean == pytest.approx(-1.0)
    assert rejected.delta.mean == pytest.approx(-1.0)
    pairs = found.preference
    assert pairs is not None
    assert pairs.margin_before.mean == pytest.approx((2 - 4 + 3 - 2) / 2)
    assert pairs.margin_after.mean == pytest.approx((2 - 2 + 1 - 2) / 2)
    assert (pairs.accuracy_before.mean, pairs.accuracy_after.mean) == (0.25, 0.0)
    assert (pairs.flips.gained, pairs.flips.lost) == (0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_oracle_after_is_the_reward_of_the_edited_latents(seed: int) -> None:
    data = random_pairs(seed)
    found = probe(data, EDITS)
    after = apply_edits(data.scored.latents, EDITS).dot(data.scored.head)
    np.testing.assert_allclose(found.before + found.delta, after, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_metamorphic_order_of_rows_changes_no_summary(seed: int) -> None:
    data = random_pairs(seed)
    order = np.random.default_rng(seed).permutation(len(data.rows))
    starts = np.cumsum([0, *(len(row.answers) for row in data.rows)])
    answers = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
    moved = ScoredRows([data.rows[i] for i in order], data.scored.take(answers))
    first, second = probe(data, EDITS), probe(moved, EDITS)
    for one, other in zip(first.sides, second.sides, strict=True):
        assert one.delta.mean == pytest.approx(other.delta.mean)
        assert (one.answers, one.active, one.changed) == (other.answers, other.active, other.changed)
    assert first.preference is not None
    assert second.preference is not None
    assert first.preference.flips == second.preference.flips


def test_metamorphic_swapped_labels_give_one_minus_accuracy_minus_ties() -> None:
    data = random_pairs(3)
    table = answer_table(data.rows, len(data.scored))
    rewards = np.rint(data.scored.rewards).astype(np.float64)
    swapped = [
        make_row(prompt=row.prompt, chosen=list(row.rejected), rejected=list(row.chosen)) for row in data.rows
    ]
    starts = np.cumsum([0, *(len(row.answers) for row in data.rows)])
    order = np.concatenate(
        [
            np.r_[start + len(row.chosen) : start + len(row.answers), start : start + len(row.chosen)]
            for start, row in zip(starts[:-1], data.rows, strict=True)
        ]
    )
    there = prompt_accuracy(table, rewards)
    back = prompt_accuracy(answer_table(swapped, len(rewards)), rewards[order])
    ties = prompt_accuracy(table, rewards + 0.25 * (table.role == "chosen")) - there
    np.testing.assert_allclose(there + back + ties, 1.0)
    np.testing.assert_allclose(
        prompt_margins(table, rewards), -prompt_margins(answer_table(swapped, len(rewards)), rewards[order])
    )


def test_rows_keep_their_fields_and_gain_the_numbers_in_their_places() -> None:
    rows = [
        make_row(prompt="a", response="x", id=7),
        make_row(prompt="b", chosen="x", rejected=["y", "z"]),
        make_row(prompt="c", candidates=["x", "y"]),
    ]
    z = np.arange(6.0)[:, None]
    data = ScoredRows(rows, make_scored(z, [1.0]))
    written = list(probed_rows(rows, probe(data, [Edit(0, scale=2.0)])))
    assert written[0] == {
        "prompt": "a",
        "response": "x",
        "id": 7,
        "before": 0.0,
        "after": 0.0,
        "delta": 0.0,
        "active": False,
    }
    assert [one["delta"] for one in written[1]["chosen_probe"]] == [1.0]
    assert [one["delta"] for one in written[1]["rejected_probe"]] == [2.0, 3.0]
    assert [one["after"] for one in written[2]["candidate_probe"]] == [8.0, 10.0]
    assert [side.name for side in probe(data, [Edit(0, scale=2.0)]).sides] == [
        "answers",
        "chosen",
        "rejected",
        "candidates",
    ]


def test_no_effect_is_said() -> None:
    data = ScoredRows([make_row(prompt="a", response="x")], make_scored([[0.0, 1.0]], [1.0, 1.0]))
    text = probe_text(probe(data, [Edit(0, set=0.0)]), [Edit(0, set=0.0)])
    assert "no reward changes" in text
    assert "n = 1: no interval" in text


def test_scores_that_do_not_fit_the_rows_are_refused() -> None:
    data = ScoredRows([make_row(prompt="a", response="x")], make_scored([[0.0], [1.0]], [1.0]))
    with pytest.raises(DataError, match="2 scores were given for 1 answers"):
        probe(data, [])
