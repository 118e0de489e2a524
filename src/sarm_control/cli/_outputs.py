"""Checks on the files and folders a command will write, before it works for them."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sarm_control.cli._help import OUTPUT
from sarm_control.cli._next import again, say_next, typed
from sarm_control.console import say
from sarm_control.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from sarm_control.pages import Page

Overwrite = Annotated[bool, Parameter(group=OUTPUT, negative="", help="Replace the outputs if they exist.")]
Html = Annotated[
    Path | None, Parameter(group=OUTPUT, help="The results as a page: one file that needs no network.")
]
DryRun = Annotated[
    bool,
    Parameter(
        group=OUTPUT, negative="", help="Check all that the command would check, print the plan, stop."
    ),
]

_OTHER_NAME = "choose another name or pass --overwrite"


def check_outputs(
    outputs: Iterable[Path | None],
    inputs: Iterable[Path | None],
    *,
    overwrite: bool,
    rows: Path | None = None,
    make: bool = True,
) -> None:
    """Refuses an output that is an input too, exists already, could not be written or is being written.

    No other process can write them from now until the command ends.

    Args:
        outputs: those given; None for an output that was not asked for.
        inputs: files that are read; None likewise.
        overwrite: whether what exists may be replaced.
        rows: the output that takes rows, whose suffix says the form.
        make: make the folders that outputs are to lie in, and keep others from writing there; a dry run
            does neither.

    Raises:
        ConfigError: an output is an input.
        OutputError: it exists, its folder cannot be written, another process is writing it, or rows are
            not written in that form.
    """
    from sarm_control.data import output_form

    if rows is not None:
        output_form(rows)
    # resolved, since one file may have two names
    read = {path.resolve() for path in inputs if path is not None}
    for path in outputs:
        if path is None:
            continue
        if path.resolve() in read:
            raise ConfigError(
                f"{path} is an input too and would be overwritten", hint="choose another output"
            )
        hold_output(path, overwrite=overwrite, make=make)


def hold_output(path: Path | None, *, overwrite: bool, hint: str = _OTHER_NAME, make: bool = True) -> None:
    """Checks one output, and lets no other process write it until the command ends.

    Raises:
        OutputError: see `check_outputs`.
    """
    from sarm_control.files import check_writable
    from sarm_control.locks import hold

    if path is None:
        return
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint=hint)
    check_writable(path, make=make)
    if make:
        hold(path)


def write_html(html: Path | None, make: "Callable[[str], Page]") -> None:
    """Writes a page where one was asked for.

    Args:
        html: the file, or None.
        make: the page, from the command that made it.

    Raises:
        OutputError: it cannot be written.
    """
    if html is not None:
        from sarm_control.pages import write_page

        write_page(make(typed()), html)
        say(f"page: {html}")


def states_cache() -> Path:
    """The folder for states where none is named: in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "sarm-control" / "states"


def say_dry_run(out: Path) -> None:
    """The last word of a dry run that found nothing wrong."""
    say(f"dry run: nothing was written; without --dry-run the output goes to {out}")
    say_next(*again(without=("--dry-run",)))
