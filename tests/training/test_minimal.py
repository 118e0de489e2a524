"""Oracle: the one-file example and the Trainer are the same algorithm, step by step."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from sarm_control.seeds import torch_generator
from sarm_control.training.algorithm.experience import collect
from sarm_control.training.algorithm.minibatches import epoch_order, plan_minibatches, prompts_of_step
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.rollout.rollout import PromptRow, sample_answers
from tests.outside import load
from tests.training.tiny import END, PROMPTS, TableReward, random_table, tiny_model, tiny_policy

FILE = Path(__file__).resolve().parents[2] / "examples" / "minimal_ppo.py"
TOKENS, GROUP, STEPS = 3, 6, 4
MISSING_END = 0.5
SETTINGS = TrainingConfig(
    prompts_per_step=2,
    answers_per_prompt=GROUP,
    max_new_tokens=TOKENS,
    temperature=0.8,
    epochs=2,
    minibatches=2,
    micro_batch=4,
    learning_rate=3e-3,
    value_learning_rate=1e-2,
    kl_coef=0.2,
    gamma=0.97,
    lam=0.9,
    clip=0.1,
    value_clip=0.3,
    seed=3,
)
SHARED = (
    "max_new_tokens temperature epochs minibatches learning_rate value_learning_rate kl_coef gamma lam clip "
    "value_clip value_coef max_grad_norm"
)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load(FILE)


def table() -> dict[tuple[int, ...], float]:
    """The example takes the missing end off itself; in the trainer that is the reward's business."""
    return {a: r - MISSING_END * (a[-1] != END) for a, r in random_table(TOKENS).items()}


def noise_of(step: int) -> torch.Tensor:
    """The trainer's own random numbers, row by row."""
    return torch.stack(
        [
            torch.rand(
                TOKENS, generator=torch_generator(SETTINGS.seed, step, "rollout", row), dtype=torch.float64
            )
            for row in range(2 * GROUP)
        ]
    )


def prompts_of(step: int) -> list[PromptRow]:
    numbers = prompts_of_step(len(PROMPTS), 2, step, SETTINGS.seed)
    return [PROMPTS[i] for i in numbers for _ in range(GROUP)]


def minibatches(step: int, lengths: list[int]) -> Any:
    """`split` of the example: the trainer's minibatches in the trainer's order."""
    plan = plan_minibatches(lengths, minibatches=2, micro_batch=4, seed=SETTINGS.seed, step=step)
    rows = [[row for micro in minibatch for row in micro] for minibatch in plan]
    return lambda epoch: [rows[i] for i in epoch_order(2, seed=SETTINGS.seed, step=step, epoch=epoch)]


@pytest.mark.long
def test_the_example_and_the_trainer_agree_in_every_number_of_every_step(example: ModuleType) -> None:
    trainer = Trainer(tiny_policy(), TableReward(table()), PROMPTS, SETTINGS)
    shared = {name: getattr(SETTINGS, name) for name in SHARED.split()}
    plain = random_table(TOKENS)
    small = example.MinimalPPO(
        tiny_model(),
        END,
        lambda answers: [plain[tuple(answer)] for answer in answers],
        example.Settings(missing_end=MISSING_END, **shared),
    )
    for step in range(1, STEPS + 1):
        rows = prompts_of(step)
        prompts = [list(row.ids) for row in rows]
        rollout = sample_answers(
            trainer.policy,
            rows[::GROUP],
            answers_per_prompt=GROUP,
            max_new_tokens=SETTINGS.max_new_tokens,
            temperature=SETTINGS.temperature,
            seed=SETTINGS.seed,
            purpose=(step, "rollout"),
        )
        ours = collect(
            trainer.policy,
            rollout,
            torch.tensor(trainer.reward.score(rollout).scores, dtype=torch.float32),
            [list(range(2 * GROUP))],
            SETTINGS,
            kl_coef=SETTINGS.kl_coef,
        )
        theirs = small.experience(prompts, noise_of(step))
        answers = [tuple(ids[start:]) for ids, start in zip(theirs.sequences, theirs.starts, strict=True)]
        assert tuple(answers) == rollout.answers
        assert torch.equal(theirs.mask, ours.mask)
        for name in ("logprobs", "reference", "values", "advantages", "returns"):
            torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), atol=2e-6, rtol=1e-5)

        lengths = [len(ids) for ids in theirs.sequences]
        found = small.step(prompts, noise_of(step), minibatches(step, lengths))
        report = trainer.step().metrics
        assert found["reward"] == pytest.approx(report["reward/total"], abs=1e-6)
        for name in ("policy/loss", "value/loss", "objective/kl", "answers/length"):
            assert found[name] == pytest.approx(report[name], abs=1e-5), (step, name)
        weights = trainer.policy.trainable()
        for name, weight in small.model.named_parameters():
            torch.testing.assert_close(weight, weights[name], atol=1e-5, rtol=1e-4)
        for name, weight in small.value_head.named_parameters():
            torch.testing.assert_close(weight, dict(trainer.policy.value_head.named_parameters())[name])
    moved = (next(iter(small.model.parameters())) - next(iter(tiny_model().parameters()))).abs().max()
    assert moved > 1e-3, "four steps that changed nothing would agree as well"
    assert not np.isclose(report["objective/kl"], 0.0, atol=1e-3)


def test_the_example_is_short_and_trains_without_our_package() -> None:
    source = FILE.read_text()
    assert len(source.splitlines()) < 300
    training = source[: source.index("def main()")]
    assert "sarm_control" not in training


@pytest.mark.minutes
def test_the_example_runs_as_a_script_and_learns_to_be_brief() -> None:
    done = subprocess.run(
        [sys.executable, str(FILE), "--steps", "3", "--answers", "16"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={"PATH": "/usr/bin", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    rewards = [float(line.split()[3]) for line in done.stdout.splitlines() if line.startswith("step")]
    assert len(rewards) == 3
    assert rewards[-1] > rewards[0]
    assert "> how do i brew tea ?" in done.stdout
