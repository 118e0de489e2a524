"""Checks on the files a command will write, before it works for them."""

from collections.abc import Iterable
from pathlib import Path

from sarm_control.errors import ConfigError, OutputError


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None], *, overwrite: bool) -> None:
    """Refuses an output that is an input too, exists already or could not be written.

    Args:
        outputs: those given; None for an output that was not asked for.
        inputs: files that are read; None likewise.
        overwrite: whether what exists may be replaced.

    Raises:
        ConfigError: an output is an input.
        OutputError: it exists, or its folder cannot be written.
    """
    from sarm_control.files import check_writable

    read = {path.resolve() for path in inputs if path is not None}
    for path in outputs:
        if path is None:
            continue
        if path.resolve() in read:
            raise ConfigError(
                f"{path} is an input too and would be overwritten", hint="choose another output"
            )
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already", hint="choose another name or pass --overwrite")
        check_writable(path)
