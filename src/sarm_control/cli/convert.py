"""`sarm convert`: pickled weights to safetensors, or head edits into a checkpoint."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT
from sarm_control.cli._next import say_next
from sarm_control.console import say
from sarm_control.embedded import AUDIT, LAB_MODELS


def convert(
    folder: Annotated[
        str,
        Parameter(
            group=INPUT,
            help="Checkpoint folder with pytorch_model*.bin; with --apply a SARM, or an attached dictionary: "
            "folder, hub id or lab.",
        ),
    ],
    /,
    *,
    out: Annotated[Path, Parameter(group=OUTPUT, name=["--out", "-o"], help="The folder to write.")],
    apply: Annotated[
        Path | None,
        Parameter(
            group=COMPUTE, help="File of edits: write the model with these edits in its weights of latents."
        ),
    ] = None,
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", help="Replace the folder if it exists.")
    ] = False,
) -> None:
    """Convert pickled weights, or write head edits into a SARM.

    Pickled weights become safetensors. Only tensors are read: a file that holds anything else is
    refused. Configuration and tokenizer are copied, code is not. With --apply the edits become head
    weights, so that the new checkpoint pays by them wherever it is loaded; only scalings of latents
    (and =0) can.
    """
    if apply is not None:
        _apply(folder, apply, out, overwrite=overwrite)
        return
    from sarm_control.reward_model import convert as run

    done = run(Path(folder), out, overwrite=overwrite)
    say(f"{done.folder}: {done.tensors} tensors, {done.size / 1e9:.2f} GB in {', '.join(done.files)}")
    if _is_sarm(out):
        say_next("score", "answers.jsonl", "--model", out, "-o", "scores.jsonl")
    else:
        say_next("build", "--base", out, "--pairs", "pairs.jsonl", "-o", out.with_name(f"{out.name}-sarm"))


def _is_sarm(folder: Path) -> bool:
    from sarm_control.errors import ModelError
    from sarm_control.reward_model import read_config

    try:
        read_config(folder, folder.name)
    # no SARM, which is no error here: a plain model is converted too
    except ModelError:
        return False
    return True


def _apply(source: str, edits: Path, out: Path, *, overwrite: bool) -> None:
    from sarm_control.control import apply_to_checkpoint

    done = apply_to_checkpoint(source, edits, out, overwrite=overwrite)
    latents = ", ".join(map(str, done.latents))
    say(f"{done.folder}: head {done.before} became {done.after}; other weights for latents {latents}")
    say("features and edits found on the old head are refused by the new one")
    audit = AUDIT if source in LAB_MODELS else "answers.jsonl"
    say_next("score", audit, "--model", out, "-o", "scores.jsonl")
