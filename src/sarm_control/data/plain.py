"""Rows of any form written as plain ones."""

from typing import Any

from sarm_control.data.lines import Reason
from sarm_control.data.messages import as_messages
from sarm_control.data.rows import Kind, Row, parse_row
from sarm_control.data.shapes import AUTOMATIC, other_fields, turns_of
from sarm_control.errors import DataError

_EVERY: tuple[Kind, ...] = ("pair", "candidates", "answer", "prompt")


def plain_row(row: Row) -> dict[str, Any]:
    """The fields of a plain row that is read as this one; what else the row holds comes behind.

    Plain rows stay what they are, but for contents in parts, which become texts.

    Args:
        row: of any form, as `read_rows` gives it when every kind is wanted.

    Raises:
        DataError: no plain row is read as this one.
    """
    try:
        others = other_fields(row.raw, row.read_as)
    except Reason as problem:
        raise DataError(f"{row.where}: {problem}", hint=problem.hint) from None
    if others is None and row.read_as == AUTOMATIC:
        return row.raw | {
            name: [dict(turn) for turn in turns_of(row.raw[name], name)]
            for name in ("prompt", "messages")
            if _has_parts(row.raw.get(name))
        }
    if others is None:
        # both names of a renamed field go, or its content would be there twice
        moved = {name for pair in row.read_as.columns for name in pair}
        taken = {*moved, *_own(row), "messages"}
        others = {name: value for name, value in row.raw.items() if name not in taken}
    found = _own(row) | others
    if _says_the_same(found, row):
        return found
    # a prompt that looks like a transcript is none as a message
    found["prompt"] = list(as_messages(row.prompt))
    if _says_the_same(found, row):
        return found
    raise DataError(f"{row.where}: no plain row says the same as this one", hint="rename its other fields")


def _has_parts(messages: Any) -> bool:
    """Whether a content of messages is no text."""
    return isinstance(messages, list) and not all(isinstance(turn.get("content"), str) for turn in messages)


def _own(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = {"prompt": row.prompt}
    if row.kind == "answer":
        fields["response"] = row.response
    if row.kind == "candidates":
        fields["candidates"] = list(row.candidates)
    if row.kind == "pair":
        for side, answers in (("chosen", row.chosen), ("rejected", row.rejected)):
            fields[side] = answers[0] if len(answers) == 1 else list(answers)
    return fields


def _says_the_same(fields: dict[str, Any], row: Row) -> bool:
    try:
        again = parse_row(fields, path=row.path, line=row.line, want=_EVERY)
    except DataError:
        return False
    said = (again.kind, as_messages(again.prompt), again.response, again.chosen, again.rejected)
    same = said == (row.kind, as_messages(row.prompt), row.response, row.chosen, row.rejected)
    return same and again.candidates == row.candidates and again.ended == row.ended
