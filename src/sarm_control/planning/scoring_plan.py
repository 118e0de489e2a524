"""The plan of what scores answers: `sarm latents`, `sarm serve`, and attaching a dictionary."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from sarm_control.attaching import AttachConfig, choose_dictionary_sizes
from sarm_control.build import sentence_positions
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
_PASSES = 6
"""Batches of different lengths whose memory is measured: blocks of one size leave no gaps in the heap."""
_PRODUCTS = 5
"""Of states and dictionary in a step of its training: encoding and decoding, and back through both."""


@dataclass(frozen=True)
class ScoringRequest:
    """What is planned.

    Args:
        what: `latents`, `serve` or `attach`.
        model: folder or hub id.
        data: files with answers; without any the trunk's whole context is assumed.
        latents: of the dictionary to attach.
        steps: of its training; None is the default.
        workers: processes, each with a model of its own.
        batch_tokens: padded tokens of one pass; None is the default.
        dtype: of the trunk.
    """

    what: str
    model: str
    data: tuple[Path, ...] = ()
    latents: int | None = None
    steps: int | None = None
    workers: int = 1
    batch_tokens: int | None = None
    dtype: str | None = None

    @property
    def training(self) -> AttachConfig:
        """How the dictionary is trained."""
        return AttachConfig() if self.steps is None else AttachConfig(steps=self.steps)


@dataclass(frozen=True)
class _Answers:
    """How many there are, and their tokens; `count` is None without data.

    `others` is how many further states of an answer a dictionary is trained on, those at ends of sentences.
    """

    count: int | None
    longest: int
    mean: float
    others: float = 0.0


_Taken: TypeAlias = tuple[int | None, int | None]
"""Bytes that a pass and encoding were measured to take; None where they were not."""


def plan_scoring(
    request: ScoringRequest, where: Machine, *, probe: bool = False, probe_seconds: float = 20.0
) -> Plan:
    """What scoring will need; no weights are loaded.

    Args:
        request: what is planned.
        where: the machine.
        probe: time layers of the real width here.
        probe_seconds: what that may take, about.

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
    taken: _Taken = (None, None)
    if probe:
        # before anything else leaves free memory behind, in which it would disappear
        taken = _probed_memory(request, shape, answers, where)
    plan = _plan(request, shape, answers, where, taken)
    if probe:
        seconds = _probed(request, shape, answers, where, probe_seconds)
        plan = replace(
            plan,
            seconds=seconds,
            timed_by=f"{_named(request, answers, where)}, timed here with random weights",
            total_seconds=_total(request, seconds, answers, where),
        )
    return plan if plan.fits else replace(plan, changes=tuple(_changes(request, shape, answers, where)))


