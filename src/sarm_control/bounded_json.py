"""JSON from files and lines that anybody may have damaged: limits on size, depth and numbers.

Python's reader takes whatever is there: text nested 200,000 deep ends the recursion with a traceback, a
number of 5,000 digits cannot be printed later. Every JSON file is read through here, so that such a
file is an error in one line. What a file *means* is checked by its own reader; `MISSHAPEN` is what
goes wrong there when a value has another type than the reader expects.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Final, NoReturn

from sarm_control.errors import DataError, SarmError

MOST_BYTES: Final = 64 << 20
"""The largest JSON file that is read; the files of a run or a model are a thousandth of it."""
DEEPEST: Final = 100
"""How many lists and objects may lie in each other."""
LONGEST_NUMBER: Final = 100
"""Characters of a number."""
MISSHAPEN: Final = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
)
"""What reading a value of an unexpected type raises; to be caught around the reading of a file's content."""

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_LONG_NUMBER = re.compile(rf"\d{{{LONGEST_NUMBER + 1}}}")
_PIPES_OF_THE_SHELL = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


class BadJson(ValueError):
    """Why a text is not JSON that can be used, in a few words."""


def parse_json(text: str, *, deepest: int = DEEPEST, finite: bool = False, unique: bool = False) -> Any:
    """The value that a text holds.

    Args:
        text: JSON.
        deepest: how many lists and objects may lie in each other.
        finite: refuse NaN, infinities, and numbers too large for a float.
        unique: refuse an object that has a key twice; else the last one counts.

    Raises:
        BadJson: it is not JSON, or beyond a limit.
    """
    if _is_deeper(text, deepest):
        raise BadJson(f"nested more than {deepest} deep")
    hooks: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite} if finite else {}
    if unique:
        hooks["object_pairs_hook"] = _unique
    if _LONG_NUMBER.search(text):
        hooks["parse_int"] = _short
    try:
        value = json.loads(text, **hooks)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise BadJson(f"half a character ({half}), which is no text") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        raise BadJson(f"{error.msg} at {place}") from None
    except RecursionError:
        raise BadJson("nested too deeply") from None


def read_json(
    path: Path,
    *,
    most_bytes: int = MOST_BYTES,
    deepest: int = DEEPEST,
    finite: bool = False,
    hint: str | None = None,
    error: type[SarmError] = DataError,
) -> Any:
    """The value that a file holds.

    Args:
        path: a JSON file in UTF-8.
        most_bytes: the largest file that is read.
        deepest: how many lists and objects may lie in each other.
        finite: refuse NaN, infinities, and numbers too large for a float.
        hint: what to do about a file that cannot be used.
        error: the kind of error.

    Raises:
        SarmError: an `error` naming the file and why it cannot be used.
    """
    text = read_bounded_text(path, most_bytes=most_bytes, hint=hint, error=error)
    try:
        return parse_json(text, deepest=deepest, finite=finite)
    except BadJson as bad:
        raise error(f"{path}: not JSON: {bad}", hint=hint) from bad


def read_json_object(
    path: Path,
    *,
    most_bytes: int = MOST_BYTES,
    deepest: int = DEEPEST,
    finite: bool = False,
    hint: str | None = None,
    error: type[SarmError] = DataError,
) -> dict[str, Any]:
    """The object that a file holds.

    Args:
        path: see `read_json`, as for the rest.
        most_bytes: the largest file that is read.
        deepest: how many lists and objects may lie in each other.
        finite: refuse NaN, infinities, and numbers too large for a float.
        hint: what to do about a file that cannot be used.
        error: the kind of error.

    Raises:
        SarmError: an `error` naming the file and why it cannot be used.
    """
    found = read_json(path, most_bytes=most_bytes, deepest=deepest, finite=finite, hint=hint, error=error)
    if not isinstance(found, dict):
        raise error(f"{path}: not a JSON object but {shown(found)}", hint=hint)
    return found


def read_bounded_text(
    path: Path, *, most_bytes: int, hint: str | None = None, error: type[SarmError] = DataError
) -> str:
    """The text of a UTF-8 file of bounded size; a leading byte-order mark is left out.

    Anything but a file (a folder, a device, a pipe that nobody may ever write to) is refused; pipes that
    a shell made for this command (`<(...)`) are read.

    Raises:
        SarmError: an `error` naming the file and why it cannot be read.
    """
    try:
        data = _data(path, most_bytes)
    except OSError as problem:
        raise error(f"{path}: {problem.strerror or problem}", hint=hint) from problem
    except ValueError as problem:
        # a path with a zero byte
        raise error(f"{str(path)[:200]!r}: no name of a file", hint=hint) from problem
    if data is None:
        raise error(f"{path}: not a file", hint=hint)
    if len(data) > most_bytes:
        raise error(f"{path}: larger than {most_bytes} bytes, the most that is read", hint=hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 at byte {problem.start + 1}", hint=hint) from problem


def shown(value: Any, most: int = 60) -> str:
    """A value in an error message, cut to a length; of a list or an object only how much it holds."""
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "object"
        return f"{'a' if kind == 'list' else 'an'} {kind} of {len(value)}"
    text = repr(value[: most + 1]) if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _data(path: Path, most_bytes: int) -> bytes | None:
    """One byte more than is allowed, where there are so many; None for what is no file."""
    regular = stat.S_ISREG(os.stat(path).st_mode)
    if not regular and not str(path).startswith(_PIPES_OF_THE_SHELL):
        return None
    with path.open("rb") as stream:
        return stream.read(most_bytes + 1)


def _is_deeper(text: str, deepest: int) -> bool:
    if text.count("[") + text.count("{") <= deepest:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth > deepest:
                return True
        elif first in "]}":
            depth -= 1
    return False


def _refuse_constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadJson(f"{text[:LONGEST_NUMBER]} is too large for a number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadJson(f"the key {shown(twice)} is there twice")
    return found


def _short(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise BadJson(f"a number of {len(text)} digits")
    return int(text)
