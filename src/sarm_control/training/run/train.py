"""A whole run: loads models and data, does and records the steps, and saves the policy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.locks import locked
from sarm_control.reward_model import RewardModel, read_template
from sarm_control.training.algorithm.reference_rewards import ReferenceRewards
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import RewardConfig, RunConfig, TrainingConfig
from sarm_control.training.data.prompts import training_rows
from sarm_control.training.data.usable_prompts import EvaluationPrompts, UsablePrompts, usable_prompts
from sarm_control.training.distributed.processes import ALONE, Processes
from sarm_control.training.monitor.evaluation import Gold
from sarm_control.training.monitor.observer import Observer, Report, build_observer, report_nothing
from sarm_control.training.policy.critic_model import attach_critic
from sarm_control.training.policy.policy import Policy
from sarm_control.training.policy.weights_digest import weights_digest
from sarm_control.training.rollout.generate_sampler import GenerateSampler, check_decodes
from sarm_control.training.rollout.rollout import OURS
from sarm_control.training.rollout.sampler import Sampler
from sarm_control.training.run.checkpoint import writing
from sarm_control.training.run.completed_run import ADAPTER, POLICY
from sarm_control.training.run.demonstrations import human_buffer
from sarm_control.training.run.loop import RunSteps
from sarm_control.training.run.run_folder import TEMPLATE_DATE, RunFolder, Start
from sarm_control.training.tracking.trackers import tracked

HUMAN = "human.safetensors"


def run_training(
    config: RunConfig,
    start: Start,
    *,
    progress: ProgressFactory = no_progress,
    report: Report = report_nothing,
    gold: Gold | None = None,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Trains from `start` to the last step and saves the policy in the run folder.

    Args:
        config: the run's settings.
        start: where the run begins, the same in every process.
        progress: shows the steps.
        report: gets the lines of evaluations and warnings.
        gold: judges answers to the evaluation prompts, where a program can.
        processes: share the work; all read the run folder, only the main process writes it.

    Returns:
        A summary: `step`, the last step done; `steps_now`, how many were done now; `metrics` of the last step
        (empty when no step was left); `saved`, the folders written; and `stopped`, why the run ended before
        its last step, or None.

    Raises:
        SarmError: a model, file or setting that cannot be used; a reward of NaN or infinity; another process
            writes the same run.
    """
    folder = start.folder
    if not processes.is_main:
        return _train(config, start, processes, progress=progress, report=report, gold=gold)
    # the lock first: a second process must not open the run's trackers
    with locked(folder.path), tracked(config, start, report):
        return _train(config, start, processes, progress=progress, report=report, gold=gold)


