"""Fields that have other names in a file: `prompt=question,chosen=best`."""

import difflib
from collections.abc import Mapping
from typing import Any

from sarm_control.errors import ConfigError

NAMES = (
    *("prompt", "response", "chosen", "rejected", "candidates", "messages"),
    *("completion", "conversations", "instruction", "input", "output", "system"),
    *("context", "response1", "response2", "overall_preference"),
)
"""The fields that forms of rows are made of."""

_EXAMPLE = "--columns prompt=question,chosen=best"


def parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    """The (our name, the file's name) pairs that `prompt=question,chosen=best` lists.

    Raises:
        ConfigError: not of that form, a name that no form of rows has, or one that is given twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        own, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not (own and equals and theirs):
            raise ConfigError(f"--columns {text}: {part.strip()!r} is not OURS=THEIRS", hint=_EXAMPLE)
        if own in found:
            raise ConfigError(f"--columns {text}: {own} is there twice", hint=_EXAMPLE)
        found[own] = theirs
    return check_columns(found)


def check_columns(columns: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The same pairs, of a mapping from our names to the file's.

    Raises:
        ConfigError: a name that no form of rows has.
    """
    for own in columns:
        if own not in NAMES:
            near = difflib.get_close_matches(own, NAMES, n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"columns: no form of rows has a field {own}{guess}", hint=", ".join(NAMES))
    return tuple(columns.items())


def renamed(fields: Mapping[str, Any], columns: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The fields under our names.

    A name that `columns` gives is that field and no other: where the row lacks it, the row does not get the
    field of our name in its place.
    """
    if not columns:
        return dict(fields)
    moved = {theirs for _, theirs in columns} | {own for own, _ in columns}
    kept = {name: value for name, value in fields.items() if name not in moved}
    return {own: fields[theirs] for own, theirs in columns if theirs in fields} | kept
