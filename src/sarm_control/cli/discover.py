"""`sarm discover`: the latents that promote or harm what a file of pairs prefers.

The options of `sarm discover`, by what they decide.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._outputs import check_outputs
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, Model, SkipBadRows, TemplateDate
from sarm_control.cli._sources import ModelFlags, Source, read_parts, warn
from sarm_control.console import progress, say
from sarm_control.embedded import AUDIT, LAB
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.data import Kind, Row
    from sarm_control.discovery import Discovery, Examination, Settings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarm_control.discovery import CLOSING

if TYPE_CHECKING:
    from sarm_control.discovery import Settings


@Parameter(name="*")
@dataclass(frozen=True)
class SearchFlags:
    """What is looked for, and how strictly."""

    target: Annotated[
        str | None,
        Parameter(
            help="An attribute of an answer in place of the preference: length, column:NAME, "
            "column:NAME=VALUE or regex:PATTERN. Rows then need answers, not pairs."
        ),
    ] = None
    less: Annotated[
        bool, Parameter(negative="", help="With --target: the goal is less of it, so what pays for it harms.")
    ] = False
    by: Annotated[
        str | None, Parameter(help="Column of the data: margins and called latents for each of its values.")
    ] = None
    goal: Annotated[str | None, Parameter(help="What chosen is better in, for the record.")] = None
    alpha: Annotated[
        float,
        Parameter(validator=validators.Number(gt=0, lt=1), help="False discovery rate of each step."),
    ] = 0.05
    min_prompts: Annotated[
        int,
        Parameter(validator=validators.Number(gte=1), help="Test latents active in this many prompts."),
    ] = 10
    random_sets: Annotated[
        int,
        Parameter(
            validator=validators.Number(gte=1), help="Matched random sets that selections are held against."
        ),
    ] = 1000
    seed: Annotated[int, Parameter(help="Of the halves, the redraws of labels and the sets.")] = 0

    def settings(self) -> "Settings":
        """These as the library takes them.

        Raises:
            ConfigError: a target nobody can read, or `--less` without one.
        """
        from sarm_control.discovery import Settings, parse_target
        from sarm_control.errors import ConfigError

        if self.less and self.target is None:
            raise ConfigError(
                "--less wants a --target", hint="a preference is turned by exchanging its sides"
            )
        return Settings(
            alpha=self.alpha,
            min_prompts=self.min_prompts,
            seed=self.seed,
            by=self.by,
            sets=self.random_sets,
            target=None if self.target is None else parse_target(self.target, less=self.less),
        )


@Parameter(name="*")
@dataclass(frozen=True)
class EvidenceFlags:
    """How deep the evidence goes."""

    levels: Annotated[
        int,
        Parameter(
            validator=validators.Number(gte=1, lte=4),
            help="1 exact algebra; 2 before TopK; 3 in the state; 4 in the text, with a closing sentence.",
        ),
    ] = 1
    counterfactuals: Annotated[
        Path | None,
        Parameter(help="Pairs of texts that differ in the goal alone; level 4 for the called latents."),
    ] = None
    closing: Annotated[str, Parameter(help="The sentence that level 4 adds to answers.")] = CLOSING


@Parameter(name="*")
@dataclass(frozen=True)
class ControlFlags:
    """The controls that are suggested."""

    write_controls: Annotated[
        Path | None, Parameter(help="Also write the suggested controls to this YAML file.")
    ] = None
    material: Annotated[
        float,
        Parameter(
            validator=validators.Number(gte=0),
            help="No control for a latent whose effect is a smaller share of the mean margin.",
        ),
    ] = 0.01
    material_sd: Annotated[
        float,
        Parameter(
            validator=validators.Number(gte=0),
            help="Nor for one whose effect is smaller than this many SDs of the reward over answers.",
        ),
    ] = 0.0


_SEARCH, _EVIDENCE, _CONTROLS = SearchFlags(), EvidenceFlags(), ControlFlags()

Top = Annotated[int, Parameter(validator=validators.Number(gte=0), help="Latents of each list to print.")]


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
    search: SearchFlags = _SEARCH,
    evidence: EvidenceFlags = _EVIDENCE,
    controls: ControlFlags = _CONTROLS,
    top: Top = 10,
    skip_bad_rows: SkipBadRows = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="Everything found as JSON.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the outputs if they exist.")] = False,
) -> None:
    """Find the latents that promote or harm what your pairs prefer.

    One scoring pass, then exact algebra: each latent's part of the margin, tested by redrawing within
    every prompt which answers are the chosen ones. Latents are selected on one half of the prompts (or
    on the files given), effects are quoted from the other half (or from --confirm). A latent promotes
    or harms by the sign of its effect, never of its weight alone. With --target an attribute of single
    answers, such as length, is looked for in place of the preference.
    """
    from sarm_control.discovery import Depth, check_states, examine
    from sarm_control.discovery import discover as find

    settings = search.settings()
    given, pairs = pairs, _pairs(model, pairs)
    inputs = [*pairs, *(confirm or []), *([evidence.counterfactuals] if evidence.counterfactuals else [])]
    check_outputs((out, json_file, controls.write_controls), inputs, overwrite=overwrite)
    missing = () if given else ("pairs",)
    scoring = ModelFlags(
        model, device, dtype, max_length, batch_tokens, template_date, missing=missing, keep_states=True
    )
    parts = [pairs, *([confirm] if confirm else [])]
    sources = _read(parts, scoring, settings, skip_bad_rows, evidence.counterfactuals)
    selection, *others = [source.scored_rows for source in sources]
    texts = others.pop() if evidence.counterfactuals else None
    check_states([selection, *others], evidence.levels)
    # which latents get no control is decided before doses are chosen: these are right together only
    found = find(selection, others[0] if others else None, settings).dosed(
        of_margin=controls.material, of_sd=controls.material_sd
    )
    depth = Depth(evidence.levels, texts, evidence.closing)
    examined = examine(found, scoring.load, depth, progress=progress)
    config = {
        "model": sources[0].model,
        "goal": search.goal or _goal(settings, pairs),
        "selection": [path.name for path in pairs],
        "confirm": [path.name for path in confirm or []],
        "alpha": settings.alpha,
        "min_prompts": settings.min_prompts,
        "by": settings.by,
        "target": search.target,
        "less": search.less,
        "levels": evidence.levels,
        "dtype": dtype,
        "max_length": scoring.context,
        **scoring.dated,
    }
    _write(examined, out, inputs, config, overwrite=overwrite)
    _write_extras(examined, config, controls, json_file)
    _print(examined, top)


def _pairs(model: str | None, pairs: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files of pairs; the embedded world has some of its own."""
    if not pairs and model not in (None, LAB):
        raise ConfigError("no file of pairs was given", hint="sarm discover --model M pairs.jsonl -o DIR")
    return pairs or (AUDIT,)


