"""`sarm discover`: the latents that promote or harm what a file of pairs prefers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._discover_flags import ControlFlags, EvidenceFlags, SearchFlags
from sarm_control.cli._help import INPUT, OUTPUT, RARE_OUTPUT
from sarm_control.cli._next import beside, of_model, of_training, say_next
from sarm_control.cli._outputs import DryRun, Html, Overwrite, check_outputs, say_dry_run, write_html
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, Model, SkipBadRows, TemplateDate
from sarm_control.cli._sources import ModelFlags, Prepared, prepare, warn
from sarm_control.console import progress, say
from sarm_control.embedded import AUDIT, LAB_MODELS
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.data import Kind
    from sarm_control.discovery import Discovery, DiscoverySettings, ExaminedDiscovery
    from sarm_control.pages import Page
_SEARCH, _EVIDENCE, _CONTROLS = SearchFlags(), EvidenceFlags(), ControlFlags()

Top = Annotated[
    int,
    Parameter(group=RARE_OUTPUT, validator=validators.Number(gte=0), help="Latents of each list to print."),
]

JsonFile = Annotated[Path | None, Parameter(group=OUTPUT, name="--json", help="Everything found as JSON.")]

Confirm = Annotated[
    list[Path] | None,
    Parameter(
        group=INPUT,
        consume_multiple=True,
        help="Other pairs to confirm on. Default: half of the prompts is kept for it.",
    ),
]

Pairs = Annotated[
    Path,
    Parameter(
        group=INPUT,
        help="Files of pairs, or folders of sarm latents; several are pooled. "
        "Default with the lab model: lab:audit.",
    ),
]


def discover(
    *pairs: Pairs,
    model: Model = None,
    out: Annotated[
        Path,
        Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder for features.json and effects.parquet."),
    ],
    confirm: Confirm = None,
    search: SearchFlags = _SEARCH,
    evidence: EvidenceFlags = _EVIDENCE,
    controls: ControlFlags = _CONTROLS,
    top: Top = 10,
    rows: RowFlags = AS_THEY_ARE,
    skip_bad_rows: SkipBadRows = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    json_file: JsonFile = None,
    html: Html = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Find the latents that promote or harm what your pairs prefer.

    One scoring pass, then exact algebra: each latent's part of the margin, tested by redrawing within
    every prompt which answers are the chosen ones. Latents are selected on one half of the prompts (or
    on the files given), effects are quoted from the other half (or from --confirm). A latent promotes
    or harms by the sign of its effect, never of its weight alone. With --target an attribute of single
    answers, such as length, is looked for in place of the preference.
    """
    from sarm_control.discovery import Depth, examine
    from sarm_control.discovery import discover as find

    settings = search.settings()
    given, pairs = pairs, _pairs(model, pairs)
    inputs = [*pairs, *(confirm or []), *([evidence.counterfactuals] if evidence.counterfactuals else [])]
    outputs = (out, json_file, html, controls.write_controls)
    check_outputs(outputs, inputs, overwrite=overwrite, make=not dry_run)
    missing = () if given else ("pairs",)
    scoring = ModelFlags(
        model, device, dtype, max_length, batch_tokens, template_date, missing=missing, keep_states=True
    )
    parts = [pairs, *([confirm] if confirm else [])]
    # nothing below has read weights yet: a dry run ends here
    prepared = _prepare(parts, scoring, settings, skip_bad_rows, evidence, rows)
    if dry_run:
        _say_plan(prepared, out)
        return
    sources = prepared.score()
    warn(sources)
    selection, *others = [source.scored_rows for source in sources]
    # the last source, see `prepare`
    texts = others.pop() if evidence.counterfactuals else None
    # which latents get no control is decided before doses are chosen: these are right together only
    found = find(selection, others[0] if others else None, settings).with_suggestions(
        of_margin=controls.material, of_sd=controls.material_sd
    )
    depth = Depth(evidence.levels, texts, evidence.closing)
    # the model comes as a function: level 1 needs none, and with folders of latents none is loaded
    examined = examine(found, scoring.load, depth, progress=progress)
    config = {
        "model": sources[0].model,
        "goal": search.goal or _goal(settings, pairs),
        "selection": [path.name for path in pairs],
        "confirm": [path.name for path in confirm or []],
        **search.recorded,
        "levels": evidence.levels,
        "dtype": dtype,
        "max_length": scoring.context,
        **scoring.dated,
        **rows.recorded,
    }
    _write(examined, out, html, inputs, config, overwrite=overwrite)
    _write_extras(examined, config, controls, json_file)
    _print(examined, top)
    _say_next(examined, scoring.model, pairs, out, controls.write_controls)


