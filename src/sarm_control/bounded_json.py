"""JSON objects from files that somebody else wrote: bounded in size, depth and numbers."""

import json
import math
import stat
from pathlib import Path
from typing import Any

from sarm_control.errors import DataError

MOST_BYTES = 64 << 20
"""The largest file that is read: the index of a model of many thousand shards has a tenth of it."""
DEEPEST = 100
"""How deep lists and objects may lie in each other."""
_MOST_DIGITS = 400


def read_json_object(
    path: Path, *, most_bytes: int = MOST_BYTES, deepest: int = DEEPEST
) -> dict[str, object]:
    """The object in a JSON file.

    Refused are NaN and infinity, which are no JSON, numbers that no float holds, text that is no Unicode,
    and whatever is no regular file: opening a pipe would wait for ever.

    Args:
        path: the file.
        most_bytes: the largest size that is read.
        deepest: how deep values may be nested.

    Raises:
        DataError: naming the path, and what is wrong with it.
    """
    text = _read(path, most_bytes)
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_short_integer
        )
    except RecursionError as error:
        raise DataError(f"{path} is nested deeper than {deepest} values") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a JSON object but {_KINDS.get(type(value), 'null')}")
    _check(value, path, deepest)
    return value


_KINDS = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}


def _read(path: Path, most_bytes: int) -> str:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path} is not a regular file")
        if found.st_size > most_bytes:
            raise DataError(f"{path} has {found.st_size} bytes, at most {most_bytes} are read")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{path} cannot be read: {reason}") from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large for a number")
    return value


def _short_integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _check(value: object, path: Path, deepest: int) -> None:
    """Depth and text of a parsed value, without recursion."""
    level: list[Any] = [value]
    for _ in range(deepest):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str):
                _check_text(one, path)
            elif isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
        if not inner:
            return
        level = inner
    raise DataError(f"{path} is nested deeper than {deepest} values")


def _check_text(text: str, path: Path) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path} holds text that is no Unicode") from error
