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
)
from sarm_control.cli._sources import ModelFlags, read_parts, warn
from sarm_control.embedded import AUDIT, LAB
from sarm_control.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from sarm_control.discovery.discover import Discovery

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
            help="JSON Lines of pairs, or folders of sarm latents; several are pooled. "
            "Default with the lab model: lab:audit."
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

    given, pairs = pairs, _pairs(model, pairs)
    inputs = [*pairs, *(confirm or [])]
    for path in (out, json_file, write_controls):
        _check_output(path, inputs, overwrite=overwrite)
    missing = () if given else ("pairs",)
    scoring = ModelFlags(model, device, dtype, max_length, batch_tokens, missing=missing)
    sources = read_parts(
        [pairs, confirm] if confirm else [pairs],
        scoring,
        want={"pair"},
        aside=lambda path: skip_bad_rows / f"{path.stem}.bad.jsonl" if skip_bad_rows else None,
        check=lambda rows: check_column(rows, by),
    )
    warn(sources)
    scored = [source.scored_rows for source in sources]
    found = find(*scored, settings=Settings(alpha=alpha, min_prompts=min_prompts, seed=seed, by=by))
    files = [path.name for path in pairs]
    config = {
        "model": sources[0].model,
        "goal": goal or f"chosen over rejected in {', '.join(files)}",
        "selection": files,
        "confirm": [path.name for path in confirm or []],
        "alpha": alpha,
        "min_prompts": min_prompts,
        "by": by,
        "dtype": dtype,
        "max_length": scoring.context,
    }
    _write(found, out, inputs, config, overwrite=overwrite)
    least = {"material": material, "material_sd": material_sd}
    _write_extras(found, config, least, json_file, write_controls)
    _print(found, top)


def _pairs(model: str | None, pairs: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files of pairs; the embedded world has some of its own."""
    if not pairs and model not in (None, LAB):
        raise ConfigError("no file of pairs was given", hint="sarm discover --model M pairs.jsonl -o DIR")
    return pairs or (AUDIT,)


def _check_output(path: Path | None, inputs: Sequence[Path], *, overwrite: bool) -> None:
    from sarm_control.files import check_writable

    if path is None:
        return
    if path.resolve() in {other.resolve() for other in inputs}:
        raise ConfigError(f"{path} is an input too and would be overwritten", hint="choose another output")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint="choose another name or pass --overwrite")
    check_writable(path)


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
