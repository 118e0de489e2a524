"""The plan of a training run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sarm_control.data import Row
from sarm_control.errors import ConfigError
from sarm_control.planning.machines import Machine, machine, memory_of_this_machine
from sarm_control.planning.models import RewardShape, policy_config, reward_shape
from sarm_control.planning.plan import Plan, with_allocator
from sarm_control.planning.skeletons import PolicyShape
from sarm_control.planning.training_memory import (
    Lengths,
    latent_counts,
    parameters,
    policy_counts,
    trunk_counts,
)
from sarm_control.planning.training_time import Sizes, phase_seconds
from sarm_control.reward_model import scoring_batch_tokens
from sarm_control.training import (
    LoraConfig,
    RunConfig,
    checked_source,
    computes_in_half,
    training_rows,
    usable_prompts,
)

_LOG_BYTES = 8_192
"""Of a step in the run folder's tables: metrics, timing, samples."""
_SMALL = 0.25
"""Share of the memory that a run which is not planned may take at most."""
_AROUND = 8
"""Tokens that another chat template may put around a conversation beyond the policy's own."""


@dataclass(frozen=True)
class TrainingShape:
    """What is planned: both models, and the lengths of conversations."""

    config: RunConfig
    policy: PolicyShape
    reward: RewardShape
    lengths: Lengths


def plan_training(
    config: RunConfig,
    *,
    where: Machine | None = None,
    rows: Sequence[Row] | None = None,
    answer_tokens: float | None = None,
    probe: bool = False,
) -> Plan:
    """What a run will need; no weights are loaded.

    Args:
        config: the run's settings.
        where: the machine; this one by default.
        rows: those that are trained on, where they were read already.
        answer_tokens: expected of answers on average, for the time; by default the longest.
        probe: time layers of the real width here, in about 20 seconds.

    Raises:
        SarmError: models or data that the run could not use either.
    """
    where = where or machine()
    shape = shape_of(config, where, rows=rows, answer_tokens=answer_tokens)
    plan = _plan(shape, where)
    if probe:
        from sarm_control.planning.probe import probed_seconds

        seconds = probed_seconds(shape.policy, shape.reward, shape.lengths, where.kind)
        total = sum(seconds.values()) * config.training.steps
        plan = replace(plan, seconds=seconds, timed_by="timed here with random weights", total_seconds=total)
    return plan if plan.fits else replace(plan, changes=tuple(_changes(shape, where, plan.peak)))


def check_room(config: RunConfig, rows: Sequence[Row]) -> None:
    """Refuses a run that will not fit into this machine's memory, before anything of it is loaded.

    A run that a generous guess finds small is not planned in full, which takes some seconds.

    Args:
        config: the run's settings.
        rows: those that are trained on.

    Raises:
        MemoryTooSmall: the plan's peak is more than the machine has.
    """
    if _generous(config) <= _SMALL * (memory_of_this_machine() or math.inf):
        return
    plan_training(config, rows=rows).refuse_too_large("--ignore-memory")


def _generous(config: RunConfig) -> float:
    """More bytes than a run needs, from a few numbers of its configurations."""
    source = checked_source(config.policy)
    models: list[Any] = [policy_config(source.base), reward_shape(config.reward.model).config]
    training = config.training
    found = 0.0
    for model in models:
        width, layers = model.hidden_size, model.num_hidden_layers
        inner = getattr(model, "intermediate_size", None) or 4 * width
        weights = 2 * model.vocab_size * width + layers * (4 * width * width + 3 * width * inner)
        # weights, a reference, gradients, two moments, and a copy while saving: six times four bytes
        found += 24.0 * weights
    policy = models[0]
    # the whole context, as if every prompt filled it: no prompt is tokenized here
    tokens = policy.max_position_embeddings or 4_096
    heads = policy.num_attention_heads
    inner = getattr(policy, "intermediate_size", None) or 4 * policy.hidden_size
    row = 16 * policy.hidden_size + 6 * inner + 4 * heads * tokens
    rows = min(training.micro_batch, training.answers_per_step)
    cached = 64 * 4 * policy.hidden_size
    return found + float(4.0 * tokens * policy.num_hidden_layers * (rows * row + cached))


