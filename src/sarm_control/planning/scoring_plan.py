"""The plan of what scores answers: `sarm latents`, `sarm serve`, and attaching a dictionary."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarm_control.data import read_rows
from sarm_control.errors import ConfigError
from sarm_control.planning.machines import Machine
from sarm_control.planning.models import RewardShape, reward_shape
from sarm_control.planning.plan import Plan, with_allocator
from sarm_control.planning.training_memory import latent_counts, trunk_counts
from sarm_control.reward_model import configuration_folder, read_template, scoring_batch_tokens

_MEASURED_ROWS = 512
"""Rows whose lengths stand for all."""
_PAIR_BYTES = 8
_ROW_BYTES = 64
_SHARD_ROWS = 1_000
_TRAINED_TOGETHER = 1_024
"""States of a step of a dictionary's training."""


@dataclass(frozen=True)
class ScoringRequest:
    """What is planned.

    Args:
        what: `latents`, `serve` or `attach`.
        model: folder or hub id.
        data: files with answers; without any the trunk's whole context is assumed.
        latents: of the dictionary to attach.
        workers: processes, each with a model of its own.
        batch_tokens: padded tokens of one pass; None is the default.
        dtype: of the trunk.
    """

    what: str
    model: str
    data: tuple[Path, ...] = ()
    latents: int | None = None
    workers: int = 1
    batch_tokens: int | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class _Answers:
    """How many there are, and their tokens; `count` is None without data."""

    count: int | None
    longest: int
    mean: float


def plan_scoring(request: ScoringRequest, where: Machine) -> Plan:
    """What scoring will need; no weights are loaded.

    Raises:
        SarmError: a model or data that the command could not use either.
    """
    shape = reward_shape(request.model, request.dtype)
    if request.what == "attach":
        if shape.latents:
            raise ConfigError(
                f"{request.model} has {shape.latents:,} latents already",
                hint="name a reward model with a head of its own, or plan latents or serve",
            )
        if request.latents is None:
            raise ConfigError("how large the dictionary is to be was not said", hint="give --latents 65536")
    answers = _answers(request, shape)
    plan = _plan(request, shape, answers, where)
    if plan.fits:
        return plan
    return Plan(**{**vars(plan), "changes": tuple(_changes(request, shape, answers, where))})


def _answers(request: ScoringRequest, shape: RewardShape) -> _Answers:
    if not request.data:
        longest = shape.context or 2_048
        return _Answers(None, longest, float(longest))
    template = read_template(str(configuration_folder(request.model)))
    rows = [row for path in request.data for row in read_rows(path, want={"answer", "pair", "candidates"})]
    # spread over the whole file, which may be sorted by length
    some = rows[:: max(1, len(rows) // _MEASURED_ROWS)]
    lengths = [len(template.encode(row.prompt, answer).input_ids) for row in some for answer in row.answers]
    return _Answers(sum(len(row.answers) for row in rows), max(lengths), sum(lengths) / len(lengths))


def _plan(request: ScoringRequest, shape: RewardShape, answers: _Answers, where: Machine) -> Plan:
    budget = request.batch_tokens or scoring_batch_tokens(where.kind)
    rows = max(1, budget // answers.longest)
    if answers.count is not None:
        rows = min(rows, answers.count)
    trunk = trunk_counts(shape, rows, answers.longest)
    encoded = latent_counts(shape, _SHARD_ROWS if request.what == "latents" else rows)
    # the decoder stays in its file
    encoder = encoded["weights"] - encoded["decoder"]
    held = {"program": float(where.program), "weights": trunk["weights"], "latents": encoder}
    phases: dict[str, dict[str, float]] = {
        "scoring": {**held, "activations": trunk["pass"]},
        "encoding": {**held, "latents": encoder + encoded["pass"]},
    }
    disk: dict[str, float] = {}
    if request.what == "attach":
        phases, disk = _attaching(request, shape, answers, held, phases)
    elif request.what == "latents" and answers.count is not None:
        disk = {"tables": float(answers.count * (_PAIR_BYTES * max(shape.k, 1) + _ROW_BYTES))}
    phases = with_allocator(phases, held, where)
    if request.workers > 1:
        phases = {
            phase: {part: size * request.workers for part, size in parts.items()}
            for phase, parts in phases.items()
        }
    embedded = shape.config.vocab_size * shape.width
    rate = where.half_flops if shape.dtype.itemsize == 2 else where.flops
    each = 2 * (trunk["parameters"] - embedded) * answers.mean / rate
    seconds = {"scoring": rows * each}
    total = None if answers.count is None else answers.count * each / request.workers
    return Plan(
        request.what,
        where,
        {
            "reward trunk": int(trunk["parameters"]),
            **({"dictionary": int(encoded["parameters"])} if shape.latents else {}),
            **({"dictionary": _weights_of_dictionary(request, shape)} if request.what == "attach" else {}),
        },
        phases,
        seconds,
        f"{rows} answers, from {where.rates}: rough",
        total,
        disk,
        tuple(_notes(request, answers, budget)),
    )


def _weights_of_dictionary(request: ScoringRequest, shape: RewardShape) -> int:
    latents = request.latents or 0
    return latents + shape.width + 2 * latents * shape.width


def _attaching(
    request: ScoringRequest,
    shape: RewardShape,
    answers: _Answers,
    held: Mapping[str, float],
    scoring: Mapping[str, dict[str, float]],
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """States are read once; then the dictionary is trained on them, in float32 with AdamW's two moments."""
    weights = 4.0 * _weights_of_dictionary(request, shape)
    # pre-activations, the kept ones of them and their gradient
    batch = 3.0 * 4 * _TRAINED_TOGETHER * (request.latents or 0)
    states = 4.0 * shape.width * (answers.count or 0)
    training = {**held, "latents": weights + states, "optimizer": 3 * weights, "activations": batch}
    disk = {"states": states, "dictionary": weights}
    return {"reading states": dict(scoring["scoring"]), "training the dictionary": training}, disk


def _notes(request: ScoringRequest, answers: _Answers, budget: int) -> Iterator[str]:
    yield (
        f"memory is for conversations of {answers.longest} tokens, "
        f"{'the longest of the data' if request.data else 'the whole context'}, {budget} tokens a pass"
    )
    if answers.count is None and request.what != "serve":
        yield "no data was named, so that neither the time of all of it nor the disk is known"


def _changes(
    request: ScoringRequest, shape: RewardShape, answers: _Answers, where: Machine
) -> Iterator[tuple[str, float]]:
    before = _plan(request, shape, answers, where).peak
    budget = request.batch_tokens or scoring_batch_tokens(where.kind)
    tried: list[tuple[str, dict[str, Any]]] = [
        ("pass --workers 1", {"workers": 1}),
        (f"pass --batch-tokens {max(1, budget // 4)}", {"batch_tokens": max(1, budget // 4)}),
        ("pass --dtype bfloat16", {"dtype": "bfloat16"}),
    ]
    if request.latents:
        tried.append((f"pass --latents {request.latents // 2}", {"latents": request.latents // 2}))
    for text, values in tried:
        changed = ScoringRequest(**{**vars(request), **values})
        other = reward_shape(changed.model, changed.dtype)
        peak = _plan(changed, other, answers, where).peak
        # less than 2 % is within what a plan does not know
        if peak < 0.98 * before:
            yield text, peak
