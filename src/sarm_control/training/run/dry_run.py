"""The plan of a run, made before anything heavy is loaded."""

import re
from pathlib import Path

from sarm_control.control import HumanKL, Penalty
from sarm_control.embedded import model_folder
from sarm_control.errors import ModelError
from sarm_control.training.config.run_config import (
    PolicyConfig,
    RewardConfig,
    RunConfig,
    TrainingConfig,
)
from sarm_control.training.data.prompts import TrainingRows
from sarm_control.training.policy.adapter_files import checked_source

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)


def check_models(policy: PolicyConfig, reward: RewardConfig) -> None:
    """Refuses folders that are not there, unusable adapters, and latents that a SARM does not have.

    Nothing is loaded or downloaded; a name that can only be a hub id is not checked.

    Raises:
        ModelError: a path with no folder, a folder that is no SARM, or an adapter without its base.
        ConfigError: a latent outside 0..L-1, or settings that a continued adapter does not have.
    """
    for key, name in (("policy.model", policy.model), ("reward.model", reward.model)):
        if not Path(name).is_dir() and not _HUB_ID.fullmatch(name) and model_folder(name, "sarm") is None:
            raise ModelError(
                f"{key}: there is no folder {name}", hint="give a folder, or a hub id such as owner/name"
            )
    checked_source(policy)
    folder = model_folder(reward.model, "sarm") or Path(reward.model)
    if folder.is_dir():
        from sarm_control.reward_model import latents_of

        reward.controls().check(latents_of(folder, folder.resolve().name))


def plan_lines(config: RunConfig, rows: TrainingRows) -> list[str]:
    """The plan in words, one fact a line."""
    policy, reward, training, saved = config.policy, config.reward, config.training, config.checkpoints
    lines = [
        f"policy {policy.model}{_base(policy)}, {_trained(policy, training)}; "
        f"reward {reward.model}{_shaping(reward)}",
        _work(training, len(rows.kept)),
        f"controls: {'; '.join(_controls(reward)) or 'none'}",
    ]
    if config.data.exclude:
        files = ", ".join(str(path) for path in config.data.exclude)
        lines.append(f"{rows.dropped} prompts left out because they are in {files}")
    steps = "step" if saved.every == 1 else f"{saved.every} steps"
    lines += _references(reward, training, len(rows.kept))
    return [*lines, f"{_kl(training)}; a checkpoint every {steps} and at the end, {saved.keep} kept"]


def _shaping(reward: RewardConfig) -> str:
    return "" if reward.shaping == "none" else f", its total shaped by {reward.shaping.upper()}"


def _references(reward: RewardConfig, training: TrainingConfig, prompts: int) -> list[str]:
    """What PAR's reference answers cost; those to prompts of evaluations are not counted."""
    each = reward.par_answers
    if reward.shaping == "none" or not each:
        return []
    # of each prompt a checkpoint holds its hash and its rewards, 8 bytes a number
    drawn = min(prompts, training.steps * training.prompts_per_step)
    return [
        f"PAR: {each} reference answers to each of up to {drawn} prompts, sampled and scored when a prompt "
        f"is first drawn: {drawn * each} beside the run's own {training.steps * training.answers_per_step}; "
        f"{drawn * (each + 1) * 8 / 2**20:.2g} MiB in every checkpoint"
    ]


def _kl(training: TrainingConfig) -> str:
    moved = "" if training.kl_target is None else f", moved towards {training.kl_target:g} nats an answer"
    return f"KL coefficient {training.kl_coef:g}{moved}"


def _base(policy: PolicyConfig) -> str:
    source = checked_source(policy)
    if not source.adapters:
        return ""
    way = "merged into" if policy.adapter == "merge" else "on"
    return f" (an adapter {way} {source.adapted_name})"


def _trained(policy: PolicyConfig, training: TrainingConfig) -> str:
    critics = {"head": "", "adapter": ", values by a second adapter", "model": ", values by the SARM's trunk"}
    lora = policy.lora
    trained = "every weight trained" if lora is None else f"LoRA rank {lora.rank}"
    if policy.adapter == "continue":
        trained = "the adapter trained on"
    return trained + critics[training.value]


def _work(training: TrainingConfig, prompts: int) -> str:
    drawn = training.steps * training.prompts_per_step
    by = "" if training.has_critic else f" by {training.algorithm.upper()}"
    return (
        f"{training.steps} steps of {training.answers_per_step} answers "
        f"({training.prompts_per_step} prompts x {training.answers_per_prompt}, "
        f"up to {training.max_new_tokens} tokens){by}{_decoded(training)}; "
        f"{prompts} prompts, each used about {drawn / prompts:.1f} times"
    )


def _decoded(training: TrainingConfig) -> str:
    return ", decoded by transformers' generate" if training.sampler == "generate" else ""


def _controls(reward: RewardConfig) -> list[str]:
    words = [f"edit {edit}" for edit in reward.edits]
    words += [_penalty(penalty) for penalty in reward.penalties]
    words += [f"penalty on the pattern {one!r} (alpha {alpha})" for one, alpha in reward.patterns.items()]
    return words if reward.human_kl is None else [*words, _human(reward.human_kl)]


def _penalty(penalty: Penalty) -> str:
    amount = f"alpha {penalty.alpha}" if penalty.alpha is not None else f"target rate {penalty.target_rate}"
    return (
        f"penalty on {penalty.watched.removeprefix('latent ')} ({penalty.form}, tau {penalty.tau}, {amount})"
    )


def _human(term: HumanKL) -> str:
    latents = f"{len(term.latents)} latents" if term.latents else "latents chosen from the demonstrations"
    return f"human KL (beta {term.beta}, {latents})"