def _train(
    config: RunConfig,
    start: Start,
    processes: Processes,
    *,
    progress: ProgressFactory,
    report: Report,
    gold: Gold | None,
) -> dict[str, Any]:
    folder = start.folder
    config = folder.settled(config)
    trainer, prompts = _build(config, folder.path, progress, processes)
    for line in prompts.lines:
        report(line)
    assert isinstance(trainer.reward, PolicyReward)
    # in every process: of sharded layers all have to take part
    digests = _digests(trainer.policy, trainer.reward.model)
    if processes.is_main:
        folder.same_models(digests)
    run = RunSteps(
        trainer,
        _observer(config, prompts.evaluation, trainer.policy, trainer.reward, gold),
        folder,
        steps=config.training.steps,
        save_every=config.checkpoints.every,
        report=report,
    )
    run.begin(start)
    before = trainer.done
    last = run.go(progress)
    summary = {"step": trainer.done, "steps_now": trainer.done - before, "metrics": last}
    if run.stopped is not None:
        return {**summary, "saved": [], "stopped": run.stopped.text}
    # all processes gather sharded weights here, though only the main one saves them
    weights = trainer.policy.state_tensors()["policy"]
    saved = processes.from_main(
        lambda: _save_policy(_whole_policy(trainer.policy, weights, config), trainer.done, folder)
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


def _observer(
    config: RunConfig, prompts: EvaluationPrompts, policy: Policy, reward: PolicyReward, gold: Gold | None
) -> Observer:
    return build_observer(config.evaluation, config.training, prompts, policy, reward, gold)


def _load_policy(config: RunConfig, device: str | None) -> Policy:
    date = config.data.template_date
    return Policy.load(config.policy, seed=config.training.seed, device=device, template_date=date)


def _whole_policy(policy: Policy, weights: Mapping[str, Tensor], config: RunConfig) -> Policy:
    """The policy, or a copy of it on the CPU where its layers are sharded."""
    if policy.sharding is None:
        return policy
    # layers are sharded because a GPU may not hold them whole
    copy = _load_policy(config, "cpu")
    with torch.no_grad():
        for name, weight in copy.trainable().items():
            weight.copy_(weights[name])
    return copy


def _save_policy(policy: Policy, step: int, folder: RunFolder) -> list[str]:
    with writing(folder.path / POLICY):
        policy.save(folder.path / POLICY, overwrite=True)
        saved = [POLICY]
        if policy.save_adapter(folder.path / ADAPTER, overwrite=True):
            saved.append(ADAPTER)
        # last: a run that is marked as finished has its policy
        folder.finish({"step": step})
    return saved


def build_trainer(
    config: RunConfig,
    run: Path,
    *,
    progress: ProgressFactory = no_progress,
    processes: Processes = ALONE,
) -> Trainer:
    """Loads the models and data of a run, the cheapest first, so that mistakes are reported early.

    Args:
        config: the run's settings.
        run: its folder, where the human buffer is kept.
        progress: shows the scoring of demonstrations.
        processes: share the work.
    """
    return _build(config, run, progress, processes)[0]


def _build(
    config: RunConfig, run: Path, progress: ProgressFactory, processes: Processes
) -> tuple[Trainer, UsablePrompts]:
    """As `build_trainer`, with all prompts of the run; every one was checked."""
    data, training, asked = config.data, config.training, config.reward
    rows = training_rows(data).kept
    policy = _load_policy(config, processes.device)
    # before the weights of the reward model: every prompt has to suit it, too
    of_reward = read_template(asked.model, template_date=data.template_date)
    prompts = usable_prompts(config, rows, policy.template, policy.context, of_reward)
    model = RewardModel.from_pretrained(
        asked.model, device=processes.device, template_date=data.template_date
    )
    longest = max(len(row.ids) for row in prompts.training) + training.max_new_tokens
    attach_critic(policy, training.value, config.policy, model, seed=training.seed, longest=longest)
    # after the critic: an adapter critic adds weights to the layers that are sharded
    if processes.sharding != "none":
        policy.shard(reshard=processes.sharding == "layers")
    human = processes.from_main(
        lambda: human_buffer(
            data.human,
            asked.human_kl,
            model,
            run / HUMAN,
            answers=training.answers_per_step,
            options=data.row_options,
            progress=progress,
        )
    )
    reward = PolicyReward(
        model,
        asked.controls(),
        missing_end=asked.missing_end_penalty,
        standardize=asked.standardize,
        shaping=asked.shaping,
        patterns=asked.pattern_penalties,
        references=_references(asked, training, policy, processes),
        human=human,
        seed=training.seed,
        processes=processes,
    )
    sampler: Sampler = OURS
    if training.sampler == "generate":
        check_decodes(policy)
        sampler = GenerateSampler(longest)
    trainer = Trainer(policy, reward, prompts.training, training, sampler=sampler, processes=processes)
    return trainer, prompts


def _references(
    reward: RewardConfig, training: TrainingConfig, policy: Policy, processes: Processes
) -> ReferenceRewards | None:
    answers = reward.par_answers if reward.shaping == "par" else 0
    return ReferenceRewards(policy, training, answers, processes) if answers else None
