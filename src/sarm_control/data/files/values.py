"""Values of tables and of Python as the JSON values that rows are made of."""

import datetime
import decimal
import math
import uuid
from collections.abc import Mapping
from typing import Any

from sarm_control.bounded_json import DEEPEST, LONGEST_NUMBER
from sarm_control.data.lines import Reason

_MOST = 10**LONGEST_NUMBER
_AS_TEXT = (datetime.date, datetime.time)


def plain_fields(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """A record's fields as JSON values; dates and times become ISO text, decimals and UUIDs their text.

    Raises:
        Reason: a value that JSON has no form for (bytes, NaN, an object), naming its field.
    """
    return {_name(name): plain(value, str(name)) for name, value in fields.items()}


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """One value; `name` is the field's, for messages.

    Raises:
        Reason: see `plain_fields`.
    """
    # before whole numbers, of which Python takes true and false for two
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, int):
        return _whole(int(value), name)
    if isinstance(value, float):
        return _finite(float(value), name)
    return _other(value, name, depth)


def _other(value: Any, name: str, depth: int) -> Any:
    if depth == DEEPEST:
        raise Reason(f"{name} is nested more than {DEEPEST} deep")
    if isinstance(value, Mapping):
        return {_name(key): plain(one, f"{name}.{key}", depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, name, depth + 1) for one in value]
    if isinstance(value, _AS_TEXT):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        # numpy's scalars and arrays
        return plain(value.tolist(), name, depth + 1)
    kind = "bytes" if isinstance(value, bytes | bytearray | memoryview) else f"a {type(value).__name__}"
    raise Reason(f"{name} is {kind}, which is no text, number or list", f"leave the column {name} out")


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise Reason(f"a field is called {name!r}, which is no text", "rename the column")
    return _text(name, "a field's name")


def _text(value: str, name: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise Reason(f"{name} holds half a character ({half} without its pair)") from None
    return str(value)


def _whole(value: int, name: str) -> int:
    if not -_MOST < value < _MOST:
        raise Reason(f"{name} is a number of more than {LONGEST_NUMBER} digits")
    return value


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        missing = "write null for a value that is missing" if math.isnan(value) else None
        raise Reason(f"{name} is {value}, which is no number", missing)
    return value
