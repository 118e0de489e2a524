"""One PPO run in a world, in memory, measured by the reward model and by the gold reward.

Shapes: `P` held-out prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarm_control.comparison import Sampling, answer_prompts
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.control import Controls
from sarm_control.data import read_rows
from sarm_control.lab.world import LONGEST_ANSWER, World
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model import RewardModel
from sarm_control.training import Policy, PolicyConfig, PolicyReward, Trainer, TrainingConfig, encode_prompts

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A policy's answers to the held-out prompts, one for each.

    Args:
        reward: [P] of the reward model, unedited.
        gold: [P].
        length: [P] tokens.
        residual: [P] the part of the reward that no latent holds; 0 for a SARM.
    """

    reward: Floats
    gold: Floats
    length: Floats
    residual: Floats


@dataclass(frozen=True)
class Trial:
    """A run's beginning, end, and metrics by step."""

    start: Measured
    end: Measured
    curve: tuple[Mapping[str, float], ...]


def lab_training(seed: int, *, steps: int = 40) -> TrainingConfig:
    """The settings of every PPO run in a world: 96 answers a step of at most 24 tokens."""
    return TrainingConfig(
        steps=steps,
        prompts_per_step=48,
        answers_per_prompt=2,
        max_new_tokens=LONGEST_ANSWER,
        minibatches=4,
        micro_batch=24,
        learning_rate=3e-4,
        warmup_steps=4,
        kl_coef=0.15,
        reference_answers=256,
        seed=seed,
    )


def run_trial(
    world: World,
    model: RewardModel,
    controls: Controls,
    training: TrainingConfig,
    *,
    label: str = "Training",
    progress: ProgressFactory = no_progress,
) -> Trial:
    """Trains the world's policy against its reward model under controls.

    Args:
        world: its policy is trained.
        model: its reward model, loaded.
        controls: edits, penalties, human KL; `Controls()` for none.
        training: settings.
        label: of the progress bar.
        progress: see `sarm_control.console.progress`.
    """
    policy = Policy.load(PolicyConfig(model=str(world.policy), lora=None), seed=training.seed, device="cpu")
    rows = read_rows(world.file("train_prompts"), want={"prompt"})
    prompts = encode_prompts(
        policy, [row.prompt for row in rows], [row.where for row in rows], training.max_new_tokens
    )
    reward = PolicyReward(model, controls, human=_human(world, model, controls), seed=training.seed)
    trainer = Trainer(policy, reward, prompts, training)
    # before the first step, and by the same answers' random numbers as the end
    start = measure(world, model, policy, training)
    trainer.calibrate()
    curve = []
    with progress(label, training.steps) as advance:
        for _ in range(training.steps):
            curve.append(trainer.step().metrics)
            advance(1, note=f"reward {curve[-1]['reward/model']:.3f}")
    return Trial(start, measure(world, model, policy, training), tuple(curve))


def measure(world: World, model: RewardModel, policy: Policy, training: TrainingConfig) -> Measured:
    """Measures one answer to every held-out prompt; equal seeds give all policies equal random numbers."""
    rows = read_rows(world.file("held_out_prompts"), want={"prompt"})
    texts = [row.prompt_text for row in rows]
    prompts = encode_prompts(policy, texts, [row.where for row in rows], training.max_new_tokens)
    sampling = Sampling(1, training.max_new_tokens, training.temperature, training.seed, batch=64)
    rollout = answer_prompts(policy, prompts, sampling)
    scored = model.score(texts, list(rollout.texts), ended=rollout.ended)
    return Measured(
        scored.rewards.astype(np.float64),
        world.gold(texts, rollout.texts),
        np.asarray(rollout.lengths, dtype=np.float64),
        scored.residual,
    )


def _human(world: World, model: RewardModel, controls: Controls) -> HumanBuffer | None:
    if controls.human_kl is None:
        return None
    rows = read_rows(world.file("human"), want={"answer"})
    scored = model.score([row.prompt for row in rows], [row.answers[0] for row in rows])
    return HumanBuffer.from_scored(scored, controls.human_kl.latents)
