"""`sarm build`: a SARM from a causal language model, or a new head for an existing one."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sarm_control.cli._build_flags import FitFlags, SizeFlags, SourceFlags, TuningFlags
from sarm_control.cli._help import OUTPUT
from sarm_control.cli._next import beside, say_next
from sarm_control.cli._outputs import DryRun, Overwrite, check_outputs, say_dry_run, states_cache
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, TemplateDate, model_name
from sarm_control.cli._sources import say_respelled
from sarm_control.console import progress, say

if TYPE_CHECKING:
    from sarm_control.build import AutoencoderConfig, Base, BuildConfig, Inputs, TrunkSource

_SOURCE, _SIZES, _FIT, _TUNING = SourceFlags(), SizeFlags(), FitFlags(), TuningFlags()


def build(
    *,
    out: Annotated[Path, Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder for the SARM.")],
    source: SourceFlags = _SOURCE,
    sizes: SizeFlags = _SIZES,
    fit: FitFlags = _FIT,
    tuning: TuningFlags = _TUNING,
    rows: RowFlags = AS_THEY_ARE,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="The figures as JSON.")
    ] = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Build a SARM from any causal language model, or fit a new head.

    With --base everything is made; with --model and --pairs only the head of an existing SARM is.
    Sizes that are not given are chosen from the model and the number of answers. The folder also gets
    build.json with every figure and manifest.json with what it was made from.
    """
    from sarm_control.build import BuildConfig, Tools, build_sarm, check_build, save_built
    from sarm_control.files import write_json

    source.check(sizes)
    sizes.check()
    check_outputs((out, json_file), source.files, overwrite=overwrite, make=not dry_run)
    config = BuildConfig(
        autoencoder=None if source.model else _draft(sizes, fit),
        sentence_states=fit.sentence_states,
        holdout=fit.holdout,
        tune_trunk=tuning.tune_trunk,
        tune_after=tuning.tune_after,
        tune=tuning.tune,
        tune_rows=tuning.tune_rows,
        tune_learning_rate=tuning.tune_learning_rate,
        annotator=source.annotator,
        batch_tokens=batch_tokens,
        seed=fit.seed,
    )
    inputs = _read(source, rows)
    tools = Tools(cache=fit.cache or states_cache(), progress=progress, say=say)
    # rows first: what is wrong with them is told before a model of many files is looked at
    material = check_build(inputs, config, tools)
    how: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "max_length": max_length,
        "template_date": template_date,
    }
    base, layer = None, None
    if source.base is not None:
        # sizes depend on the number of answers, which is known once all rows are read and counted
        base, layer, config = _sized(source.base, sizes, fit, config, len(material.corpus.answers), how)
    if dry_run:
        _check_model(source.model, how)
        say(material.line())
        say_dry_run(out)
        return
    parts = _parts(base, layer, source.model, how)
    built = build_sarm(parts, inputs, config, tools, material=material)
    origin = {"base": source.base, "model": source.model, "layer": layer, "dtype": dtype, **rows.recorded}
    # a template that writes the date makes other states on another day: the day belongs to what was made
    if parts.template.date is not None:
        origin["template_date"] = parts.template.date.isoformat()
    record = _manifest(config, source.files, origin)
    save_built(built, out, record, overwrite=overwrite)
    if json_file is not None:
        write_json(json_file, {**record["config"], **built.figures})
    say(f"{out}: {built.model.config.latents} latents, head {built.model.fingerprint}")
    _say_next(source, out)


def _draft(sizes: SizeFlags, fit: FitFlags) -> "AutoencoderConfig":
    """An autoencoder whose sizes are chosen once the rows are counted."""
    from sarm_control.build import Sizes

    k = sizes.k or 1
    return fit.autoencoder(Sizes(layer=sizes.layer or 1, latents=sizes.latents or k, k=k))


def _sized(
    base: str, sizes: SizeFlags, fit: FitFlags, config: "BuildConfig", answers: int, how: dict[str, Any]
) -> "tuple[Base, int, BuildConfig]":
    """The base model's description, the layer, and the settings with sizes; says what was chosen."""
    from sarm_control.build import choose_sizes, read_base

    found = read_base(base, **how)
    chosen = choose_sizes(
        found.layers, found.width, answers, layer=sizes.layer, latents=sizes.latents, k=sizes.k
    )
    found.check_layer(chosen.layer)
    if chosen.chosen:
        say(f"chosen for {model_name(base)}: {', '.join(chosen.chosen)}")
    if chosen.warning is not None:
        say(f"warning: {chosen.warning}")
    return found, chosen.layer, replace(config, autoencoder=fit.autoencoder(chosen))


def _read(source: SourceFlags, row_flags: RowFlags) -> "Inputs":
    from sarm_control.build import Inputs, read_pairs, read_texts

    options, limit = row_flags.options, row_flags.first_rows
    evaluation = {
        path.stem: read_pairs([path], options=options, limit=limit) for path in source.evaluate or ()
    }
    preferences = read_pairs(source.pairs or (), annotator=source.annotator, options=options, limit=limit)
    texts = read_texts(source.text or (), options, limit=limit)
    validation = read_pairs(source.validate or (), options=options, limit=limit)
    # over all files at once: a prompt of one that another has in other case may stand
    # on both sides of a held-out half
    say_respelled([*texts, *preferences, *validation, *(row for rows in evaluation.values() for row in rows)])
    return Inputs(texts, preferences, evaluation, validation)


def _parts(base: "Base | None", layer: int | None, model: str | None, how: dict[str, Any]) -> "TrunkSource":
    from sarm_control.build import TrunkSource
    from sarm_control.cli._scoring import load_model

    if base is not None and layer is not None:
        return base.cut(layer)
    return TrunkSource.of(load_model(str(model), **how))


def _check_model(model: str | None, how: dict[str, Any]) -> None:
    """What can be wrong with an existing SARM, short of its weights."""
    from sarm_control.reward_model import check_placement, describe

    if model is not None:
        check_placement(how["device"], how["dtype"])
        describe(model, template_date=how["template_date"])


def _manifest(config: "BuildConfig", inputs: list[Path], origin: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    from sarm_control.files import manifest

    named = {key: model_name(origin[key]) if origin[key] else None for key in ("base", "model")}
    settings = {**origin, **named, **asdict(config)}
    return manifest("build", inputs=list(dict.fromkeys(inputs)), config=settings, seed=config.seed)


def _say_next(source: SourceFlags, out: Path) -> None:
    """Pairs that nothing was built from say more than those that were."""
    pairs = source.evaluate or source.pairs
    if pairs:
        say_next("discover", *pairs, "--model", out, "-o", beside(out, f"{out.name}-discovery"))
    else:
        say_next("build", "--model", out, "--pairs", "pairs.jsonl", "-o", beside(out, f"{out.name}-head"))