def shape_of(
    config: RunConfig,
    where: Machine,
    *,
    rows: Sequence[Row] | None = None,
    answer_tokens: float | None = None,
) -> TrainingShape:
    """Both models and the lengths of a run, from its files.

    Raises:
        SarmError: see `plan_training`.
    """
    source = checked_source(config.policy)
    reward = reward_shape(config.reward.model)
    device = torch.device(where.kind)
    half = computes_in_half(config.policy, source.base, local_files_only=False, device=device)
    # auto is what the planned machine can do, which need not be this one
    if config.policy.dtype == "auto" and not where.half:
        half = False
    lora, continued = config.policy.lora, config.policy.adapter == "continue"
    if continued and source.adapters:
        lora = _of_adapter(source.adapters[-1].settings)
    policy = PolicyShape(
        policy_config(source.base),
        config.policy,
        config.training,
        half,
        where.kind != "cpu",
        lora,
        continued,
    )
    return TrainingShape(
        config, policy, reward, _lengths(config, policy, source.tokenizer, rows, answer_tokens)
    )


def _of_adapter(settings: Mapping[str, Any]) -> LoraConfig:
    targets = settings["target_modules"]
    return LoraConfig(
        rank=settings["r"],
        alpha=settings["lora_alpha"],
        targets=targets
        if targets == "all-linear"
        else tuple([targets] if isinstance(targets, str) else targets),
    )


def _lengths(
    config: RunConfig,
    policy: PolicyShape,
    tokenizer: str,
    rows: Sequence[Row] | None,
    answer_tokens: float | None,
) -> Lengths:
    """Of the run's own prompts by the policy's own template."""
    from sarm_control.conversation import ChatTemplate, load_tokenizer
    from sarm_control.reward_model import configuration_folder

    place = tokenizer if Path(tokenizer).is_dir() else str(configuration_folder(tokenizer))
    template = ChatTemplate(load_tokenizer(place, local_files_only=True), date=config.data.template_date)
    kept = training_rows(config.data).kept if rows is None else rows
    context = getattr(policy.config, "max_position_embeddings", None)
    prompts = usable_prompts(config, kept, template, int(context) if context else None, None)
    counts = [len(row.ids) for row in prompts.training]
    most = config.training.max_new_tokens
    mean = float(most) if answer_tokens is None else answer_tokens
    if not 0 < mean <= most:
        raise ConfigError(
            f"answers of {mean:g} tokens on average, and training.max_new_tokens is {most}",
            hint=f"give a number above 0 and at most {most}",
        )
    return Lengths(prompts.longest, sum(counts) / len(counts), most, mean)


