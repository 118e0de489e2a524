"""A whole run: models and data loaded, steps done and recorded, the policy saved."""

from pathlib import Path
from typing import Any

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.ppo.checkpoint import load_checkpoint
from sarm_control.ppo.config import RunConfig
from sarm_control.ppo.critic_model import attach_critic
from sarm_control.ppo.demonstrations import human_buffer
from sarm_control.ppo.plan import training_rows
from sarm_control.ppo.policy import Policy
from sarm_control.ppo.reward import SarmReward
from sarm_control.ppo.rollout import encode_prompts
from sarm_control.ppo.run_folder import RunFolder, Start
from sarm_control.ppo.trainer import Trainer
from sarm_control.sarm.reward_model import RewardModel

POLICY, ADAPTER, HUMAN = "policy", "adapter", "human.safetensors"


def run_training(
    config: RunConfig, start: Start, *, progress: ProgressFactory = no_progress
) -> dict[str, Any]:
    """Trains from where `start` says to the last step and saves the policy in the run folder.

    Returns:
        A summary: `step`, the folders written, and the last step's metrics.

    Raises:
        SarmError: a model, file or setting that cannot be used; a reward that is no number.
    """
    folder = start.folder
    trainer = build_trainer(config, folder.path, progress=progress)
    if start.checkpoint is None:
        trainer.calibrate()
        _save(trainer, folder)
    else:
        found = load_checkpoint(start.checkpoint)
        trainer.load_state(found.tensors, found.state)
    last = _steps(trainer, config, folder, progress)
    trainer.policy.save(folder.path / POLICY, overwrite=True)
    saved = [POLICY]
    if trainer.policy.save_adapter(folder.path / ADAPTER, overwrite=True):
        saved.append(ADAPTER)
    summary = {"step": trainer.done, "saved": saved, "metrics": last}
    folder.finish({"step": trainer.done})
    return summary


def build_trainer(config: RunConfig, run: Path, *, progress: ProgressFactory = no_progress) -> Trainer:
    """Loads the models and data of a run, cheapest first, so that mistakes are told early.

    Args:
        config: the run's settings.
        run: its folder, where the human buffer is kept.
        progress: shows the scoring of demonstrations.
    """
    rows = training_rows(config).kept
    policy = Policy.load(config.policy, seed=config.training.seed)
    prompts = encode_prompts(
        policy, [row.prompt for row in rows], [row.where for row in rows], config.training.max_new_tokens
    )
    model = RewardModel.from_pretrained(config.reward.model)
    longest = max(len(row.ids) for row in prompts) + config.training.max_new_tokens
    attach_critic(policy, config, model, longest)
    reward = SarmReward(
        model,
        config.reward.controls(),
        missing_end=config.reward.missing_end_penalty,
        standardize=config.reward.standardize,
        shaping=config.reward.shaping,
        human=human_buffer(config, model, run / HUMAN, progress=progress),
        seed=config.training.seed,
    )
    return Trainer(policy, reward, prompts, config.training)


def _steps(
    trainer: Trainer, config: RunConfig, folder: RunFolder, progress: ProgressFactory
) -> dict[str, float]:
    steps, last = config.training.steps, {}
    with progress("Training", steps) as advance:
        if trainer.done:
            advance(trainer.done)
        while trainer.done < steps:
            report = trainer.step()
            last = report.metrics
            folder.record(report.step, last, timing=report.timing, samples=report.samples)
            if report.step == steps or report.step % config.checkpoints.every == 0:
                _save(trainer, folder)
            advance(1, note=f"reward {last['reward/total']:.4f}, KL {last['objective/kl']:.3f}")
    return last


def _save(trainer: Trainer, folder: RunFolder) -> None:
    state = trainer.state()
    folder.save(trainer.done, state.tensors, state.values)
