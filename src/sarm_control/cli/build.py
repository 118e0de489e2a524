"""`sarm build`: a SARM from a causal language model, or a new head for an existing one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from sarm_control.cli._outputs import hold_output
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, TemplateDate, model_name
from sarm_control.cli._sources import say_respelled
from sarm_control.console import progress, say
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.build import AutoencoderConfig, BuildConfig, Inputs, TrunkSource

_AT_LEAST_1 = validators.Number(gte=1)
_AT_LEAST_0 = validators.Number(gte=0)
_ABOVE_0 = validators.Number(gt=0)

Base = Annotated[str | None, Parameter(help="Causal language model: hub id, folder, or lab.")]
Existing = Annotated[
    str | None, Parameter(name=["--model", "-m"], help="Existing SARM: only its head is fitted again.")
]
Layer = Annotated[int | None, Parameter(validator=_AT_LEAST_1, help="Decoder layers to keep in the trunk.")]
Latents = Annotated[int | None, Parameter(validator=_AT_LEAST_1, help="Latents of the autoencoder.")]
Kept = Annotated[int | None, Parameter(validator=_AT_LEAST_1, help="Latents kept for each answer.")]
Texts = Annotated[
    list[Path] | None,
    Parameter(consume_multiple=True, help="Rows with answers, for the autoencoder."),
]
Pairs = Annotated[list[Path] | None, Parameter(consume_multiple=True, help="Preference rows, for the head.")]
Evaluation = Annotated[
    list[Path] | None,
    Parameter(
        name="--eval", consume_multiple=True, help="Preference rows for figures only, never for building."
    ),
]
Validating = Annotated[
    list[Path] | None,
    Parameter(
        consume_multiple=True,
        help="Preference rows that choose the head's regularisation. Default: cross-validation.",
    ),
]
SentenceStates = Annotated[bool, Parameter(help="Train the autoencoder on the states at sentence ends too.")]
Steps = Annotated[int, Parameter(validator=_AT_LEAST_1, help="Training steps of the autoencoder.")]
Batch = Annotated[int, Parameter(validator=_AT_LEAST_1, help="States of a step.")]
LearningRate = Annotated[float | None, Parameter(validator=_ABOVE_0, help="Of the autoencoder.")]
EndOfTurnShare = Annotated[
    float | None,
    Parameter(
        validator=validators.Number(gt=0, lte=1),
        help="Share of a batch that is end-of-turn states; the rest are sentence ends.",
    ),
]
TuneTrunk = Annotated[
    int, Parameter(validator=_AT_LEAST_0, help="Epochs of tuning the trunk on the pairs first.")
]
TuneAfter = Annotated[
    int, Parameter(validator=_AT_LEAST_0, help="Epochs of tuning trunk and head, autoencoder frozen.")
]
Tuning = Annotated[Literal["lora", "full"], Parameter(help="How the trunk is tuned.")]
TuneRows = Annotated[
    int, Parameter(validator=_AT_LEAST_1, help="Preference rows of a step of tuning the trunk.")
]
TuneLearningRate = Annotated[
    float | None, Parameter(validator=_ABOVE_0, help="Of the trunk. Default: 1e-4 for lora, 1e-5 for full.")
]
Annotator = Annotated[
    str | None,
    Parameter(help="Field of --pairs that names who labelled a row: one reward each in --tune-trunk."),
]
Holdout = Annotated[
    float, Parameter(validator=validators.Number(gt=0, lt=1), help="Share of prompts kept out of every fit.")
]
Cache = Annotated[
    Path | None, Parameter(help="Folder for states. Default: sarm-control/states in the user's cache.")
]


def build(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Folder for the SARM.")],
    base: Base = None,
    model: Existing = None,
    layer: Layer = None,
    latents: Latents = None,
    k: Kept = None,
    text: Texts = None,
    pairs: Pairs = None,
    validate: Validating = None,
    evaluate: Evaluation = None,
    sentence_states: SentenceStates = True,
    steps: Steps = 2000,
    batch: Batch = 1024,
    learning_rate: LearningRate = None,
    end_of_turn_share: EndOfTurnShare = None,
    tune_trunk: TuneTrunk = 0,
    tune_after: TuneAfter = 0,
    tune: Tuning = "lora",
    tune_rows: TuneRows = 8,
    tune_learning_rate: TuneLearningRate = None,
    annotator: Annotator = None,
    rows: RowFlags = AS_THEY_ARE,
    holdout: Holdout = 0.15,
    cache: Cache = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    seed: Annotated[int, Parameter(validator=_AT_LEAST_0, help="Of everything random.")] = 0,
    json_file: Annotated[Path | None, Parameter(name="--json", help="The figures as JSON.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the output if it exists.")] = False,
) -> None:
    """Build a SARM from any causal language model, or fit a new head.

    With --base everything is made; with --model and --pairs only the head of an existing SARM is.
    The folder also gets build.json with every figure and manifest.json with what it was made from.
    """
    from sarm_control.build import BuildConfig, Tools, build_sarm, save_built
    from sarm_control.files import write_json

    _check_sources(base, model, {"--layer": layer, "--latents": latents, "--k": k, "--text": text}, pairs)
    for path in (out, json_file):
        hold_output(path, overwrite=overwrite)
    schedule = {"learning_rate": learning_rate, "end_of_turn_share": end_of_turn_share}
    sizes = {"latents": latents, "k": k, "steps": steps, "batch": batch, "seed": seed}
    config = BuildConfig(
        autoencoder=None if model else _autoencoder(sizes, schedule),
        sentence_states=sentence_states,
        holdout=holdout,
        tune_trunk=tune_trunk,
        tune_after=tune_after,
        tune=tune,
        tune_rows=tune_rows,
        tune_learning_rate=tune_learning_rate,
        annotator=annotator,
        batch_tokens=batch_tokens,
        seed=seed,
    )
    inputs = _read(text or [], pairs or [], evaluate or [], validate or [], annotator, rows)
    how: dict[str, Any] = {"device": device, "dtype": dtype, "template_date": template_date}
    parts = _parts(base, model, layer, max_length, how)
    tools = Tools(cache=cache or _default_cache(), progress=progress, say=say)
    built = build_sarm(parts, inputs, config, tools)
    files = [*(text or []), *(pairs or []), *(validate or []), *(evaluate or [])]
    source = {"base": base, "model": model, "layer": layer, "dtype": dtype, **rows.recorded}
    if parts.template.date is not None:
        source["template_date"] = parts.template.date.isoformat()
    record = _manifest(config, files, source)
    save_built(built, out, record, overwrite=overwrite)
    if json_file is not None:
        write_json(json_file, {**record["config"], **built.figures})
    say(f"{out}: {built.model.config.latents} latents, head {built.model.fingerprint}")


def _check_sources(
    base: str | None, model: str | None, needed: dict[str, Any], pairs: Sequence[Path] | None
) -> None:
    if (base is None) == (model is None):
        raise ConfigError(
            "give either --base (build everything) or --model (fit a new head)",
            hint="sarm build --base lab --layer 2 --latents 24 --k 6 --pairs lab:preferences -o DIR",
        )
    if model is not None:
        given = [name for name, value in needed.items() if value is not None]
        if given:
            raise ConfigError(f"{', '.join(given)}: an existing SARM keeps its trunk and autoencoder")
        if not pairs:
            raise ConfigError("a new head needs preferences", hint="add --pairs pairs.jsonl")
        return
    optional = {"--text"} if pairs else set()
    missing = [name for name, value in needed.items() if value is None and name not in optional]
    if missing:
        raise ConfigError(f"--base also needs {', '.join(missing)}", hint="see: sarm build --help")


def _autoencoder(sizes: dict[str, Any], schedule: dict[str, Any]) -> "AutoencoderConfig":
    from sarm_control.build import AutoencoderConfig

    chosen = {key: value for key, value in schedule.items() if value is not None}
    return AutoencoderConfig(**sizes, **chosen)


def _read(
    text: Sequence[Path],
    pairs: Sequence[Path],
    evaluate: Sequence[Path],
    validate: Sequence[Path],
    annotator: str | None,
    row_flags: RowFlags,
) -> "Inputs":
    from sarm_control.build import Inputs, read_pairs, read_texts

    options, limit = row_flags.options, row_flags.first_rows
    evaluation = {path.stem: read_pairs([path], options=options, limit=limit) for path in evaluate}
    preferences = read_pairs(pairs, annotator=annotator, options=options, limit=limit)
    texts = read_texts(text, options, limit=limit)
    validation = read_pairs(validate, options=options, limit=limit)
    say_respelled([*texts, *preferences, *validation, *(row for rows in evaluation.values() for row in rows)])
    return Inputs(texts, preferences, evaluation, validation)


def _parts(
    base: str | None,
    model: str | None,
    layer: int | None,
    max_length: int | None,
    how: dict[str, Any],
) -> "TrunkSource":
    from sarm_control.build import TrunkSource, cut_base
    from sarm_control.cli._scoring import load_model

    if model is not None:
        return TrunkSource.of(load_model(model, max_length=max_length, **how))
    return cut_base(str(base), int(layer or 0), max_length=max_length, **how)


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "sarm-control" / "states"


def _manifest(config: "BuildConfig", inputs: Sequence[Path], source: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    from sarm_control.files import manifest

    named = {key: model_name(source[key]) if source[key] else None for key in ("base", "model")}
    settings = {**source, **named, **asdict(config)}
    return manifest("build", inputs=list(dict.fromkeys(inputs)), config=settings, seed=config.seed)
