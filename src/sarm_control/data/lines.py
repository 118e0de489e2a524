r"""Lines of a JSON Lines file: where each one starts, and the object it holds.

UTF-8; blank lines and a leading BOM are tolerated, lines are split on `\n` only.
"""

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from sarm_control.bounded_json import BadJson, parse_json
from sarm_control.embedded import input_file
from sarm_control.errors import DataError

UTF8_BOM = b"\xef\xbb\xbf"
LONGEST_RECORD = 64 << 20
"""Bytes of one line or row."""
_ONE_OBJECT = "JSON Lines has one whole object on each line"


Unit = Literal["line", "row"]


class Place(NamedTuple):
    """Where a record starts: reading can go on from there.

    Args:
        line: its number, from 1: of the line in JSON Lines, of the row in every other form.
        offset: its byte offset in the (decompressed) file; 0 in forms that are read by number.
        unit: what is counted.
        file: the name of the file, when the source is a folder of files.
    """

    line: int
    offset: int
    unit: Unit = "line"
    file: str = ""

    def of(self, path: Path) -> str:
        """The place as messages name it: `data.jsonl:17`, `data.parquet: row 17`."""
        return named_place(path / self.file, self.line, self.unit)


START = Place(1, 0)


def named_place(path: Path, number: int, unit: Unit) -> str:
    """A line or row of a file as messages name it: `data.jsonl:17`, `data.parquet: row 17`."""
    return f"{path}:{number}" if unit == "line" else f"{path}: row {number}"


class Line(NamedTuple):
    """A line that is not blank, without its end and without a BOM."""

    place: Place
    data: bytes


class Reason(Exception):
    """Why one line cannot be used; the reader adds the place."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def read_lines(path: Path, start: Place = START) -> Iterator[Line]:
    """The lines of a file from `start` on, read as they are asked for.

    Raises:
        DataError: the file cannot be read, has a line of more than 64 MiB, or the embedded world has no
            such file.
    """
    with readable(path), input_file(path).open("rb") as stream:
        yield from lines_of(stream, path, start)


def lines_of(stream: BinaryIO, path: Path, start: Place = START) -> Iterator[Line]:
    """The same of a file that is open at its beginning, perhaps while it is decompressed.

    Raises:
        DataError: a line of more than 64 MiB.
    """
    offset = stream.seek(start.offset) if start.offset else 0
    lines = iter(lambda: stream.readline(LONGEST_RECORD + 1), b"")
    for number, data in enumerate(lines, start=start.line):
        if len(data) > LONGEST_RECORD:
            raise DataError(f"{path}:{number}: a line of more than {LONGEST_RECORD} bytes", hint=_ONE_OBJECT)
        text = data.removeprefix(UTF8_BOM) if number == 1 else data
        if text.strip(b" \t\r\n"):
            yield Line(Place(number, offset), text.rstrip(b"\r\n"))
        offset += len(data)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, as an error that names it.

    Raises:
        DataError: it is not there, cannot be read, or its compressed data end early or are damaged.
    """
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: the compressed data are damaged or end early: {error}",
            hint="copy or download the file again",
        ) from error
    except OSError as error:
        # of a decompressor, not of the system
        if error.strerror is None:
            raise DataError(f"{path}: the compressed data are damaged: {error}") from error
        raise DataError(f"{path}: {error.strerror}", hint="check the file's name") from error


def json_object(data: bytes) -> dict[str, Any]:
    """The object a line holds.

    Raises:
        Reason: not UTF-8, not JSON (NaN and infinities are not), not an object, an object with a key
            twice, or half a character.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Reason(f"not UTF-8 at byte {error.start + 1} of the line", "save the file as UTF-8") from None
    try:
        value = parse_json(text, finite=True, unique=True)
    except BadJson as error:
        raise Reason(f"not JSON: {error}", _ONE_OBJECT) from None
    if not isinstance(value, dict):
        raise Reason(f"not an object but {type_name(value)}", _ONE_OBJECT)
    # half a character can only be written as an escape: as bytes it is no UTF-8 and was refused above
    if "\\u" in text:
        _check_surrogates(value)
    return value


def type_name(value: Any) -> str:
    """What a JSON value is, in words: `a number`, `an empty list`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    kind = "list" if isinstance(value, list) else "object"
    return f"{'a' if kind == 'list' else 'an'} {kind}" if value else f"an empty {kind}"


def _check_surrogates(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        unit = error.object[error.start].encode("unicode_escape").decode("ascii")
        raise Reason(f"holds half a character ({unit} without its pair)") from None
