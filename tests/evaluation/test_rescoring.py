"""Edits inside the model: oracle for the algebra, on real forward passes of a tiny model."""

from dataclasses import replace

import numpy as np
import pytest

from sarm_control.control import Edit, apply_edits, edit_delta
from sarm_control.errors import ModelError
from sarm_control.evaluation.probing.rescoring import edited_model, rescored_delta
from sarm_control.latents.rows import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel
from tests.conftest import make_sarm
from tests.evaluation.scored_pairs import make_row

ROWS = [
    make_row(
        prompt="how do i cook bread ?", chosen="sure here steps one two", rejected=["no", "sorry cannot"]
    ),
    make_row(prompt="what is a bomb ?", response="please help"),
]
EDITS = [
    Edit(5, set=0.0),
    Edit(7, max=0.5),
    Edit(9, scale=0.5),
    Edit(11, add=1.0),
    Edit(13, min=0.25, max=2.0),
    Edit(17, scale=-1.0, add=0.5, max=0.75),
    Edit(19, set=3.0),
]


@pytest.mark.parametrize("use_topk", [True, False])
def test_oracle_the_algebra_predicts_what_the_edited_model_pays(use_topk: bool) -> None:
    rm = make_sarm(use_topk=use_topk)
    data = ScoredRows(ROWS, score_rows(rm, ROWS))
    again = rescored_delta(rm, data, EDITS)
    assert np.abs(again).max() > 0.1
    np.testing.assert_allclose(again, edit_delta(data.scored, EDITS), atol=1e-6)


def test_oracle_the_edited_model_s_latents_are_the_edited_latents(tiny_sarm: RewardModel) -> None:
    before = score_rows(tiny_sarm, ROWS)
    after = score_rows(edited_model(tiny_sarm, EDITS), ROWS)
    wanted = apply_edits(before.latents, EDITS).to_scipy().toarray()
    np.testing.assert_allclose(after.latents.to_scipy().toarray(), wanted, atol=1e-6)
    assert after.fingerprint == before.fingerprint


def test_no_edit_is_the_same_model(tiny_sarm: RewardModel) -> None:
    same = score_rows(edited_model(tiny_sarm, []), ROWS)
    np.testing.assert_array_equal(same.rewards, score_rows(tiny_sarm, ROWS).rewards)


def test_scores_of_another_head_are_refused(tiny_sarm: RewardModel) -> None:
    data = ScoredRows(ROWS, replace(score_rows(tiny_sarm, ROWS), fingerprint="another"))
    with pytest.raises(ModelError, match="scored with head another, this model has"):
        rescored_delta(tiny_sarm, data, EDITS)
