"""CSV and TSV with a header: cells in quotes are text, others may be numbers; cells may hold JSON lists.

The quotes of RFC 4180, as pandas and spreadsheets write them. Read here and not by a library because a
row needs its place in the file, and because `"7"` is text where `7` is a number.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, AnyStr, BinaryIO, NamedTuple

from sarm_control.bounded_json import LONGEST_NUMBER, BadJson, parse_json
from sarm_control.data.files.forms import LIST_COLUMNS, TEXT_COLUMNS
from sarm_control.data.files.records import AnyRecord, BadRecord, Record
from sarm_control.data.lines import LONGEST_RECORD, START, UTF8_BOM, Place, Reason
from sarm_control.errors import DataError

FIRST_ROWS = 100
"""Rows that decide which columns hold lists."""

Columns = Sequence[tuple[str, str]]
"""(our name, the file's name) of columns that have other names."""

# as in JSON: 007 is a code and no number
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# blanks at an end would be lost, and a byte order mark taken for the file's own
_NEEDS_QUOTES = re.compile(r'["\r\n\ufeff]|^\s|\s$')
_PLAIN_NAME = re.compile("[a-z_][a-z0-9_]*", re.ASCII)
_QUOTES = "a cell with a comma, quote or line break stands in quotes, a quote in it is written twice"


class Cell(NamedTuple):
    """A cell's text, and whether it stood in quotes."""

    text: str
    quoted: bool = False


class _Raw(NamedTuple):
    place: Place
    data: bytes


class _Columns(NamedTuple):
    """What is known of the columns: their names, those of text, those of lists, and what parts the cells.

    Args:
        names: as the header has them.
        ours: the same, by the names that we have for them.
        texts: those that are text whatever is in them.
        lists: those that hold lists.
        delimiter: between cells.
    """

    names: list[str]
    ours: dict[str, str]
    texts: frozenset[str]
    lists: frozenset[str]
    delimiter: str


def csv_records(
    stream: BinaryIO, path: Path, delimiter: str, *, start: Place = START, columns: Columns = ()
) -> Iterator[AnyRecord]:
    """The rows below the header, from `start` on.

    Args:
        stream: open at its beginning.
        path: its name, for messages.
        delimiter: what parts the cells.
        start: where a row starts, as an earlier reading gave it.
        columns: those that have other names than ours, and are read as those of our name.

    Raises:
        DataError: no usable header, a quote that is never closed, or a row of more than 64 MiB.
    """
    rows = _raw_rows(stream, path, delimiter, Place(0, 0, "row"))
    header = next(rows, None)
    if header is None:
        return
    known = _columns(header.data, delimiter, path, columns)
    first = list(itertools.islice(rows, FIRST_ROWS))
    known = known._replace(lists=_list_columns(first, known))
    if start.offset:
        # the first rows of the file still decide which columns hold lists
        stream.seek(start.offset)
        rows, first = _raw_rows(stream, path, delimiter, start), []
    for raw in itertools.chain(first, rows):
        if raw.place.line >= start.line:
            yield _record(raw, known)


def cell_value(cell: Cell) -> Any:
    """What a cell holds outside columns of text: a number, true, false, text, or nothing (None).

    Only what stands without quotes and is a JSON number or one of true, True, TRUE, false, False, FALSE is
    not text; an empty cell without quotes is None.
    """
    text, quoted = cell
    if quoted or len(text) > LONGEST_NUMBER:
        return text
    if not text:
        return None
    if text in _WORDS:
        return _WORDS[text]
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    if number[1] is None and number[2] is None:
        return int(text)
    value = float(text)
    # 1e999 would be infinite, which JSON cannot hold
    return text if value in (float("inf"), float("-inf")) else value


def csv_line(cells: Sequence[str], delimiter: str, *, header: bool = False) -> bytes:
    """A line of text cells, with quotes where they would else be read as something other than that text."""
    plain = _PLAIN_NAME.fullmatch if header else None
    quoted = (
        cell if (plain(cell) if plain else _is_plain(cell, delimiter)) else _in_quotes(cell) for cell in cells
    )
    return (delimiter.join(quoted) + "\n").encode()


def row_of_cells(row: Mapping[str, Any], names: Sequence[str], delimiter: str) -> bytes:
    """The line of a row: numbers, true and false as JSON writes them, lists and objects as JSON in quotes."""
    return (delimiter.join(_written(row.get(name), delimiter) for name in names) + "\n").encode()


def _written(value: Any, delimiter: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value if _is_plain(value, delimiter) else _in_quotes(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _in_quotes(text) if isinstance(value, list | tuple | Mapping) else text


def _is_plain(text: str, delimiter: str) -> bool:
    # read back as it will be: a text such as 7 or true needs quotes to stay a text
    return not _NEEDS_QUOTES.search(text) and delimiter not in text and cell_value(Cell(text)) == text


def _in_quotes(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _raw_rows(stream: BinaryIO, path: Path, delimiter: str, start: Place) -> Iterator[_Raw]:
    """The bytes of each row without its end: lines are joined while a quote is open. 0 is the header."""
    # a quote opens a cell only at its beginning; elsewhere it is a letter like others
    opens = re.compile(b'(?:^|%s)"' % re.escape(delimiter).encode())
    number, offset = start.line, start.offset
    # a byte more than is allowed: what is longer is seen without reading all of it
    while data := stream.readline(LONGEST_RECORD + 1):
        parts = [data.removeprefix(UTF8_BOM) if offset == 0 else data]
        size = len(data)
        is_open = _open_after(parts[0], opens, is_open=False)
        while is_open and size <= LONGEST_RECORD:
            more = stream.readline(LONGEST_RECORD + 1)
            if not more:
                raise DataError(f"{_at(path, number)}: a quote is never closed", hint=_QUOTES)
            parts.append(more)
            size += len(more)
            is_open = _open_after(more, opens, is_open=True)
        # an open quote may run to the end of the file: without a limit all of it would be held as one cell
        if size > LONGEST_RECORD:
            raise DataError(f"{_at(path, number)}: more than {LONGEST_RECORD} bytes", hint=_QUOTES)
        content = b"".join(parts)
        # tabs stay: in TSV a row of empty cells is nothing but tabs
        if content.strip(b" \r\n"):
            yield _Raw(Place(number, offset, "row"), content.removesuffix(b"\n").removesuffix(b"\r"))
            number += 1
        offset += size


def _at(path: Path, number: int) -> str:
    return f"{path}: row {number}" if number else f"{path}: the header"


def _open_after(line: bytes, opens: re.Pattern[bytes], *, is_open: bool) -> bool:
    """Whether a quoted cell is still open at the end of a line."""
    if b'"' not in line:
        return is_open
    place = 0
    while True:
        if is_open:
            closed = _after_quoted(line, place, b'"')
            if closed is None:
                return True
            place = closed
        opened = opens.search(line, place)
        if opened is None:
            return False
        place, is_open = opened.end(), True


def _after_quoted(text: AnyStr, place: int, quote: AnyStr) -> int | None:
    """Where a quoted cell ends whose opening quote stands before `place`; None when it goes on."""
    while (found := text.find(quote, place)) >= 0:
        if text[found + 1 : found + 2] != quote:
            return found + 1
        place = found + 2
    return None


def _columns(data: bytes, delimiter: str, path: Path, columns: Columns) -> _Columns:
    try:
        names = [cell.text for cell in _cells(_decoded(data), delimiter)]
    except Reason as reason:
        raise DataError(f"{path}: the header: {reason}", hint=reason.hint) from None
    twice = next((name for name in names if names.count(name) > 1), None)
    # a row is a dict: the second column would replace the first without a word
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}", hint="rename one of them")
    called = {theirs: own for own, theirs in columns}
    ours = {name: called.get(name, name) for name in names}
    texts = frozenset(name for name in names if ours[name] in TEXT_COLUMNS)
    return _Columns(names, ours, texts, frozenset(), delimiter)


def _list_columns(first: Sequence[_Raw], columns: _Columns) -> frozenset[str]:
    """The columns that may hold lists and whose first cells all do."""
    found: dict[str, list[bool]] = {name: [] for name in columns.names if columns.ours[name] in LIST_COLUMNS}
    for raw in first if found else ():
        try:
            cells = _cells(_decoded(raw.data), columns.delimiter)
        except Reason:
            continue
        for name, cell in zip(columns.names, cells, strict=False):
            if name in found and cell.text:
                found[name].append(is_list_cell(cell.text))
    # all of them: an answer of text may begin with a bracket too
    return frozenset(name for name, lists in found.items() if lists and all(lists))


def is_list_cell(text: str) -> bool:
    """Whether a cell is written as a JSON list."""
    if not text.lstrip().startswith("["):
        return False
    try:
        return isinstance(_json(text), list)
    except Reason:
        return False


def _json(text: str) -> Any:
    try:
        return parse_json(text, finite=True, unique=True)
    except BadJson as error:
        raise Reason(f"not JSON: {error}") from None


def _record(raw: _Raw, columns: _Columns) -> AnyRecord:
    try:
        cells = _cells(_decoded(raw.data), columns.delimiter)
        if len(cells) != len(columns.names):
            raise Reason(f"{len(cells)} cells where the header has {len(columns.names)}", _QUOTES)
        fields = {name: _value(name, cell, columns) for name, cell in zip(columns.names, cells, strict=True)}
        return Record(raw.place, fields, raw.data)
    except Reason as reason:
        return BadRecord(raw.place, reason, raw.data.decode("utf-8", "backslashreplace"))


def _value(name: str, cell: Cell, columns: _Columns) -> Any:
    if name in columns.lists and cell.text:
        value = _json(cell.text) if cell.text.lstrip().startswith("[") else None
        if not isinstance(value, list):
            raise Reason(
                f"{name} is text, and a list in the file's first rows",
                "write the rows as JSON Lines, where a list is a list",
            )
        return value
    if name in columns.texts:
        return cell.text if cell.text or cell.quoted else None
    return cell_value(cell)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Reason(f"not UTF-8 at byte {error.start + 1} of the row", "save the file as UTF-8") from None


def _cells(text: str, delimiter: str) -> list[Cell]:
    # most rows have none, and splitting at once is quicker than going from cell to cell
    if '"' not in text:
        return [Cell(cell) for cell in text.split(delimiter)]
    cells, place = [], 0
    while True:
        end_of_quoted = _after_quoted(text, place + 1, '"') if text.startswith('"', place) else None
        if end_of_quoted is None:
            end = text.find(delimiter, place)
            cells.append(Cell(text[place:] if end < 0 else text[place:end]))
            place = len(text) if end < 0 else end
        else:
            cells.append(Cell(text[place + 1 : end_of_quoted - 1].replace('""', '"'), quoted=True))
            place = end_of_quoted
        if place == len(text):
            return cells
        if not text.startswith(delimiter, place):
            raise Reason(f"text after the closing quote of cell {len(cells)}", _QUOTES)
        place += 1
