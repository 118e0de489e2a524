"""Choice among candidates: oracle by hand and one latent at a time, metamorphic, bad input."""

import numpy as np
import pytest

from sarm_control.control import Edit
from sarm_control.errors import DataError
from sarm_control.evaluation.reranking.candidates import candidate_sets
from sarm_control.evaluation.reranking.reranking import rerank
from sarm_control.evaluation.reranking.single_latents import single_latents
from sarm_control.evaluation.reranking.text import impacts_text, reranked_rows, reranking_text
from sarm_control.latents.rows import ScoredRows
from tests.evaluation.scored_pairs import make_row, make_scored, random_pairs

ROWS = [
    make_row(prompt="a", candidates=["x", "yy", "zzz"], stars=[1, 5, 3]),
    make_row(prompt="b", candidates=["x", "yy"], stars=[2, 4]),
    make_row(prompt="c", candidates=["x"], stars=[1]),
]
# Latent 0 pays 1 a unit, latent 1 pays 2: a is paid 3, 4, 2 and b is paid 1, 1.
Z = [[3, 0], [0, 2], [2, 0], [1, 0], [1, 0], [0, 0]]


def small() -> ScoredRows:
    return ScoredRows(ROWS, make_scored(Z, [1.0, 2.0], [1, 2, 3, 1, 2, 1]))


def test_oracle_winners_by_hand() -> None:
    data = small()
    sets = candidate_sets(data, ["stars"])
    assert (len(sets), sets.alone, sets.sizes.tolist()) == (2, 1, [3, 2])
    found = rerank(sets, data.scored, [Edit(1, set=0.0)], n=[1, 2, 3, 4])
    # a: the second wins, then the first. b: a tie before and after, which no edit touches.
    assert found.changed.mean == 0.5
    of = {(one.attribute, one.n): one for one in (*found.winners, *found.curve)}
    assert (of["stars", None].before.mean, of["stars", None].after.mean) == ((5 + 3) / 2, (1 + 3) / 2)
    assert (of["stars", None].rises, of["stars", None].falls) == (0, 1)
    assert of["length", None].after.mean == (1 + 1.5) / 2
    assert of["stars", 1].before.mean == (3 + 3) / 2
    # N = 2: in a the second wins two of three pairs and the first one of them; b has one pair.
    assert of["stars", 2].before.mean == pytest.approx(((5 + 5 + 1) / 3 + 3) / 2)
    assert of["stars", 3].before.n == 1
    assert found.too_large == (4,)


def test_rows_of_one_prompt_compete_whatever_they_are() -> None:
    rows = [
        make_row(prompt="a", response="x", stars=2),
        make_row(prompt="b", chosen="y", rejected="z", stars=[1, 0]),
        make_row(prompt="a", response="w", stars=True),
    ]
    sets = candidate_sets(ScoredRows(rows, make_scored(np.ones((4, 1)), [1.0])), ["stars"])
    assert sets.answers.tolist() == [0, 3, 1, 2]
    assert sets.texts == ("x", "w", "y", "z")
    assert sets.attributes["stars"].tolist() == [2, 1, 1, 0]
    assert "chosen" not in sets.attributes


@pytest.mark.parametrize("seed", range(2))
def test_oracle_all_latents_at_once_equal_one_edit_at_a_time(seed: int) -> None:
    data = random_pairs(seed, prompts=15, latents=8)
    sets = candidate_sets(data)
    impacts = {one.latent: one for one in single_latents(sets, data.scored)}
    assert list(impacts) != []
    for latent in range(data.scored.latents.size):
        alone = rerank(sets, data.scored, [Edit(latent, set=0.0)])
        if latent not in impacts:
            assert alone.changed.mean == pytest.approx(0.0, abs=1e-12)
            continue
        found = impacts[latent]
        assert found.changed.mean == pytest.approx(alone.changed.mean)
        for one in alone.winners[1:]:
            assert found.attributes[one.attribute].mean == pytest.approx(one.change.mean, abs=1e-12)
    changed = [one.changed.mean for one in impacts.values()]
    assert changed == sorted(changed, reverse=True)


def test_metamorphic_no_edit_changes_no_winner() -> None:
    data = random_pairs(5)
    found = rerank(candidate_sets(data), data.scored, [], n=[1, 2])
    assert found.changed.mean == 0
    assert all(
        one.change.mean == 0 and not one.rises and not one.falls for one in found.winners + found.curve
    )


def test_the_best_of_all_pairs_is_the_share_of_chosen_winners() -> None:
    data = random_pairs(6)
    sets = candidate_sets(data)
    winner = {one.attribute: one for one in rerank(sets, data.scored, []).winners}["chosen"]
    rewards = data.scored.rewards[sets.answers]
    by_hand = [sets.attributes["chosen"][span][np.argmax(rewards[span])] for span in sets.spans()]
    assert winner.before.mean == pytest.approx(np.mean(by_hand))


def test_rows_and_text_say_who_wins() -> None:
    data = small()
    sets = candidate_sets(data, ["stars"])
    edits = [Edit(1, set=0.0)]
    found = rerank(sets, data.scored, edits, n=[2, 8])
    rows = list(reranked_rows(found, sets))
    assert [(row["winner_before"], row["winner_after"]) for row in rows] == [([1], [0]), ([0, 1], [0, 1])]
    assert rows[0]["stars"] == [1, 5, 3]
    text = reranking_text(found, sets, edits)
    assert "2 prompts, 5 candidates (2 to 3 each); 1 prompt with a single one left out" in text
    assert "no prompt has 8 candidates" in text
    assert "1 latent change a winner" in impacts_text(single_latents(sets, data.scored), sets, 10)


@pytest.mark.parametrize(
    ("stars", "message"),
    [([1, 2], "stars is not 3 numbers"), ([1, 2, "many"], "stars is not 3 numbers"), (4, "stars is not 3")],
)
def test_an_attribute_that_is_no_number_for_each_answer_is_refused(stars: object, message: str) -> None:
    rows = [make_row(prompt="a", candidates=["x", "y", "z"], stars=stars)]
    with pytest.raises(DataError, match=rf"rows.jsonl:1: {message}"):
        candidate_sets(ScoredRows(rows, make_scored(np.ones((3, 1)), [1.0])), ["stars"])


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"no column taste .* has keys \[prompt, candidates, stars\]"):
        candidate_sets(small(), ["taste"])


def test_nothing_to_choose_from_is_refused() -> None:
    data = ScoredRows([make_row(prompt="a", response="x")], make_scored([[1.0]], [1.0]))
    with pytest.raises(DataError, match="no prompt has two candidates"):
        candidate_sets(data)
