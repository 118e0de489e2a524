"""A JSON array of rows, element by element: memory does not grow with the array."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sarm_control.data.files.records import AnyRecord, BadRecord, Record
from sarm_control.data.lines import LONGEST_RECORD, START, Place, Reason, json_object
from sarm_control.errors import DataError

_BLOCK = 1 << 18
_MARK = re.compile(rb'["\[\]{},]')
_BACKSLASH = ord("\\")
_DEEPER = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_ENDS_EARLY = "the list has no end: the file was cut, or a bracket or quote is missing"


def array_records(stream: BinaryIO, path: Path, start: Place = START) -> Iterator[AnyRecord]:
    """The elements of an array, from `start` on.

    Args:
        stream: open at its beginning.
        path: its name, for messages.
        start: where an element starts, as an earlier reading gave it.

    Raises:
        DataError: the array has no end, something follows it, or an element has more than 64 MiB.
    """
    for place, data in _elements(stream, path, start):
        try:
            yield Record(place, json_object(data), data)
        except Reason as reason:
            named = Reason(str(reason).replace(" of the line", " of the row"), "wants a list of objects")
            yield BadRecord(place, named, data.decode("utf-8", "backslashreplace"))


class _Window:
    """What of a stream is being looked at: `data[at:]`, which begins at `origin + at` in the file."""

    def __init__(self, stream: BinaryIO, origin: int) -> None:
        self.stream = stream
        self.origin = origin
        self.data = b""
        self.at = 0

    def more(self) -> bool:
        """Reads on, and forgets what lies behind; whether there was more.

        As much again as is there, so that what is searched again is a part of what is read.
        """
        block = self.stream.read(max(_BLOCK, len(self.data) - self.at))
        self.origin += self.at
        self.data = self.data[self.at :] + block
        self.at = 0
        return bool(block)


def _elements(stream: BinaryIO, path: Path, start: Place) -> Iterator[tuple[Place, bytes]]:
    window = _Window(stream, stream.seek(start.offset) if start.offset else 0)
    if not start.offset:
        _open(window)
    number, closing = (start.line if start.offset else 1), False
    while not closing:
        length, closing = _element(window, path, number)
        data = window.data[window.at : window.at + length]
        content = data.strip()
        # an empty list has no element; after a comma there has to be one
        if (content or not closing or number > 1) and number >= start.line:
            yield Place(number, window.origin + window.at + len(data) - len(data.lstrip()), "row"), content
        window.at += length + 1
        number += 1
    _nothing_follows(window, path)


def _open(window: _Window) -> None:
    while b"[" not in window.data and window.more():
        pass
    window.at = window.data.index(b"[") + 1


def _element(window: _Window, path: Path, number: int) -> tuple[int, bool]:
    """Bytes up to the comma or bracket after an element, and whether it is the bracket."""
    depth, length = 0, 0
    while True:
        mark = _MARK.search(window.data, window.at + length)
        if mark is not None and mark[0] != b'"':
            if not depth and mark[0] in b",]":
                length = mark.start() - window.at
                if length > LONGEST_RECORD:
                    raise _too_long(path, number)
                return length, mark[0] == b"]"
            # a bracket too many ends nothing here: the parser says what is wrong with the element
            depth = max(0, depth + _DEEPER.get(mark[0], 0))
            length = mark.end() - window.at
            continue
        end = None if mark is None else _after_string(window.data, mark.end())
        if end is not None:
            length = end - window.at
            continue
        length = (len(window.data) if mark is None else mark.start()) - window.at
        if len(window.data) - window.at > LONGEST_RECORD:
            raise _too_long(path, number)
        if not window.more():
            raise DataError(f"{path}: row {number}: {_ENDS_EARLY}", hint="write the file again")


def _after_string(data: bytes, place: int) -> int | None:
    """Where a string ends whose opening quote stands before `place`; None when it goes on.

    No pattern: one that fails goes back over every byte, and a string may have 64 MiB.
    """
    begin = place
    while (quote := data.find(b'"', place)) >= 0:
        back = quote
        while back > begin and data[back - 1] == _BACKSLASH:
            back -= 1
        if (quote - back) % 2 == 0:
            return quote + 1
        place = quote + 1
    return None


def _too_long(path: Path, number: int) -> DataError:
    return DataError(f"{path}: row {number}: more than {LONGEST_RECORD} bytes", hint="give one list of rows")


def _nothing_follows(window: _Window, path: Path) -> None:
    while True:
        rest = window.data[window.at :].strip()
        if rest:
            raise DataError(
                f"{path}: something follows the list: {rest[:40].decode('utf-8', 'replace')!r}",
                hint="a JSON file has one list; JSON Lines has one object on each line",
            )
        window.at = len(window.data)
        if not window.more():
            return
