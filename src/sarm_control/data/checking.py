"""What a data file is and what is wrong with it, in one pass that keeps no row."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from sarm_control.data.files import Source
from sarm_control.data.files.memory import name_of
from sarm_control.data.lines import Unit, named_place
from sarm_control.data.rows import BadRow, Kind, Row, stream_rows
from sarm_control.data.shapes import AUTOMATIC, FileShape, RowOptions
from sarm_control.embedded import is_input_name, name_of_input
from sarm_control.errors import SarmError

_EVERY: tuple[Kind, ...] = ("pair", "candidates", "answer", "prompt")
_PLACES = 3


class RowLengths(NamedTuple):
    """Tokens of each conversation of a row, and how many of these are longer than the context."""

    tokens: tuple[int, ...]
    too_long: int


Lengths: TypeAlias = Callable[[Row], RowLengths]
"""Raises a `SarmError` for a conversation that the model's template refuses."""


@dataclass
class Problem:
    """Rows that cannot be used for one reason.

    Args:
        reason: that of the first of them.
        hint: what to do about it.
        count: how many they are.
        lines: where the first few are.
        files: in which files of a folder these are; empty for a file.
        unit: what `lines` counts: lines of JSON Lines, rows of every other form.
    """

    reason: str
    hint: str | None
    count: int
    lines: list[int]
    unit: Unit = "line"
    files: list[str] = field(default_factory=list)

    def places(self, path: Path) -> list[str]:
        """The first few, as messages name them."""
        files = self.files or [""] * len(self.lines)
        named = zip(files, self.lines, strict=True)
        return [named_place(path / file, line, self.unit) for file, line in named]

    def as_json(self) -> dict[str, Any]:
        """Everything known; files only where there are some."""
        return {name: value for name, value in vars(self).items() if name != "files" or value}


@dataclass(frozen=True)
class FileCheck:
    """What a file was found to be.

    Args:
        path: the file.
        form: what its rows are, in one line; None without a row that can be used.
        kinds: how many rows of each kind.
        problems: the rows that cannot be used by reason, the most frequent first.
        empty_answers: answers that are the empty string.
        repeated_prompts: rows with the prompt of an earlier row, in whatever case and white space.
        respelled_prompts: those of them that are not written as the first one.
        tokens: of every conversation, ascending; None when no model was given.
        too_long: conversations that are longer than the model's context.
    """

    path: Path
    form: str | None
    kinds: dict[str, int]
    problems: list[Problem]
    empty_answers: int
    repeated_prompts: int
    respelled_prompts: int
    tokens: tuple[int, ...] | None
    too_long: int

    @property
    def name(self) -> str:
        """What the file is called, without its folder."""
        return name_of_input(self.path) if is_input_name(self.path) else self.path.name

    @property
    def usable(self) -> int:
        """Rows that can be used."""
        return sum(self.kinds.values())

    @property
    def unusable(self) -> int:
        """Rows that cannot."""
        return sum(problem.count for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """Everything found."""
        return {
            "file": self.name,
            "form": self.form,
            "rows": self.usable + self.unusable,
            "usable": self.usable,
            "kinds": self.kinds,
            "problems": [problem.as_json() for problem in self.problems],
            "empty_answers": self.empty_answers,
            "repeated_prompts": self.repeated_prompts,
            "respelled_prompts": self.respelled_prompts,
            "tokens": _spread(self.tokens),
            "too_long": None if self.tokens is None else self.too_long,
        }


def check_rows(
    path: Source,
    options: RowOptions = AUTOMATIC,
    lengths: Lengths | None = None,
    *,
    limit: int | None = None,
) -> FileCheck:
    """Reads every row of a file, of whatever kind.

    Args:
        path: the data file, a name, or rows in memory; see `read_rows`.
        options: how its rows are read, see `read_rows`.
        lengths: counts a row's tokens.
        limit: the most rows that are read; None reads all.

    Raises:
        DataError: the file cannot be read.
    """
    found = _Found()
    rows = stream_rows(path, want=_EVERY, on_bad=found.bad, options=options, on_end=found.end, limit=limit)
    for placed in rows:
        found.row(placed.row, lengths)
    problems = sorted(found.problems.values(), key=lambda problem: -problem.count)
    return FileCheck(
        path=name_of(path),
        form=found.form,
        kinds=dict(found.kinds),
        problems=problems,
        empty_answers=found.empty,
        repeated_prompts=found.repeated,
        respelled_prompts=found.respelled,
        tokens=None if lengths is None else tuple(sorted(found.tokens)),
        too_long=found.too_long,
    )


class _Found:
    """The counts of one pass."""

    def __init__(self) -> None:
        self.form: str | None = None
        self.kinds: Counter[str] = Counter()
        self.problems: dict[str, Problem] = {}
        self.empty = self.repeated = self.respelled = self.too_long = 0
        self.tokens: list[int] = []
        self._texts: dict[bytes, bytes] = {}

    def bad(self, row: BadRow) -> None:
        """A row that cannot be used; those whose reasons differ in numbers and quotes alone are one kind."""
        # a file with one mistake in every row would else list it a million times, each with its own numbers
        kind = re.sub(r"\d+|'[^']*'|\[[^\]]*\]", "_", row.reason)
        problem = self.problems.setdefault(kind, Problem(row.reason, row.hint, 0, [], row.unit))
        problem.count += 1
        if len(problem.lines) < _PLACES:
            problem.lines.append(row.line)
            if row.file:
                problem.files.append(row.file)

    def row(self, row: Row, lengths: Lengths | None) -> None:
        """A row that was read; it is bad all the same when the model's template refuses it."""
        if lengths is not None:
            try:
                tokens = lengths(row)
            except SarmError as error:
                self.bad(BadRow(row.line, str(error), error.hint, "", row.unit, row.file))
                return
            self.tokens += tokens.tokens
            self.too_long += tokens.too_long
        self.kinds[row.kind] += 1
        self.empty += sum(answer == "" for answer in row.answers)
        text = _digest(row.prompt_text)
        # an empty entry marks a prompt that was not there before
        first = self._texts.setdefault(_digest(row.prompt_key), b"")
        if first:
            self.repeated += 1
            self.respelled += first != text
        else:
            self._texts[_digest(row.prompt_key)] = text

    def end(self, form: FileShape, usable: int) -> None:
        """The form, once all rows were read."""
        self.form = form.line(usable) if usable else None


def _digest(text: str) -> bytes:
    # 16 bytes for a text of any length: prompts of a large file need not fit into memory
    return blake2b(text.encode("utf-8"), digest_size=16).digest()


def _spread(tokens: tuple[int, ...] | None) -> dict[str, float] | None:
    """Sum, mean and some quantiles of ascending numbers."""
    if not tokens:
        return None
    last = len(tokens) - 1
    return {
        "conversations": len(tokens),
        "total": sum(tokens),
        "mean": sum(tokens) / len(tokens),
        "median": tokens[last // 2],
        "p95": tokens[round(0.95 * last)],
        "max": tokens[-1],
    }
