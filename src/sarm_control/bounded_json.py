"""Reads JSON that may be damaged or hostile, with limits on size, depth and numbers.

Python's own reader has no limits: text that is nested 200,000 deep ends in a RecursionError, and a number of
5,000 digits cannot be printed later. Every JSON file is read through this module, so that such a file is an
error in one line. The reader of each file checks what the file means. `MISSHAPEN` are the exceptions that it
can get where a value has another type than it expects.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Final, NoReturn

from sarm_control.embedded import PIPES_OF_THE_SHELL
from sarm_control.errors import DataError, SarmError

MOST_BYTES: Final = 64 << 20
"""The largest JSON file that is read; the files of a run or a model are a thousandth of it."""
DEEPEST: Final = 100
"""How deep lists and objects may be nested."""
LONGEST_NUMBER: Final = 100
"""The most characters of a number."""
MISSHAPEN: Final = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
)
"""Exceptions raised by a value of an unexpected type; catch them around the reading of a file's content."""

# strings come first, so that brackets inside of them count for nothing; one that never ends counts too
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_LONG_NUMBER = re.compile(rf"\d{{{LONGEST_NUMBER + 1}}}")


class BadJson(ValueError):
    """Why a text is not JSON that can be used, in a few words."""


def parse_json(text: str, *, deepest: int = DEEPEST, finite: bool = False, unique: bool = False) -> Any:
    """The value that a text holds.

    Args:
        text: JSON.
        deepest: how deep lists and objects may be nested.
        finite: refuse NaN, infinities, and numbers too large for a float.
        unique: refuse an object that has a key twice; else the last one counts.

    Raises:
        BadJson: the text is not JSON, or exceeds a limit.
    """
    # before the parser sees it, which would go down as deep as the text says
    if _is_deeper(text, deepest):
        raise BadJson(f"nested more than {deepest} deep")
    hooks: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite} if finite else {}
    if unique:
        hooks["object_pairs_hook"] = _unique
    # the hook for numbers is slow, so it is used only where a long run of digits occurs at all
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
        deepest: how deep lists and objects may be nested.
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
        path: a JSON file in UTF-8.
        most_bytes: the largest file that is read.
        deepest: how deep lists and objects may be nested.
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
    """The text of a UTF-8 file of bounded size, without a leading byte-order mark.

    Only files are read, not folders, devices, or pipes that nobody may ever write to. Pipes that a shell made
    for this command (`<(...)`) are read.

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
    """A value for an error message, cut to a length; of a list or an object only its size is shown."""
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "object"
        return f"{'a' if kind == 'list' else 'an'} {kind} of {len(value)}"
    text = repr(value[: most + 1]) if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _data(path: Path, most_bytes: int) -> bytes | None:
    """The bytes of a file, at most one more than is allowed; None for what is not a file."""
    regular = stat.S_ISREG(os.stat(path).st_mode)
    if not regular and not str(path).startswith(PIPES_OF_THE_SHELL):
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
