"""Data files as one sequence of rows, cut into shards, without keeping the rows in memory.

One pass checks every row and notes where each shard starts. Later the process that scores a shard reads it
from there.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sarm_control.data import (
    AUTOMATIC,
    START,
    BadRow,
    Kind,
    Place,
    PlacedRow,
    Row,
    RowCheck,
    RowOptions,
    check_aside,
    form_said,
    no_rows,
    set_aside,
    stream_rows,
)
from sarm_control.embedded import Copy, copies_of, know_copies
from sarm_control.errors import DataError


class Span(NamedTuple):
    """The place of one shard in the data: consecutive rows, which may lie in several files.

    Args:
        shard: its number, from 0.
        first: number of its first row in the whole data.
        rows: its number of rows.
        answers: the number of answers in these rows.
        file: index of the data file that holds its first row.
        start: where the line of its first row starts.
    """

    shard: int
    first: int
    rows: int
    answers: int
    file: int
    start: Place


@dataclass(frozen=True)
class Data:
    """Data files, checked and cut into shards.

    Args:
        files: in the order they are read.
        want: the kinds of row that are used.
        skip: whether rows that cannot be used are left out.
        spans: the shards, at least one.
        options: how rows are read, see `read_rows`.
        limit: the most rows of a file that are read.
        copies: where the files lie that have no place of their own, for other processes.
        checked: whether the rows were also held against the chat template of the model that scores them.
    """

    files: tuple[Path, ...]
    want: frozenset[Kind]
    skip: bool
    spans: tuple[Span, ...]
    options: RowOptions = AUTOMATIC
    limit: int | None = None
    copies: Mapping[str, Copy] = field(default_factory=dict)
    checked: bool = False

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(span.rows for span in self.spans)

    @property
    def answers(self) -> int:
        """The number of answers in these rows."""
        return sum(span.answers for span in self.spans)

    def read(self, span: Span, check: RowCheck | None = None) -> list[Row]:
        """The rows of one shard.

        Args:
            span: its place.
            check: that of the survey, where there was one: rows that were left out are left out again.

        Raises:
            DataError: the files changed after the survey.
        """
        rows: list[Row] = []
        for number in range(span.file, len(self.files)):
            # a shard may run over the end of a file: it then goes on at the beginning of the next
            start = span.start if number == span.file else START
            for _, row in self._stream(number, start, check):
                rows.append(row)
                if len(rows) == span.rows:
                    return rows
        raise DataError(
            f"{span.start.of(self.files[span.file])}: {len(rows)} of {span.rows} rows are left here",
            hint="the data changed while it was read; start again",
        )

    def _stream(self, number: int, start: Place, check: RowCheck | None) -> Iterator[PlacedRow]:
        # another process than the survey's does not know the copies of standard input and hub data sets yet
        know_copies(self.copies)
        return stream_rows(
            self.files[number],
            want=self.want,
            start=start,
            on_bad=_ignore if self.skip else None,
            options=self.options,
            limit=self.limit,
            check=check,
        )


def survey(
    files: Sequence[Path],
    *,
    want: Collection[Kind],
    shard_rows: int,
    aside: Callable[[Path], Path] | None = None,
    options: RowOptions = AUTOMATIC,
    limit: int | None = None,
    check: RowCheck | None = None,
) -> Data:
    """Checks every row once and keeps none.

    Args:
        files: data files or names (`lab:audit`, `-`, `hf:owner/name`).
        want: the kinds of row that can be used.
        shard_rows: rows of a shard; the last may have fewer.
        aside: gives, for a data file, the file for its rows that cannot be used; without it the first such
            row raises.
        options: how rows are read, see `read_rows`.
        limit: the most rows of each file that are read.
        check: see `read_rows`.

    Raises:
        DataError: a row that cannot be used, or a file without usable rows.
    """
    spans: list[Span] = []
    for number, file in enumerate(files):
        for place, row in _checked(file, want, aside, options, limit, check):
            # only places and counts are kept: a span is a few numbers, however long its rows are
            if not spans or spans[-1].rows == shard_rows:
                spans.append(Span(len(spans), len(spans) * shard_rows, 0, 0, number, place))
            last = spans[-1]
            spans[-1] = last._replace(rows=last.rows + 1, answers=last.answers + len(row.answers))
    copies = copies_of(files)
    return Data(
        tuple(files),
        frozenset(want),
        aside is not None,
        tuple(spans),
        options,
        limit,
        copies,
        checked=check is not None,
    )


def _checked(
    file: Path,
    want: Collection[Kind],
    aside: Callable[[Path], Path] | None,
    options: RowOptions,
    limit: int | None,
    check: RowCheck | None,
) -> Iterator[PlacedRow]:
    """The usable rows of one file; the others are written aside after the last row."""
    target = None if aside is None else aside(file)
    if target is not None:
        # before the pass over the data: a target that cannot be written is told now, not after hours
        check_aside(file, target)
    bad: list[BadRow] = []
    usable = 0
    on_bad = None if target is None else bad.append
    found = stream_rows(
        file, want=want, on_bad=on_bad, options=options, limit=limit, on_end=form_said(file), check=check
    )
    for placed in found:
        usable += 1
        yield placed
    if target is not None:
        set_aside(file, target, bad, usable)
    if not usable:
        no_rows(file, bad)


def _ignore(bad: BadRow) -> None:
    del bad
