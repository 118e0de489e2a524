"""`sarm convert`: pickled weights to safetensors."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sarm_control.console import say


def convert(
    folder: Annotated[Path, Parameter(help="Checkpoint folder with pytorch_model*.bin.")],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The folder to write.")],
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the folder if it exists.")] = False,
) -> None:
    """Make a safetensors checkpoint from pickled weights.

    Only tensors are read: a file that holds anything else is refused. Configuration and tokenizer
    are copied, code is not.
    """
    from sarm_control.sarm.conversion import convert as run

    done = run(folder, out, overwrite=overwrite)
    say(f"{done.folder}: {done.tensors} tensors, {done.size / 1e9:.2f} GB in {', '.join(done.files)}")