def _goal(settings: "Settings", pairs: Sequence[Path]) -> str:
    what = "chosen over rejected" if settings.target is None else settings.target.goal
    return f"{what} in {', '.join(path.name for path in pairs)}"


def _read(
    parts: Sequence[Sequence[Path]],
    scoring: ModelFlags,
    settings: "Settings",
    skip_bad_rows: Path | None,
    counterfactuals: Path | None,
) -> list[Source]:
    from sarm_control.discovery import check_column

    want: set[Kind] = {"pair"} if settings.target is None else {"pair", "candidates", "answer"}

    def check(rows: "Sequence[Row]") -> None:
        check_column(rows, settings.by)
        check_column(rows, None if settings.target is None else settings.target.column)

    scoring.needs_latents = "effects of latents cannot be found"
    sources = read_parts(
        parts,
        scoring,
        want=want,
        aside=lambda path: skip_bad_rows / f"{path.stem}.bad.jsonl" if skip_bad_rows else None,
        check=check,
        beside=counterfactuals,
    )
    warn(sources)
    return sources


def _write(
    examined: "Examination", out: Path, inputs: list[Path], config: dict[str, Any], *, overwrite: bool
) -> None:
    from sarm_control.files import atomic_folder, manifest, write_json

    found = examined.found
    record = manifest("discover", inputs=inputs, config=config, seed=found.settings.seed)
    features = examined.features(model=config["model"], goal=config["goal"], data=record["inputs"])
    with atomic_folder(out, overwrite=overwrite) as folder:
        found.table.write_parquet(folder / "effects.parquet")
        features.save(folder / "features.json")
        write_json(folder / "manifest.json", record)


def _write_extras(
    examined: "Examination", config: dict[str, Any], controls: ControlFlags, json_file: Path | None
) -> None:
    from sarm_control.discovery import controls_yaml
    from sarm_control.files import write_json, write_text

    found = examined.found
    least = {"material": controls.material, "material_sd": controls.material_sd}
    if json_file is not None:
        lists = {name: [one.as_json() for one in items] for name, items in found.lists.items()}
        write_json(json_file, {**config, **least, "head": found.head, **examined.as_json(), "lists": lists})
    if controls.write_controls is not None:
        _warn_of_margin(found, controls.material)
        write_text(controls.write_controls, controls_yaml(found, model=config["model"], **least))


def _warn_of_margin(found: "Discovery", material: float) -> None:
    """A share of a margin that may be 0 is no size; which latents get a control is then chance."""
    margin = found.confirmation.margin
    if material and found.lists["harms"] and not (margin.low > 0 or margin.high < 0):
        from sarm_control.statistics import with_ends

        say(
            f"warning: the mean margin {with_ends(margin, '+.4g')} may be 0, so "
            f"--material {material:g}, a share of it, says little; --material-sd sets a least effect in SDs"
        )


def _print(examined: "Examination", top: int) -> None:
    import sys

    from sarm_control.discovery import summary_text

    sys.stdout.write(summary_text(examined, top=top))
