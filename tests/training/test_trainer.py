"""The trainer: metamorphic (offset, micro-batches, resume), oracle (ratio, column sums), bad rewards."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sarm_control.control.controls import Controls
from sarm_control.control.edits.edits import Edit
from sarm_control.control.human_kl import HumanKL
from sarm_control.control.penalties import Penalty
from sarm_control.control.training_reward import RewardBreakdown
from sarm_control.errors import TrainingError
from sarm_control.latents.human import HumanBuffer
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.training.algorithm.minibatches import plan_minibatches, prompts_of_step
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import LoraConfig, PolicyConfig, TrainingConfig
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import Rollout, encode_prompts, sample_answers
from sarm_control.training.run.checkpoint import load_checkpoint, save_checkpoint
from tests.present import present
from tests.training.tiny import PROMPTS, TableReward, random_table, tiny_policy

SETTINGS = TrainingConfig(
    prompts_per_step=2,
    answers_per_prompt=8,
    max_new_tokens=3,
    epochs=2,
    minibatches=2,
    micro_batch=4,
    learning_rate=3e-3,
    value_learning_rate=1e-2,
    reference_answers=32,
)


def table_trainer(reward: TableReward | None = None, **changes: Any) -> Trainer:
    trainer = Trainer(
        tiny_policy(), reward or TableReward(random_table(3)), PROMPTS, SETTINGS.model_copy(update=changes)
    )
    trainer.calibrate()
    return trainer


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trainer.policy.trainable().values()])


@pytest.mark.long
@pytest.mark.parametrize("offset", [1024.0, -64.0])
def test_a_constant_added_to_every_reward_changes_nothing(offset: float) -> None:
    """To the bit: these offsets and rewards add without rounding, and the frozen mean takes them off."""
    plain = table_trainer()
    moved = table_trainer(TableReward(random_table(3), offset=offset))
    for _ in range(3):
        ours, theirs = plain.step().metrics, moved.step().metrics
        ours, theirs = ({k: v for k, v in m.items() if not k.startswith("reward/")} for m in (ours, theirs))
        assert ours == theirs
    assert torch.equal(weights(plain), weights(moved))


@pytest.mark.long
@pytest.mark.parametrize("micro_batch", [1, 3, 16])
def test_the_micro_batch_split_changes_nothing(micro_batch: int) -> None:
    whole, split = table_trainer(micro_batch=8), table_trainer(micro_batch=micro_batch)
    for _ in range(2):
        ours, theirs = whole.step().metrics, split.step().metrics
        for name, value in ours.items():
            if name != "policy/ratio_first":
                assert theirs[name] == pytest.approx(value, abs=1e-5), name
    assert (weights(whole) - weights(split)).abs().max() < 1e-5


def test_the_first_micro_step_has_ratio_1() -> None:
    trainer = table_trainer(micro_batch=3)
    for _ in range(3):
        assert trainer.step().metrics["policy/ratio_first"] <= 1e-6


@pytest.mark.long
def test_equal_runs_are_equal_and_another_seed_is_another_run() -> None:
    runs = [table_trainer(seed=seed) for seed in (0, 0, 1)]
    rows = [[run.step().metrics for _ in range(2)] for run in runs]
    assert rows[0] == rows[1]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert rows[0] != rows[2]


@pytest.mark.long
def test_training_raises_the_reward() -> None:
    trainer = table_trainer(answers_per_prompt=64, kl_coef=0.0, micro_batch=128, seed=1)
    rewards = [trainer.step().metrics["reward/total"] for _ in range(12)]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.5


def test_warmup_raises_both_learning_rates_and_a_zero_step_changes_little() -> None:
    trainer = table_trainer(warmup_steps=4)
    rates = []
    for _ in range(5):
        trainer.step()
        rates.append([group["lr"] for group in trainer.updater.optimizer.param_groups])
    assert rates == [[3e-3 * f, 1e-2 * f] for f in (0.25, 0.5, 0.75, 1.0, 1.0)]


def test_every_prompt_comes_once_before_any_comes_again() -> None:
    drawn = [i for step in (1, 2, 3, 4, 5) for i in prompts_of_step(10, 4, step, seed=3)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert sorted(prompts_of_step(2, 6, 1, seed=0)) == [0, 0, 0, 1, 1, 1]


def test_minibatches_hold_every_answer_once_and_do_not_depend_on_the_micro_batch() -> None:
    lengths = np.random.default_rng(0).integers(5, 50, size=23).tolist()
    plans = [
        plan_minibatches(lengths, minibatches=3, micro_batch=size, seed=0, step=1) for size in (1, 4, 100)
    ]
    flat = [[[row for micro in minibatch for row in micro] for minibatch in plan] for plan in plans]
    assert flat[0] == flat[1] == flat[2]
    assert sorted(row for minibatch in flat[0] for row in minibatch) == list(range(23))
    assert {len(micro) for minibatch in plans[1] for micro in minibatch} <= {1, 2, 3, 4}


# --- with the SARM, every control on --------------------------------------------------------------

CONTROLS = Controls(
    edits=[Edit(3, max=0.5)],
    penalties=[
        Penalty(5, tau="q0.5", alpha="0.5sd"),
        Penalty(9, tau=0.1, alpha=0.2, form="hinge"),
        Penalty(4, tau=0.0, target_rate=0.1),
    ],
    human_kl=HumanKL(beta="0.1sd"),
)
TEXTS = [f"{a} {b}" for a in ("yes", "no", "sorry", "please") for b in ("bread", "lock", "door")]


def sarm_trainer(policy_folder: Path, model: RewardModel, *, lora: bool = True, **changes: Any) -> Trainer:
    config = PolicyConfig(model=str(policy_folder), lora=LoraConfig(rank=2) if lora else None)
    policy = Policy.load(config, seed=5)
    places = [f"prompts.jsonl:{i + 1}" for i in range(len(TEXTS))]
    prompts = encode_prompts(policy, [f"how do i open {text} ?" for text in TEXTS], places, 6)
    asked = [text for text in ("what is the door ?", "why bread ?") for _ in TEXTS]
    human = HumanBuffer.from_scored(model.score(asked, [*TEXTS, *TEXTS]))
    reward = PolicyReward(model, CONTROLS, human=human, seed=5)
    settings = SETTINGS.model_copy(update={"max_new_tokens": 6, "learning_rate": 1e-2, "seed": 5, **changes})
    return Trainer(policy, reward, prompts, settings)


@pytest.mark.long
@pytest.mark.parametrize("lora", [True, False])
def test_two_steps_and_two_resumed_are_four_steps_to_the_bit(
    lora: bool, tiny_policy_folder: Path, tiny_sarm: RewardModel, tmp_path: Path
) -> None:
    whole = sarm_trainer(tiny_policy_folder, tiny_sarm, lora=lora)
    whole.calibrate()
    expected = [whole.step() for _ in range(4)]

    first = sarm_trainer(tiny_policy_folder, tiny_sarm, lora=lora)
    first.calibrate()
    rows = [first.step(), first.step()]
    state = first.state()
    place = save_checkpoint(tmp_path, 2, state.tensors, state.values)
    second = sarm_trainer(tiny_policy_folder, tiny_sarm, lora=lora)
    torch.manual_seed(123)
    found = load_checkpoint(place)
    second.load_state(found.tensors, found.state)
    rows += [second.step(), second.step()]

    assert json.dumps([row.metrics for row in rows]) == json.dumps([row.metrics for row in expected])
    assert [row.samples for row in rows] == [row.samples for row in expected]
    assert len({row.metrics["penalty/4/alpha"] for row in rows}) > 1
    assert torch.equal(weights(second), weights(whole))
    ours, theirs = whole.state().tensors, second.state().tensors
    for file, named in ours.items():
        assert all(torch.equal(tensor, theirs[file][name]) for name, tensor in named.items()), file


def test_reward_columns_sum_to_the_total_for_every_answer(
    tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    trainer = sarm_trainer(tiny_policy_folder, tiny_sarm)
    trainer.calibrate()
    report = trainer.step()
    names = ["reward/model", "reward/edits", "reward/human_kl", "reward/missing_end"]
    names += [f"reward/penalty/{penalty.latent}" for penalty in CONTROLS.penalties]
    for row in [*report.samples, report.metrics]:
        assert sum(row[name] for name in names) == pytest.approx(row["reward/total"], abs=1e-6)
        assert {name for name in row if name.startswith("reward/")} == {*names, "reward/total"}
    ended = report.metrics["answers/ended"]
    assert isinstance(trainer.reward, PolicyReward)
    sd = present(trainer.reward.statistics).sd
    assert report.metrics["reward/missing_end"] == pytest.approx(-(1 - ended) * sd)


@pytest.mark.long
def test_controls_that_are_off_give_bit_identical_training(
    tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    """A penalty of 0 and an edit to the identity are no controls at all."""
    runs = []
    for controls in (
        Controls(),
        Controls(edits=[Edit(3, scale=1.0)], penalties=[Penalty(5, tau=0.0, alpha=0.0)]),
    ):
        trainer = sarm_trainer(tiny_policy_folder, tiny_sarm)
        trainer.reward = PolicyReward(tiny_sarm, controls)
        trainer.calibrate()
        runs.append([trainer.step().metrics for _ in range(2)])
    for plain, nulled in zip(*runs, strict=True):
        assert all(nulled[name] == value for name, value in plain.items())


def sampled(trainer: Trainer, prompts: int, repeats: int) -> Rollout:
    """Answers of the policy to the first prompts."""
    settings = trainer.settings
    return sample_answers(
        trainer.policy,
        trainer.prompts[:prompts],
        answers_per_prompt=repeats,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
        purpose=("test",),
    )


def test_ppo_sees_reference_sds_unless_told_otherwise(
    tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    trainer = sarm_trainer(tiny_policy_folder, tiny_sarm)
    trainer.calibrate()
    rollout = sampled(trainer, 3, 2)
    in_sds, in_units = (
        PolicyReward(tiny_sarm, Controls()),
        PolicyReward(tiny_sarm, Controls(), standardize=False),
    )
    for reward in (in_sds, in_units):
        reward.load_state({}, trainer.reward.state())
    statistics = in_sds.statistics
    assert statistics is not None
    total = in_sds.score(rollout).columns["reward/total"]
    np.testing.assert_allclose(in_sds.score(rollout).scores, (total - statistics.mean) / statistics.sd)
    np.testing.assert_allclose(in_units.score(rollout).scores, total - statistics.mean)


def test_controls_score_before_they_learn(tiny_policy_folder: Path, tiny_sarm: RewardModel) -> None:
    trainer = sarm_trainer(tiny_policy_folder, tiny_sarm)
    trainer.calibrate()
    rollout = sampled(trainer, 4, 4)
    before = trainer.reward.score(rollout)
    again = trainer.reward.score(rollout)
    trainer.reward.learn(before)
    after = trainer.reward.score(rollout)
    assert np.array_equal(before.scores, again.scores)
    assert not np.array_equal(before.columns["reward/human_kl"], after.columns["reward/human_kl"])
    assert np.array_equal(before.columns["reward/model"], after.columns["reward/model"])


@dataclass
class Broken(TableReward):
    """Pays one prompt with something that is no number."""

    value: float = float("nan")

    def score(self, rollout: Rollout) -> RewardBreakdown:
        """The table's rewards, spoilt."""
        rewards = super().score(rollout)
        scores = rewards.scores.copy()
        scores[[row.where == "prompts.jsonl:2" for row in rollout.prompts]] = self.value
        return replace(rewards, scores=scores)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_stops_the_run_and_names_the_row(value: float) -> None:
    trainer = table_trainer(Broken(random_table(3), value=value))
    before = weights(trainer)
    with pytest.raises(TrainingError, match=rf"an answer to prompts.jsonl:2 is {value}"):
        trainer.step()
    assert torch.equal(weights(trainer), before)
    assert trainer.done == 0


def test_a_gradient_that_is_no_number_stops_the_run() -> None:
    trainer = table_trainer()
    trainer.step()
    with torch.no_grad():
        trainer.policy.value_head.bias.fill_(float("inf"))
    with pytest.raises(TrainingError, match="gradient of step 2"):
        trainer.step()


def test_another_head_is_refused_on_resume(tiny_policy_folder: Path, tiny_sarm: RewardModel) -> None:
    trainer = sarm_trainer(tiny_policy_folder, tiny_sarm)
    trainer.calibrate()
    state: Mapping[str, Any] = trainer.state().values
    other = tiny_sarm.with_head(tiny_sarm.head.weight * 2)
    with pytest.raises(TrainingError, match="was made with head"):
        PolicyReward(other, Controls()).load_state({}, state["reward"])


def test_a_reward_that_was_not_calibrated_says_so(tiny_policy_folder: Path, tiny_sarm: RewardModel) -> None:
    with pytest.raises(TrainingError, match="not calibrated"):
        sarm_trainer(tiny_policy_folder, tiny_sarm).step()
