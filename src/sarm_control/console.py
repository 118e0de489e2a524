"""What a person sees while a command works: progress and remarks on stderr, and tables on stdout.

On a terminal `progress` is a bar with the time left; elsewhere (a log file, CI) it is a plain line about
every ten seconds. Library code takes a `ProgressFactory` and defaults to `no_progress`, so it shows nothing
unless a command asks for it.
"""

import contextlib
import io
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.table import Table as RichTable

_WIDEST = 100_000
SECONDS_BETWEEN_LINES = 10.0
"""Seconds between plain lines where there is no terminal."""


class Advance(Protocol):
    """Called by the worker after each piece of work."""

    def __call__(self, steps: int = 1, *, note: str | None = None) -> None:
        """Counts `steps` more done; `note` is a few words shown beside the count."""


class ProgressFactory(Protocol):
    """The type of `progress` and `no_progress`: a context manager that gives an `Advance`."""

    def __call__(self, label: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Starts counting `total` steps of the work called `label`, of which `done` were done before."""


class _State:
    """The state of the terminal; it belongs to the module, since a process has only one terminal."""

    quiet: bool = False
    bar: "RichProgress | None" = None


def set_quiet(quiet: bool) -> None:
    """Turns the output of `say` and `progress` off or on; errors are not affected."""
    _State.quiet = quiet


def say(text: str) -> None:
    """Writes one line to stderr, above the progress bar if there is one."""
    if _State.quiet:
        return
    if _State.bar is not None:
        _State.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        _write_line(text)


@contextlib.contextmanager
def no_progress(label: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A `ProgressFactory` that shows nothing."""
    del label, total, done

    def advance(steps: int = 1, *, note: str | None = None) -> None:
        del steps, note

    yield advance


def progress(label: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
    """A context manager that shows the progress of `label` and gives the `Advance` to call.

    Args:
        label: what is being done, such as "Scoring".
        total: number of steps, at least 0.
        done: how many of them were done before, by a run that is resumed. They took none of the time that is
            measured now, so the time left is estimated from the others.
    """
    if _State.quiet:
        return no_progress(label, total, done)
    if sys.stderr.isatty():
        return _bar(label, total, done)
    return _plain_lines(label, total, time.monotonic, done)


def duration(seconds: float) -> str:
    """A time span in words: `8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def aligned(
    rows: Sequence[Sequence[str]], *, left: int = 0, indent: int = 2, width: int | None = None
) -> Iterator[str]:
    """Lines of a table: columns two spaces apart, each as wide as its longest cell.

    Where that is too wide, headers and the columns at the left are folded between words. The other columns
    hold numbers, which are never cut or folded, so that a line may still be longer than `width`.

    Args:
        rows: cells, the header first; every row has as many.
        left: how many of the first columns are aligned to the left; the others to the right.
        indent: spaces before each line.
        width: characters of a line; by default those of the terminal, or no limit where stdout is none.
    """
    from rich.console import Console
    from rich.measure import Measurement

    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST
    # cells are text: no colours, and no `[markup]`
    console = Console(
        file=io.StringIO(), width=_WIDEST, color_system=None, force_terminal=False, legacy_windows=False
    )
    table = _table(rows, left, folded=False)
    if Measurement.get(console, console.options, table).maximum > width - indent:
        table = _table(rows, left, folded=True)
        console.width = max(width - indent, Measurement.get(console, console.options, table).minimum)
    with console.capture() as drawn:
        console.print(table, crop=False)
    for line in drawn.get().splitlines():
        yield f"{'':{indent}}{line}".rstrip()


def _table(rows: Sequence[Sequence[str]], left: int, *, folded: bool) -> "RichTable":
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, (name, *cells) in enumerate(zip(*rows, strict=True)):
        if i < left:
            table.add_column(Text(name), overflow="fold", no_wrap=not folded)
        else:
            least = max(map(cell_len, [*cells, *name.split()]), default=0)
            shown = textwrap.fill(name, max(least, 1), break_on_hyphens=False) if folded else name
            table.add_column(Text(shown), justify="right", no_wrap=True, min_width=least)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


@contextlib.contextmanager
def _plain_lines(label: str, total: int, clock: Callable[[], float], before: int = 0) -> Iterator[Advance]:
    start = last = clock()
    done = before

    def advance(steps: int = 1, *, note: str | None = None) -> None:
        nonlocal done, last
        done += steps
        now = clock()
        # the end has a line of its own
        if now - last < SECONDS_BETWEEN_LINES or done >= total:
            return
        last = now
        a_step = (now - start) / (done - before) if done > before else 0.0
        say(_line(label, done, total, a_step, note))

    yield advance
    say(f"{label}: {done} done in {duration(clock() - start)}")


def _line(label: str, done: int, total: int, a_step: float, note: str | None) -> str:
    # rounded down, so that a line never says 100 % of work that goes on
    parts = [f"{label}: {done}/{total} ({100 * done // max(1, total)} %)"]
    if a_step:
        parts.append(f"{duration(a_step * (total - done))} left")
    if note:
        parts.append(note)
    return ", ".join(parts)


@contextlib.contextmanager
def _bar(label: str, total: int, done: int) -> Iterator[Advance]:
    with _shared_bar() as bar:
        task = bar.add_task(label, total=total, completed=done, note="")

        def advance(steps: int = 1, *, note: str | None = None) -> None:
            if note is None:
                bar.update(task, advance=steps)
            else:
                bar.update(task, advance=steps, note=note)

        yield advance


@contextlib.contextmanager
def _shared_bar() -> Iterator["RichProgress"]:
    """The bar on screen; a second `progress` inside the first adds a row to it."""
    if _State.bar is not None:
        yield _State.bar
        return
    with _new_bar() as bar:
        _State.bar = bar
        try:
            yield bar
        finally:
            _State.bar = None


def _new_bar() -> "RichProgress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
        # stdout is for results, which another program may read
        console=Console(stderr=True),
    )


def _write_line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
