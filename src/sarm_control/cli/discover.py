"""`sarm discover`: the latents that promote or harm what a file of pairs prefers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._scoring import (
    BatchTokens,
    Device,
    Dtype,
    MaxLength,
    Model,
    load_model,
    model_name,
    or_lab,
)
from sarm_control.console import progress, say
from sarm_control.embedded import AUDIT, LAB
from sarm_control.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from sarm_control.conversation.rows import Row
    from sarm_control.discovery.discover import Discovery, ScoredRows
    from sarm_control.sarm import RewardModel


Material = Annotated[
    float,
    Parameter(
        validator=validators.Number(gte=0),
        help="No control for a latent whose effect is a smaller share of the mean margin.",
    ),
]
MinPrompts = Annotated[
    int, Parameter(validator=validators.Number(gte=1), help="Test latents active in this many prompts.")
]
Top = Annotated[int, Parameter(validator=validators.Number(gte=0), help="Latents of each list to print.")]
MaterialSd = Annotated[
    float,
    Parameter(
        validator=validators.Number(gte=0),
        help="Nor for one whose effect is smaller than this many SDs of the reward over answers.",
    ),
]


def discover(
    *pairs: Annotated[
        Path,
        Parameter(
            help="JSON Lines of pairs; several files are pooled. Default with the lab model: lab:audit."
        ),
    ],
    model: Model = None,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="Folder for features.json and effects.parquet.")
    ],
    confirm: Annotated[
        list[Path] | None,
        Parameter(
            consume_multiple=True,
            help="Other pairs to confirm on. Default: half of the prompts is kept for it.",
        ),
    ] = None,
    alpha: Annotated[
        float,
        Parameter(validator=validators.Number(gt=0, lt=1), help="False discovery rate of each step."),
    ] = 0.05,
    min_prompts: MinPrompts = 10,
    by: Annotated[str | None, Parameter(help="Column of the data: margins for each of its values.")] = None,
    goal: Annotated[str | None, Parameter(help="What chosen is better in, for the record.")] = None,
    seed: Annotated[int, Parameter(help="Of the halves, the sign flips and the bootstrap.")] = 0,
    top: Top = 10,
    skip_bad_rows: Annotated[
        Path | None,
        Parameter(help="Folder for the rows that cannot be used; without it they stop the command."),
    ] = None,
    write_controls: Annotated[
        Path | None, Parameter(help="Also write the suggested controls to this YAML file.")
    ] = None,
    material: Material = 0.01,
    material_sd: MaterialSd = 0.0,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="Counts and summaries as JSON.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the outputs if they exist.")] = False,
) -> None:
    """Find the latents that promote or harm what your pairs prefer.

    One scoring pass, then exact algebra: each latent's part of the margin, tested by sign flips with
    the prompt as the unit. Latents are selected on one half of the prompts (or on the files given),
    effects are quoted from the other half (or from --confirm). A latent promotes or harms by the sign
    of its effect, never of its weight alone.
    """
    from sarm_control.discovery.discover import Settings, check_column
    from sarm_control.discovery.discover import discover as find

    name, pairs = _sources(model, pairs)
    inputs = [*pairs, *(confirm or [])]
    for path in (out, json_file, write_controls):
        _check_output(path, inputs, overwrite=overwrite)
    selecting, confirming = (_read(files, skip_bad_rows) for files in (pairs, confirm or []))
    check_column([*selecting, *confirming], by)
    rm = load_model(name, device=device, dtype=dtype, max_length=max_length)
    scored = _score(rm, selecting, confirming, batch_tokens)
    found = find(*scored, settings=Settings(alpha=alpha, min_prompts=min_prompts, seed=seed, by=by))
    files = [path.name for path in pairs]
    config = {
        "model": model_name(name),
        "goal": goal or f"chosen over rejected in {', '.join(files)}",
        "selection": files,
        "confirm": [path.name for path in confirm or []],
        "alpha": alpha,
        "min_prompts": min_prompts,
        "by": by,
        "dtype": dtype,
        "max_length": rm.template.max_length,
    }
    _write(found, out, inputs, config, overwrite=overwrite)
    least = {"material": material, "material_sd": material_sd}
    _write_extras(found, config, least, json_file, write_controls)
    _print(found, top)


def _sources(model: str | None, pairs: tuple[Path, ...]) -> tuple[str, tuple[Path, ...]]:
    """The model and the files of pairs; the embedded world has both."""
    if pairs:
        return or_lab(model), pairs
    if model not in (None, LAB):
        raise ConfigError("no file of pairs was given", hint="sarm discover --model M pairs.jsonl -o DIR")
    return or_lab(model, "pairs"), (AUDIT,)


def _check_output(path: Path | None, inputs: Sequence[Path], *, overwrite: bool) -> None:
    from sarm_control.files import check_writable

    if path is None:
        return
    if path.resolve() in {other.resolve() for other in inputs}:
        raise ConfigError(f"{path} is an input too and would be overwritten", hint="choose another output")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint="choose another name or pass --overwrite")
    check_writable(path)


def _read(files: Sequence[Path], skip_bad_rows: Path | None) -> "list[Row]":
    from sarm_control.conversation.rows import count_empty_answers, read_rows

    rows: list[Row] = []
    for path in files:
        aside = skip_bad_rows / f"{path.stem}.bad.jsonl" if skip_bad_rows else None
        rows += read_rows(path, want={"pair"}, skip_bad_rows=aside)
    empty = count_empty_answers(rows)
    if empty:
        say(f"warning: {empty} answers are empty strings; they were scored as they are")
    return rows


def _score(
    rm: "RewardModel", selecting: "list[Row]", confirming: "list[Row]", batch_tokens: int | None
) -> "tuple[ScoredRows, ScoredRows | None]":
    """One pass over both parts."""
    import numpy as np

    from sarm_control.discovery.discover import ScoredRows
    from sarm_control.evaluation.scored_rows import score_rows

    scored = score_rows(rm, [*selecting, *confirming], batch_tokens=batch_tokens, progress=progress)
    cut = int((scored.truncated > 0).sum())
    if cut:
        say(f"warning: {cut} answers were cut from the left to fit the context")
    middle = sum(len(row.answers) for row in selecting)
    first = ScoredRows(selecting, scored.take(np.arange(middle)))
    if not confirming:
        return first, None
    return first, ScoredRows(confirming, scored.take(np.arange(middle, len(scored))))


def _write(
    found: "Discovery", out: Path, inputs: list[Path], config: dict[str, Any], *, overwrite: bool
) -> None:
    from sarm_control.files import atomic_folder, manifest, write_json

    record = manifest("discover", inputs=inputs, config=config, seed=found.settings.seed)
    features = found.features(model=config["model"], goal=config["goal"], data=record["inputs"])
    with atomic_folder(out, overwrite=overwrite) as folder:
        found.table.write_parquet(folder / "effects.parquet")
        features.save(folder / "features.json")
        write_json(folder / "manifest.json", record)


def _write_extras(
    found: "Discovery",
    config: dict[str, Any],
    least: dict[str, float],
    json_file: Path | None,
    write_controls: Path | None,
) -> None:
    from sarm_control.discovery.text import controls_yaml
    from sarm_control.files import write_json, write_text

    if json_file is not None:
        lists = {name: [one.as_json() for one in items] for name, items in found.lists.items()}
        write_json(json_file, {**config, **least, "head": found.head, **found.as_json(), "lists": lists})
    if write_controls is not None:
        write_text(write_controls, controls_yaml(found, model=config["model"], **least))


def _print(found: "Discovery", top: int) -> None:
    import sys

    from sarm_control.discovery.text import summary_text

    sys.stdout.write(summary_text(found, top=top))