def _pairs(model: str | None, pairs: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files of pairs; the embedded world has some of its own."""
    if not pairs and model not in LAB_MODELS:
        raise ConfigError("no file of pairs was given", hint="sarm discover --model M pairs.jsonl -o DIR")
    return pairs or (AUDIT,)


def _goal(settings: "DiscoverySettings", pairs: Sequence[Path]) -> str:
    what = "chosen over rejected" if settings.target is None else settings.target.goal
    return f"{what} in {', '.join(path.name for path in pairs)}"


def _prepare(
    parts: Sequence[Sequence[Path]],
    scoring: ModelFlags,
    settings: "DiscoverySettings",
    skip_bad_rows: Path | None,
    evidence: EvidenceFlags,
    row_flags: RowFlags,
) -> Prepared:
    """Everything read, and checked as far as rows and head decide."""
    from sarm_control.discovery import check_counterfactuals, check_rows, check_states

    # an attribute of single answers needs no preference: any row with answers to compare will do
    want: set[Kind] = {"pair"} if settings.target is None else {"pair", "candidates", "answer"}
    scoring.needs_latents = "effects of latents cannot be found"
    prepared = prepare(
        parts,
        scoring,
        want=want,
        aside=lambda path: skip_bad_rows / f"{path.stem}.bad.jsonl" if skip_bad_rows else None,
        beside=evidence.counterfactuals,
        row_flags=row_flags,
        # from level 2 on texts are scored again; below that folders of latents say everything
        named=evidence.levels >= 2,
    )
    rows = prepared.rows
    check_rows(rows[0], rows[1] if len(rows) > 1 else None, settings)
    check_states(prepared.scored, evidence.levels)
    if evidence.counterfactuals is not None:
        check_counterfactuals([row for one in prepared.beside for row in one.rows])
    return prepared


def _say_plan(prepared: Prepared, out: Path) -> None:
    names = ("selection", "confirmation") if len(prepared.rows) > 1 else ("selection and confirmation",)
    for name, rows in zip(names, prepared.rows, strict=True):
        answers, prompts = sum(len(row.answers) for row in rows), len({row.prompt_key for row in rows})
        say(f"{name}: {len(rows)} rows, {answers} answers to {prompts} prompts")
    say_dry_run(out)


def _say_next(
    examined: "ExaminedDiscovery", model: str | None, pairs: Sequence[Path], out: Path, controls: Path | None
) -> None:
    """Train with the controls if there are any, else see what the called latents are about."""
    lists = examined.found.lists
    if controls is not None and any(one.controls for one in lists["harms"]):
        say_next("train", "--controls", controls, *of_training(model), "-o", beside(controls, controls.stem))
    elif any(lists.values()):
        labels = beside(out, f"{out.name}-labels.json")
        say_next("label", out / "features.json", "--data", *pairs, *of_model(model), "-o", labels)
    else:
        say_next("rerank", *pairs, *of_model(model), "--all-latents")


def _write(
    examined: "ExaminedDiscovery",
    out: Path,
    html: Path | None,
    inputs: list[Path],
    config: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    from sarm_control.files import atomic_folder, manifest, write_json

    found = examined.found
    record = manifest("discover", inputs=inputs, config=config, seed=found.settings.seed)
    features = examined.features(model=config["model"], goal=config["goal"], data=record["inputs"])
    with atomic_folder(out, overwrite=overwrite) as folder:
        found.table.write_parquet(folder / "effects.parquet")
        features.save(folder / "features.json")
        write_json(folder / "manifest.json", record)
    write_html(html, lambda command: _page(out, command))


def _page(out: Path, command: str) -> "Page":
    from sarm_control.report import discovery_page, latent_names, read_sources

    sources = read_sources([out])
    return discovery_page(sources.discoveries[out], latent_names(sources), command=command)


def _write_extras(
    examined: "ExaminedDiscovery", config: dict[str, Any], controls: ControlFlags, json_file: Path | None
) -> None:
    from sarm_control.discovery import controls_yaml
    from sarm_control.files import write_json, write_text

    found = examined.found
    least = {"material": controls.material, "material_sd": controls.material_sd}
    if json_file is not None:
        lists = {name: [one.as_json() for one in items] for name, items in found.lists.items()}
        write_json(json_file, {**config, **least, "head": found.head, **examined.as_json(), "lists": lists})
    if controls.write_controls is not None:
        # only with controls: the lists themselves do not depend on the margin's size
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


def _print(examined: "ExaminedDiscovery", top: int) -> None:
    import sys

    from sarm_control.discovery import summary_text

    sys.stdout.write(summary_text(examined, top=top))