def _answers(request: ScoringRequest, shape: RewardShape) -> _Answers:
    # without data the plan is for the worst that the model can be asked
    if not request.data:
        longest = shape.context or 2_048
        return _Answers(None, longest, float(longest))
    template = read_template(str(configuration_folder(request.model)))
    rows = [row for path in request.data for row in read_rows(path, want={"answer", "pair", "candidates"})]
    # spread over the whole file, which may be sorted by length
    some = rows[:: max(1, len(rows) // _MEASURED_ROWS)]
    encoded = [template.encode(row.prompt, answer) for row in some for answer in row.answers]
    lengths, others = [len(one.input_ids) for one in encoded], 0.0
    if request.what == "attach":
        others = sum(len(sentence_positions(template, one)) for one in encoded) / len(encoded)
    return _Answers(sum(len(row.answers) for row in rows), max(lengths), sum(lengths) / len(lengths), others)


def _rows(request: ScoringRequest, answers: _Answers, where: Machine, tokens: float) -> int:
    """Conversations of so many tokens in a pass."""
    rows = max(1, int(_budget(request, where) // tokens))
    return rows if answers.count is None else min(rows, answers.count)


def _budget(request: ScoringRequest, where: Machine) -> int:
    return request.batch_tokens or scoring_batch_tokens(where.kind)


def _probed_memory(request: ScoringRequest, shape: RewardShape, answers: _Answers, where: Machine) -> _Taken:
    """What passes take beside weights, of batches of all lengths, the longest first as in scoring."""
    from sarm_control.planning.probe import probed_pass_memory

    shortest = max(1.0, 2 * answers.mean - answers.longest)
    step = (answers.longest - shortest) / (_PASSES - 1)
    lengths = [*(round(answers.longest - step * i) for i in range(_PASSES)), answers.longest]
    passes = [(_rows(request, answers, where, tokens), tokens) for tokens in lengths]
    return probed_pass_memory(shape, passes, where.kind)


def _plan(
    request: ScoringRequest,
    shape: RewardShape,
    answers: _Answers,
    where: Machine,
    taken: _Taken = (None, None),
) -> Plan:
    rows = _rows(request, answers, where, answers.longest)
    trunk = trunk_counts(shape, rows, answers.longest)
    encoded = latent_counts(shape, _SHARD_ROWS if request.what == "latents" else rows)
    # the decoder stays in its file
    encoder = encoded["weights"] - encoded["decoder"]
    held = {"program": float(where.program), "weights": trunk["weights"], "latents": encoder}
    # what was measured has all that is counted in it, and what kernels and the heap take besides
    passing, encoding = (
        max(counted, found or 0)
        for counted, found in zip((trunk["pass"], encoded["pass"]), taken, strict=True)
    )
    phases: dict[str, dict[str, float]] = {
        "scoring": {**held, "activations": passing},
        "encoding": {**held, "latents": encoder + encoding},
    }
    disk: dict[str, float] = {}
    if request.what == "attach":
        phases, disk = _attaching(request, shape, answers, held, phases)
    elif request.what == "latents" and answers.count is not None:
        disk = {"tables": float(answers.count * (_PAIR_BYTES * max(shape.k, 1) + _ROW_BYTES))}
    phases = with_allocator(phases, held, where)
    if request.workers > 1:
        # every process has a model of its own; weights are not shared between them
        phases = {
            phase: {part: size * request.workers for part, size in parts.items()}
            for phase, parts in phases.items()
        }
    seconds = _counted(request, shape, answers, where, trunk["parameters"])
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
        f"{_named(request, answers, where)}, from {where.rates}: rough",
        _total(request, seconds, answers, where),
        disk,
        tuple(_notes(request, answers, _budget(request, where))),
    )


def _named(request: ScoringRequest, answers: _Answers, where: Machine) -> str:
    """What a step is."""
    rows = f"{_rows(request, answers, where, answers.mean)} answers"
    return f"{rows} and {request.training.batch} trained states" if request.what == "attach" else rows


def _counted(
    request: ScoringRequest, shape: RewardShape, answers: _Answers, where: Machine, parameters: float
) -> dict[str, float]:
    """Seconds of a pass, and of a step of the dictionary's training, by operations and rates."""
    embedded = shape.config.vocab_size * shape.width
    rate = where.half_flops if shape.dtype.itemsize == 2 else where.flops
    rows = _rows(request, answers, where, answers.mean)
    # 2 operations for each weight and number: a multiplication and an addition
    found = {"scoring": 2 * rows * (parameters - embedded) * answers.mean / rate}
    if request.what == "attach":
        products = _PRODUCTS * (request.latents or 0) * shape.width
        found["dictionary"] = 2 * request.training.batch * products / where.flops
    return found


def _probed(
    request: ScoringRequest, shape: RewardShape, answers: _Answers, where: Machine, seconds: float
) -> dict[str, float]:
    """The same, timed here."""
    from sarm_control.planning.probe import probed_dictionary_step, probed_pass

    rows, tokens = _rows(request, answers, where, answers.mean), max(1, round(answers.mean))
    found = {"scoring": probed_pass(shape, rows, tokens, where.kind, seconds)}
    if request.what == "attach":
        latents = request.latents or 1
        k = choose_dictionary_sizes(shape.width, answers.count or latents, latents=latents).k
        batch = request.training.batch
        found["dictionary"] = probed_dictionary_step(shape.width, latents, k, batch, where.kind)
    return found


def _total(
    request: ScoringRequest, seconds: Mapping[str, float], answers: _Answers, where: Machine
) -> float | None:
    """Seconds of all of it; None where it is not known how many answers there are."""
    if answers.count is None:
        return None
    passes = answers.count / _rows(request, answers, where, answers.mean) / request.workers
    return passes * seconds["scoring"] + request.training.steps * seconds.get("dictionary", 0.0)


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
    """States are read once; then the dictionary is trained on them, in float32 with Adam's two moments."""
    weights = 4.0 * _weights_of_dictionary(request, shape)
    # pre-activations, the kept ones of them and their gradient
    batch = 3.0 * 4 * request.training.batch * (request.latents or 0)
    states = 4.0 * shape.width * (answers.count or 0) * (1 + answers.others)
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
    budget = _budget(request, where)
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
