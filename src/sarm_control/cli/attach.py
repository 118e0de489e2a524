"""`sarm attach`: a dictionary for any reward model with a linear head."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sarm_control.cli._attach_flags import AttachInputs, DictionaryFlags
from sarm_control.cli._help import OUTPUT
from sarm_control.cli._next import beside, say_next
from sarm_control.cli._outputs import DryRun, Overwrite, check_outputs, say_dry_run, states_cache
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import (
    BatchTokens,
    Device,
    Dtype,
    MaxLength,
    Read,
    Reading,
    TemplateDate,
    load_model,
    model_name,
)
from sarm_control.cli._sources import say_respelled
from sarm_control.console import progress, say

if TYPE_CHECKING:
    from sarm_control.build import Inputs, Material

_INPUTS, _DICTIONARY = AttachInputs(), DictionaryFlags()


def attach(
    *,
    out: Annotated[Path, Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder for the dictionary.")],
    inputs: AttachInputs = _INPUTS,
    dictionary: DictionaryFlags = _DICTIONARY,
    copy: Annotated[
        bool,
        Parameter(
            group=OUTPUT,
            negative="",
            help="Copy the reward model into the folder too; without it the folder points to it.",
        ),
    ] = False,
    rows: RowFlags = AS_THEY_ARE,
    read: Read = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Attach a sparse dictionary to a reward model with a linear head.

    The reward stays the model's own, to the bit. Every command then says which latents it is made of, and
    what none of them holds (the residual). The dictionary is trained on the state that the head reads, and
    measured on prompts held out. The folder holds the dictionary and points to the reward model.
    """
    from sarm_control.attaching import (
        attach_dictionary,
        check_attach,
        read_dictionary,
        save_attached_model,
    )
    from sarm_control.build import Tools

    model = inputs.check()
    config = dictionary.config(batch_tokens)
    check_outputs((out,), inputs.files, overwrite=overwrite, make=not dry_run)
    found = _read(inputs, rows)
    # rows, then the head, then weights: what is wrong is found by what is read fastest
    material = check_attach(found, config, trained=inputs.autoencoder is None)
    width = _width(model, device, dtype, template_date, read)
    tools = Tools(cache=dictionary.cache or states_cache(), progress=progress, say=say)
    if dry_run:
        if inputs.autoencoder is None:
            _say_plan(width, material, config)
        say_dry_run(out)
        return
    loaded = load_model(
        model,
        device=device,
        dtype=dtype,
        max_length=max_length,
        template_date=template_date,
        reading=read,
    )
    ready = None if inputs.autoencoder is None else read_dictionary(inputs.autoencoder, loaded, k=config.k)
    made = attach_dictionary(loaded, found, config, tools, material=material, dictionary=ready)
    record = _manifest(model, inputs, config, {"dtype": dtype, **rows.recorded})
    save_attached_model(made, out, record, copy=copy, overwrite=overwrite)
    say(f"{out}: {made.model.config.latents} latents, head {made.model.fingerprint}")
    _say_next(inputs, out)


def _width(
    model: str, device: str | None, dtype: str | None, template_date: str | None, read: Reading | None
) -> int:
    """D, from the head's file; refuses what no dictionary can be attached to, before weights are loaded."""
    from sarm_control.attaching import refuse_latents
    from sarm_control.reward_model import check_placement, describe

    read = read or Reading()
    check_placement(device, dtype)
    found = describe(model, template_date=template_date, pooling=read.pooling, output=read.output)
    return len(refuse_latents(found.head, model_name(model)).weight)


def _say_plan(width: int, material: "Material", config: Any) -> None:
    from sarm_control.attaching import sized
    from sarm_control.build import Tools

    say(material.line())
    sized(width, material, config, Tools(say=say))


def _read(inputs: AttachInputs, rows: RowFlags) -> "Inputs":
    from sarm_control.build import Inputs, read_pairs, read_texts

    options, limit = rows.options, rows.first_rows
    texts = read_texts(inputs.text or (), options, limit=limit)
    pairs = read_pairs(inputs.pairs or (), options=options, limit=limit)
    evaluation = {
        path.stem: read_pairs([path], options=options, limit=limit) for path in inputs.evaluate or ()
    }
    say_respelled([*texts, *pairs, *(row for found in evaluation.values() for row in found)])
    return Inputs(texts, pairs, evaluation)


def _manifest(model: str, inputs: AttachInputs, config: Any, origin: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    from sarm_control.files import manifest

    settings = {"model": model_name(model), **origin, **asdict(config)}
    return manifest("attach", inputs=list(dict.fromkeys(inputs.files)), config=settings, seed=config.seed)


def _say_next(inputs: AttachInputs, out: Path) -> None:
    """Pairs that nothing was trained on say more than those that were."""
    pairs = inputs.evaluate or inputs.pairs
    if pairs:
        say_next("discover", *pairs, "--model", out, "-o", beside(out, f"{out.name}-discovery"))
    else:
        say_next("discover", "pairs.jsonl", "--model", out, "-o", beside(out, f"{out.name}-discovery"))
