"""PAR shaping: oracle (by hand, and over all answers of a tiny policy), property, metamorphic (resume)."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.control.controls import Controls
from sarm_control.control.edits.edits import Edit
from sarm_control.control.human_kl import HumanKL
from sarm_control.control.penalties import Penalty
from sarm_control.control.training_reward import RewardRule, preference_as_reward
from sarm_control.latents.human import HumanBuffer
from sarm_control.training.algorithm.reference_rewards import ReferenceRewards
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.config.run_config import RunConfig, TrainingConfig
from sarm_control.training.data.prompts import training_rows
from sarm_control.training.run.dry_run import plan_lines
from sarm_control.training.run.run_folder import start_run
from sarm_control.training.run.train import run_training
from tests.training.tiny import PROMPTS, TableSarm, all_answers, answer_logprobs, tiny_policy

finite = st.floats(-1e4, 1e4)


def test_oracle_by_hand() -> None:
    shaped = preference_as_reward(np.array([2.0, 2.0 + 0.5 * np.log(3.0), -1e9, 1e9]), mean=2.0, sd=0.5)
    np.testing.assert_allclose(shaped, [2.25, 2.0 + 0.5 * 0.75, 2.0, 2.5], atol=1e-12)


@given(st.lists(finite, min_size=2, max_size=20), finite, st.floats(1e-3, 1e3))
def test_property_it_is_bounded_and_keeps_the_order(totals: list[float], mean: float, sd: float) -> None:
    ordered = np.sort(np.array(totals))
    shaped = preference_as_reward(ordered, mean, sd)
    assert (shaped >= mean).all()
    assert (shaped <= mean + sd * (1 + 1e-12)).all() or np.allclose(shaped.max(), mean + sd)
    assert (np.diff(shaped) >= 0).all()


@pytest.mark.parametrize("standardize", [True, False])
def test_the_columns_still_sum_to_the_total_and_scores_are_the_sigmoid(standardize: bool) -> None:
    model = cast(Any, TableSarm(2))
    controls = Controls(edits=[Edit(1, max=0.5)], penalties=[Penalty(2, "q0.5", "0.5sd")])
    reward = PolicyReward(model, controls, standardize=standardize, shaping="par")
    plain = PolicyReward(model, controls, standardize=True)
    for one in (reward, plain):
        one.calibrate(all_answers(2))
    paid, unshaped = reward.score(all_answers(2)), plain.score(all_answers(2))
    parts = [column for name, column in paid.columns.items() if name != "reward/total"]
    np.testing.assert_allclose(np.sum(parts, axis=0), paid.columns["reward/total"], atol=1e-12)
    assert reward.statistics is not None
    unit = 1.0 if standardize else reward.statistics.sd
    np.testing.assert_allclose(paid.scores / unit, 1 / (1 + np.exp(-unshaped.scores)), atol=1e-12)


def test_without_a_reference_there_is_nothing_to_shape_around() -> None:
    from sarm_control.errors import ConfigError

    with pytest.raises(ConfigError, match="needs answers of the reference policy"):
        RewardRule.of(Controls(), 0.0, None, standardize=False, shaping="par")


SETTINGS = TrainingConfig(max_new_tokens=2, seed=5)


def par_reward(
    answers: int, controls: Controls | None = None, human: HumanBuffer | None = None
) -> PolicyReward:
    """Calibrated, with reference answers of a tiny policy."""
    references = ReferenceRewards(tiny_policy(), SETTINGS, answers)
    controls = controls or Controls(edits=[Edit(1, max=0.5)], penalties=[Penalty(2, "q0.5", "0.5sd")])
    model = cast(Any, TableSarm(2))
    reward = PolicyReward(model, controls, shaping="par", references=references, human=human)
    reward.calibrate(all_answers(2))
    return reward


def test_several_reference_answers_are_averaged_by_hand() -> None:
    reference = np.array([[0.0, np.log(3.0)], [-1e9, 1e9]])
    shaped = preference_as_reward(np.array([0.0, 7.0]), mean=2.0, sd=1.0, reference=reference)
    np.testing.assert_allclose(shaped, [2.0 + (0.5 + 0.25) / 2, 2.5], atol=1e-12)


def test_oracle_over_all_answers_of_the_reference_policy() -> None:
    """With many reference answers the score is the chance-weighted mean over all the policy can give."""
    reward, listed = par_reward(4000), all_answers(2)
    paid = reward.score(listed)
    totals = paid.columns["reward/total"] - paid.columns["reward/shaping"]
    chance = answer_logprobs(tiny_policy(), listed, reference=True).exp().numpy()
    assert reward.statistics is not None
    preferred = 1 / (1 + np.exp(-(totals[:, None] - totals[None, :]) / reward.statistics.sd))
    np.testing.assert_allclose(paid.scores, preferred @ chance, atol=0.02)
    parts = [column for name, column in paid.columns.items() if name != "reward/total"]
    np.testing.assert_allclose(np.sum(parts, axis=0), paid.columns["reward/total"], atol=1e-12)


def test_prompts_have_reference_answers_of_their_own_whenever_they_are_met() -> None:
    together, apart = par_reward(6), par_reward(6)
    breakdown = apart.reference_rewards
    assert together.references is not None
    assert apart.references is not None
    both = together.references.of(PROMPTS, breakdown)
    later = np.stack([apart.references.of([row, row], breakdown)[1] for row in reversed(PROMPTS)])[::-1]
    np.testing.assert_array_equal(both, later)
    assert (both[0] != both[1]).any()
    assert len(apart.references) == 2


def test_what_learns_does_not_move_the_reference() -> None:
    model = cast(Any, TableSarm(2))
    listed = all_answers(2)
    human = HumanBuffer.from_scored(model.score(listed.prompts, listed.texts, ended=listed.ended), range(6))
    held = Controls(penalties=[Penalty(2, "q0.5", target_rate=0.1)], human_kl=HumanKL(beta="0.5sd"))
    reward = par_reward(6, held, human)
    first = reward.reference_rewards(listed)
    for _ in range(3):
        reward.learn(reward.score(listed))
    np.testing.assert_array_equal(reward.reference_rewards(listed), first)
    scored = reward.scored(listed)
    np.testing.assert_allclose(first, scored.rewards - np.where(scored.ended, 0.0, reward.rule.missing_end))


def test_what_was_remembered_is_taken_up_again() -> None:
    reward, other = par_reward(3), par_reward(3)
    scores = reward.score(all_answers(2, PROMPTS[1])).scores
    other.load_state(reward.state_tensors(), json.loads(json.dumps(reward.state())))
    assert other.references is not None
    assert len(other.references) == 1
    np.testing.assert_array_equal(other.score(all_answers(2, PROMPTS[1])).scores, scores)


LAB: dict[str, Any] = {
    "reward": {"shaping": "par", "par_answers": 2},
    "training": {
        "steps": 2,
        "prompts_per_step": 2,
        "max_new_tokens": 8,
        "micro_batch": 4,
        "reference_answers": 8,
    },
    "evaluation": {"every": 1, "answers": 2},
    "checkpoints": {"every": 1},
}


@pytest.mark.long
def test_a_resumed_run_is_the_uninterrupted_one_to_the_byte(tmp_path: Path) -> None:
    whole = RunConfig.model_validate(LAB)
    run_training(whole, start_run(tmp_path / "whole", whole))
    short = RunConfig.model_validate({**LAB, "training": {**LAB["training"], "steps": 1}})
    run_training(short, start_run(tmp_path / "cut", short))
    run_training(whole, start_run(tmp_path / "cut", whole, resume=True))
    for name in ("metrics.jsonl", "evaluation.jsonl", "policy/model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_plan_tells_what_the_reference_answers_cost() -> None:
    config = RunConfig.model_validate(LAB)
    lines = plan_lines(config, training_rows(config.data))
    assert any(
        "2 reference answers to each of up to 4 prompts" in line and "8 beside" in line for line in lines
    )
    off = RunConfig.model_validate({**LAB, "reward": {"shaping": "par", "par_answers": 0}})
    assert not any("reference answers to each" in line for line in plan_lines(off, training_rows(off.data)))
