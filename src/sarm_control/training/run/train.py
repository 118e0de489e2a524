"""A whole run: models and data loaded, steps done and recorded, the policy saved."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.locks import locked
from sarm_control.reward_model import RewardModel
from sarm_control.training.algorithm.reference_rewards import ReferenceRewards
from sarm_control.training.algorithm.reward import SarmReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.data.prompts import training_rows
from sarm_control.training.distributed.processes import ALONE, Processes
from sarm_control.training.monitor.evaluation import Gold
from sarm_control.training.monitor.observer import Tell, build_observer, tell_nobody
from sarm_control.training.policy.critic_model import attach_critic
from sarm_control.training.policy.policy import Policy
from sarm_control.training.policy.weights_digest import weights_digest
from sarm_control.training.rollout.generate_sampler import GenerateSampler, check_decodes
from sarm_control.training.rollout.rollout import OURS, encode_prompts
from sarm_control.training.rollout.sampler import Sampler
from sarm_control.training.run.checkpoint import writing
from sarm_control.training.run.completed_run import ADAPTER, POLICY
from sarm_control.training.run.demonstrations import human_buffer
from sarm_control.training.run.loop import RunSteps
from sarm_control.training.run.run_folder import TEMPLATE_DATE, RunFolder, Start

HUMAN = "human.safetensors"


def run_training(
    config: RunConfig,
    start: Start,
    *,
    progress: ProgressFactory = no_progress,
    tell: Tell = tell_nobody,
    gold: Gold | None = None,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Trains from where `start` says to the last step and saves the policy in the run folder.

    Args:
        config: the run's settings.
        start: where it begins, the same in every process.
        progress: shows the steps.
        tell: is given what evaluations and warnings say, a line at a time.
        gold: the worth of answers to the evaluation prompts, where a program knows it.
        processes: who shares the work; all read the run folder, the first writes it.

    Returns:
        A summary: `step`, how many of the steps were done now, the folders written, the last step's
        metrics (none when no step was left to do), and `stopped`: why the run ended before its last step,
        or None.

    Raises:
        SarmError: a model, file or setting that cannot be used; a reward that is no number; another process
            writes the same run.
    """
    folder = start.folder
    with locked(folder.path) if processes.first else contextlib.nullcontext():
        return _train(config, start, processes, progress=progress, tell=tell, gold=gold)


def _train(
    config: RunConfig,
    start: Start,
    processes: Processes,
    *,
    progress: ProgressFactory,
    tell: Tell,
    gold: Gold | None,
) -> dict[str, Any]:
    folder = start.folder
    config = folder.settled(config)
    trainer = build_trainer(config, folder.path, progress=progress, processes=processes)
    assert isinstance(trainer.reward, SarmReward)
    digests = _digests(trainer.policy, trainer.reward.model)
    if processes.first:
        folder.same_models(digests)
    observer = build_observer(config, trainer.policy, trainer.reward, gold)
    run = RunSteps(trainer, observer, folder, config, tell)
    run.begin(start)
    before = trainer.done
    last = run.go(progress)
    summary = {"step": trainer.done, "steps_now": trainer.done - before, "metrics": last}
    if run.stopped is not None:
        return {**summary, "saved": [], "stopped": run.stopped.text}
    weights = trainer.policy.state_tensors()["policy"]
    saved = processes.from_first(
        lambda: _save_policy(_saved(trainer.policy, weights, config), trainer, folder)
    )
    return {**summary, "saved": saved, "stopped": None}


def _digests(policy: Policy, model: RewardModel) -> dict[str, str]:
    reward = weights_digest(*model.modules)
    dtype = "bfloat16" if policy.autocast else "float32"
    days = {"policy": policy.template.date, "reward": model.template.date}
    return {
        "policy.model": weights_digest(policy.model),
        "policy.dtype": dtype,
        "reward.model": reward,
        **{f"{name}.{TEMPLATE_DATE}": day.isoformat() for name, day in days.items() if day is not None},
    }


def _saved(policy: Policy, weights: Mapping[str, Tensor], config: RunConfig) -> Policy:
    """The policy, or a whole copy of it where it lies in parts."""
    if policy.sharding is None:
        return policy
    copy = Policy.load(
        config.policy, seed=config.training.seed, device="cpu", template_date=config.data.template_date
    )
    with torch.no_grad():
        for name, weight in copy.trainable().items():
            weight.copy_(weights[name])
    return copy


def _save_policy(policy: Policy, trainer: Trainer, folder: RunFolder) -> list[str]:
    with writing(folder.path / POLICY):
        policy.save(folder.path / POLICY, overwrite=True)
        saved = [POLICY]
        if policy.save_adapter(folder.path / ADAPTER, overwrite=True):
            saved.append(ADAPTER)
        folder.finish({"step": trainer.done})
    return saved


def build_trainer(
    config: RunConfig,
    run: Path,
    *,
    progress: ProgressFactory = no_progress,
    processes: Processes = ALONE,
) -> Trainer:
    """Loads the models and data of a run, cheapest first, so that mistakes are told early.

    Args:
        config: the run's settings.
        run: its folder, where the human buffer is kept.
        progress: shows the scoring of demonstrations.
        processes: who shares the work.
    """
    rows, day = training_rows(config).kept, config.data.template_date
    policy = Policy.load(config.policy, seed=config.training.seed, device=processes.device, template_date=day)
    prompts = encode_prompts(
        policy, [row.prompt for row in rows], [row.where for row in rows], config.training.max_new_tokens
    )
    model = RewardModel.from_pretrained(config.reward.model, device=processes.device, template_date=day)
    longest = max(len(row.ids) for row in prompts) + config.training.max_new_tokens
    attach_critic(policy, config, model, longest)
    if processes.sharding != "none":
        policy.shard(reshard=processes.sharding == "layers")
    human = processes.from_first(lambda: human_buffer(config, model, run / HUMAN, progress=progress))
    reward = SarmReward(
        model,
        config.reward.controls(),
        missing_end=config.reward.missing_end_penalty,
        standardize=config.reward.standardize,
        shaping=config.reward.shaping,
        references=_references(config, policy, processes),
        human=human,
        seed=config.training.seed,
        processes=processes,
    )
    sampler: Sampler = OURS
    if config.training.sampler == "generate":
        check_decodes(policy)
        sampler = GenerateSampler(longest)
    return Trainer(policy, reward, prompts, config.training, sampler=sampler, processes=processes)


def _references(config: RunConfig, policy: Policy, processes: Processes) -> ReferenceRewards | None:
    wanted = config.reward.par_answers if config.reward.shaping == "par" else 0
    return ReferenceRewards(policy, config.training, wanted, processes) if wanted else None