def _plan(shape: TrainingShape, where: Machine) -> Plan:
    config, training = shape.config, shape.config.training
    counts = policy_counts(shape.policy, shape.reward, shape.lengths)
    tokens = min(shape.lengths.longest + _AROUND, shape.reward.context or shape.lengths.longest + _AROUND)
    most = max(training.answers_per_step, training.reference_answers)
    rows = max(1, min(most, scoring_batch_tokens(where.kind) // tokens))
    trunk, latents = trunk_counts(shape.reward, rows, tokens), latent_counts(shape.reward, most)
    weights = parameters(shape.policy, shape.reward)
    held = {
        "program": where.program,
        "weights": counts["held/weights"] + trunk["weights"],
        "adapters": counts["held/adapters"],
        "optimizer": counts["held/gradients"] + counts["held/optimizer"],
        "latents": latents["weights"],
    }
    head = shape.policy.config.vocab_size * shape.policy.config.hidden_size
    # an untied model has its table of words twice, as embedding and as output
    untied = 1 if shape.policy.config.tie_word_embeddings else 2
    sizes = Sizes(
        weights["policy"] - untied * head,
        head,
        2 if shape.policy.half and shape.policy.lora is not None else 4,
        counts["rollout/kv_cache"] / (_decoded_together(shape) * shape.lengths.longest),
    )
    # an embedding is looked up and takes part in no product
    embedded = shape.reward.config.vocab_size * shape.reward.width
    seconds = phase_seconds(
        shape.policy, shape.reward, sizes, trunk["parameters"] - embedded, shape.lengths, where
    )
    extras = _phases(counts, trunk["pass"], latents["pass"])
    phases = with_allocator({name: _added(held, extra) for name, extra in extras.items()}, held, where)
    return Plan(
        "train",
        where,
        {
            "policy": int(weights["policy"]),
            "trained": int(weights["trained"]),
            "reward trunk": int(trunk["parameters"]),
            **({"dictionary": int(latents["parameters"])} if shape.reward.latents else {}),
        },
        phases,
        seconds,
        f"from {where.rates}: rough",
        sum(seconds.values()) * training.steps,
        _disk(config, counts),
        tuple(_notes(shape, where)),
    )


def _decoded_together(shape: TrainingShape) -> int:
    from sarm_control.training import CachedSampler

    training = shape.config.training
    repeats = training.answers_per_prompt
    return max(1, min(CachedSampler().batch_answers // repeats, training.prompts_per_step)) * repeats


def _phases(counts: Mapping[str, float], trunk: float, latents: float) -> dict[str, dict[str, float]]:
    """What each phase adds to what is held."""
    # one of them at a time: the largest counts, under the name of what it is
    passing = max(counts["rollout/prefill"], counts["rollout/pass"])
    drawing = counts["rollout/logits"]
    head = counts["update/kept"] + counts["update/logits"] >= counts["update/backward"]
    return {
        "rollout": {
            "weights": counts["rollout/merged"],
            "kv_cache": counts["rollout/kv_cache"],
            "activations": passing if passing > drawing else 0.0,
            "logits": 0.0 if passing > drawing else drawing,
        },
        "reward": {"activations": max(trunk - latents, 0.0), "latents": min(latents, trunk)},
        "logprobs": {
            "weights": counts["logprobs/rounded"],
            "activations": counts["logprobs/pass"],
            "logits": counts["logprobs/logits"],
        },
        "update": {
            "activations": counts["update/kept"] if head else counts["update/backward"],
            "logits": counts["update/logits"] if head else 0.0,
        },
        # the trained policy is written from a float32 copy, adapters merged
        "saving": {"weights": counts["held/copied"]},
    }


def _added(held: Mapping[str, float], extra: Mapping[str, float]) -> dict[str, float]:
    return {part: held.get(part, 0.0) + extra.get(part, 0.0) for part in {**held, **extra}}


def _disk(config: RunConfig, counts: Mapping[str, float]) -> dict[str, float]:
    """One checkpoint more than are kept, while the newest is written."""
    trained, steps = counts["held/gradients"], config.training.steps
    checkpoint = trained + counts["held/optimizer"]
    saved = -(-steps // config.checkpoints.every) + 1
    return {
        "checkpoints": checkpoint * min(config.checkpoints.keep + 1, saved),
        "policy": counts["held/saved"],
        "adapter": counts["held/adapters"],
        "tables": float(_LOG_BYTES * steps),
    }


def _notes(shape: TrainingShape, where: Machine) -> Iterator[str]:
    lengths = shape.lengths
    yield (
        f"memory is for prompts of {lengths.prompt} tokens, the longest, and answers of {lengths.answer}; "
        f"time is for {lengths.mean_prompt:.0f} and {lengths.mean_answer:.0f}"
    )
    if where.kind != "cpu":
        yield "memory is that of the GPU; figures for GPUs were not measured on one"


def _changes(shape: TrainingShape, where: Machine, before: float) -> Iterator[tuple[str, float]]:
    """Settings that make the run smaller, each planned anew; those that do not help are left out."""
    config = shape.config
    # in the order of what they cost: the first changes no result, the last is another way to train
    for text, section, values in (
        ("set training.micro_batch=1", "training", {"micro_batch": 1}),
        ("set policy.gradient_checkpointing=true", "policy", {"gradient_checkpointing": True}),
        ("set policy.dtype=bfloat16", "policy", {"dtype": "bfloat16"}),
        (
            f"set training.max_new_tokens={max(1, config.training.max_new_tokens // 2)}",
            "training",
            {"max_new_tokens": max(1, config.training.max_new_tokens // 2)},
        ),
        ("set training.value=head", "training", {"value": "head"}),
        ("train adapters: leave policy.lora at its default", "policy", {"lora": LoraConfig()}),
    ):
        changed = config.model_copy(update={section: getattr(config, section).model_copy(update=values)})
        if changed == config:
            continue
        peak = _plan(_with(shape, changed), where).peak
        # less than 2 % is within what a plan does not know
        if peak < 0.98 * before:
            yield text, peak


def _with(shape: TrainingShape, config: RunConfig) -> TrainingShape:
    lora = shape.policy.lora if config.policy.lora == shape.config.policy.lora else config.policy.lora
    policy = replace(
        shape.policy,
        settings=config.policy,
        training=config.training,
        half=shape.policy.half or config.policy.dtype == "bfloat16",
        lora=lora,
    )
    most = config.training.max_new_tokens
    lengths = replace(shape.lengths, answer=most, mean_answer=min(most, shape.lengths.mean_answer))
    return TrainingShape(config, policy, shape.reward, lengths)
