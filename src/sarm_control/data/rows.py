"""Rows of a data file: prompts, answers, preference pairs, candidates.

A row is one record of a file of any form (see `data/files`), or of rows in memory (DESIGN.md, section 3):

    {"prompt", "response"}             kind "answer"       ("question", "answer" are aliases)
    {"prompt", "chosen", "rejected"}   kind "pair"         (each a string or a list of strings)
    {"prompt", "candidates"}           kind "candidates"   (a list of strings)
    {"prompt"}                         kind "prompt"
    {"messages"}                       kind "answer" when the last message is the assistant's, else "prompt"

A prompt is a string or a list of `{"role", "content"}` messages. A row of more than one kind is read
as the first kind of this order that is wanted: pair, candidates, answer, prompt. Other fields are kept
in `Row.raw`. A field that is null counts as absent.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from sarm_control.console import say
from sarm_control.data.files import BadRecord, Source, read_records
from sarm_control.data.files.memory import is_in_memory, name_of
from sarm_control.data.lines import START, Place, Reason, Unit, named_place, type_name
from sarm_control.data.messages import Prompt, prompt_key
from sarm_control.errors import DataError
from sarm_control.files import check_writable, write_jsonl

Kind = Literal["answer", "pair", "candidates", "prompt"]

WITH_ANSWERS: frozenset[Kind] = frozenset({"answer", "pair", "candidates"})
"""The kinds of row that have answers."""

_ANSWER_FIELDS: dict[Kind, str] = {
    "answer": "response (or answer)",
    "pair": "chosen with rejected",
    "candidates": "candidates",
}


@dataclass(frozen=True)
class Row:
    """One row of a data file.

    Args:
        path: the file it came from; `<list>` or the like for rows that were in memory.
        line: its line in that file, from 1; its row, where it has no lines (see `unit`).
        raw: the row's own fields, in their order, of JSON values.
        kind: what it was read as; answers of other kinds are left empty.
        prompt: text, or messages of which the last is not the assistant's.
        response: the answer of an "answer" row; may be the empty string.
        chosen: the better answers of a "pair" row, at least one.
        rejected: the worse answers of a "pair" row, at least one.
        candidates: the answers of a "candidates" row, at least one.
        ended: false when an "answer" row says that its answer was cut at a length limit
            (`"ended": false` or `"finish_reason": "length"`).
        unit: what `line` counts: lines of JSON Lines, rows of every other form.
    """

    path: Path
    line: int
    raw: dict[str, Any]
    kind: Kind
    prompt: Prompt
    response: str | None = None
    chosen: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    ended: bool = True
    unit: Unit = "line"

    @property
    def where(self) -> str:
        """The row's place, as messages name it: `data.jsonl:17`, `data.parquet: row 17`."""
        return named_place(self.path, self.line, self.unit)

    @property
    def answers(self) -> tuple[str, ...]:
        """Every answer of the row: the response, or chosen then rejected, or the candidates."""
        if self.response is not None:
            return (self.response,)
        return self.chosen + self.rejected + self.candidates

    @property
    def prompt_key(self) -> str:
        """One text per distinct prompt, the unit that statistics are clustered by.

        A single user message and the same text as a plain string have the same key.
        """
        return prompt_key(self.prompt)


class BadRow(NamedTuple):
    """A line or row that cannot be used, and why."""

    line: int
    reason: str
    hint: str | None
    text: str
    unit: Unit = "line"


class PlacedRow(NamedTuple):
    """A row and where its line starts."""

    place: Place
    row: Row


def read_rows(
    path: Source,
    *,
    want: Collection[Kind],
    skip_bad_rows: Path | str | None = None,
    limit: int | None = None,
) -> list[Row]:
    """Reads the rows of a data file of any form, or takes rows that are in memory.

    Args:
        path: the data file; a name: `lab:audit` of the embedded world, `-` for standard input,
            `hf:owner/name/train` on the hub; or rows: a list of dicts, a pandas or polars frame, an Arrow
            table, a `datasets.Dataset`.
        want: the kinds of row the caller can use. `"prompt"` accepts every row, for its prompt.
        skip_bad_rows: a file that takes the rows that cannot be used, as `{"line", "reason", "text"}`
            (`"row"` instead of `"line"` in forms without lines); how many is said in one line on stderr.
            Without it the first bad row raises.
        limit: the most rows that are read, bad ones included; None reads all.

    Returns:
        The usable rows in the file's order, at least one.

    Raises:
        DataError: `file:line: reason` for a bad row; a missing or unreadable file, or one of a form that
            is not read; no usable row; a name after `lab:` that the embedded world does not have.
        OutputError: `skip_bad_rows` cannot be written.
    """
    named = name_of(path)
    aside = None if skip_bad_rows is None else Path(skip_bad_rows)
    if aside is not None:
        check_aside(named, aside)
    bad: list[BadRow] = []
    found = stream_rows(path, want=want, on_bad=None if aside is None else bad.append, limit=limit)
    rows = [row for _, row in found]
    if aside is not None:
        set_aside(named, aside, bad, len(rows))
    if not rows:
        no_rows(named, bad)
    return rows


def stream_rows(
    path: Source,
    *,
    want: Collection[Kind],
    start: Place = START,
    on_bad: Callable[[BadRow], None] | None = None,
    limit: int | None = None,
) -> Iterator[PlacedRow]:
    """The usable rows of a file from `start` on, read as they are asked for; there may be none.

    Args:
        path: the data file, a name, or rows in memory; see `read_rows`.
        want: the kinds of row the caller can use, see `read_rows`.
        start: where a row starts, as an earlier reading gave it.
        on_bad: takes the rows that cannot be used; without it the first of them raises.
        limit: the most rows that are read; None reads all.

    Raises:
        DataError: see `read_rows`.
    """
    named = name_of(path)
    for record in read_records(path, start=start, limit=limit):
        place = record.place
        try:
            if isinstance(record, BadRecord):
                raise record.reason
            row = _row(named, place.line, record.fields, want)
        except Reason as problem:
            if on_bad is None:
                raise DataError(f"{place.of(named)}: {problem}", hint=problem.hint) from None
            on_bad(BadRow(place.line, str(problem), problem.hint, record.text, place.unit))
        else:
            yield PlacedRow(place, row if place.unit == row.unit else replace(row, unit=place.unit))


def rows_of(rows: Source, *, want: Collection[Kind]) -> Sequence[Row]:
    """Rows as they are, or those of a source: for functions that take either.

    Args:
        rows: `Row` objects, which pass; or what `read_rows` takes.
        want: the kinds of row the caller can use, see `read_rows`.

    Raises:
        DataError: see `read_rows`.
    """
    if is_in_memory(rows) and isinstance(rows, Sequence) and all(isinstance(row, Row) for row in rows):
        return rows
    return read_rows(rows, want=want)


def parse_row(raw: Mapping[str, Any], *, path: Path, line: int, want: Collection[Kind]) -> Row:
    """The row that one JSON object is.

    Args:
        raw: the object, of JSON values.
        path: the file it came from, for messages.
        line: its line there, from 1.
        want: the kinds of row the caller can use, see `read_rows`.

    Raises:
        DataError: `file:line: reason`.
    """
    try:
        return _row(path, line, dict(raw), want)
    except Reason as problem:
        raise DataError(f"{path}:{line}: {problem}", hint=problem.hint) from None


def count_empty_answers(rows: Sequence[Row]) -> int:
    """How many answers are the empty string: legal, and worth a warning."""
    return sum(answer == "" for row in rows for answer in row.answers)


def check_aside(path: Path, aside: Path) -> None:
    """Refuses a file for bad rows that cannot be written or is the data file itself.

    Raises:
        DataError: it is the data file.
        OutputError: it cannot be written.
    """
    if aside.resolve() == path.resolve():
        raise DataError(
            f"{aside}: bad rows would overwrite the data file",
            hint="give --skip-bad-rows another file name",
        )
    check_writable(aside)


def set_aside(path: Path, aside: Path, bad: Sequence[BadRow], usable: int) -> None:
    """Writes the bad rows as `{"line" or "row", "reason", "text"}` and says how many they are."""
    write_jsonl(aside, [{row.unit: row.line, "reason": row.reason, "text": row.text} for row in bad])
    say(f"{path}: {len(bad)} of {len(bad) + usable} rows set aside in {aside}")


def no_rows(path: Path, bad: Sequence[BadRow]) -> NoReturn:
    """Raises for a file without a usable row.

    Raises:
        DataError: always; it names the first bad row's reason.
    """
    if not bad:
        raise DataError(f"{path}: the file has no rows", hint='each line is one row: {"prompt": "..."}')
    first = bad[0]
    raise DataError(
        f"{path}: none of the {len(bad)} rows can be used; {first.unit} {first.line}: {first.reason}",
        hint=first.hint,
    )


def _row(path: Path, line: int, raw: dict[str, Any], want: Collection[Kind]) -> Row:
    fields = {name: value for name, value in raw.items() if value is not None}
    prompt, said = _prompt_and_answer(fields)
    kind = _kind(fields, said, want)
    if kind is None:
        _no_answer(raw, want)
    row = Row(path, line, raw, kind, prompt)
    if kind == "answer":
        return replace(row, response=said, ended=_ended(fields))
    if kind == "pair":
        return replace(row, chosen=_texts(fields, "chosen"), rejected=_texts(fields, "rejected"))
    if kind == "candidates":
        return replace(row, candidates=_texts(fields, "candidates", one=False))
    return row


def _kind(fields: Mapping[str, Any], said: str | None, want: Collection[Kind]) -> Kind | None:
    has: dict[Kind, bool] = {
        "pair": "chosen" in fields and "rejected" in fields,
        "candidates": "candidates" in fields,
        "answer": said is not None,
        "prompt": True,
    }
    return next((kind for kind, present in has.items() if present and kind in want), None)


def _no_answer(raw: Mapping[str, Any], want: Collection[Kind]) -> NoReturn:
    keys = ", ".join(f"{name} (null)" if value is None else name for name, value in raw.items())
    wanted = ", ".join(text for kind, text in _ANSWER_FIELDS.items() if kind in want)
    missing = [name for name in ("chosen", "rejected") if raw.get(name) is None]
    if "pair" in want and len(missing) == 1:
        raise Reason(f"no {missing[0]} field: has keys [{keys}]", f"wants one of: {wanted}")
    raise Reason(f"no answer field: has keys [{keys}], wants one of [{wanted}]")


def _prompt_and_answer(fields: Mapping[str, Any]) -> tuple[str | list[dict[str, str]], str | None]:
    own = next((name for name in ("prompt", "question") if name in fields), None)
    answer = next((name for name in ("response", "answer") if name in fields), None)
    said = None if answer is None else _text(fields[answer], answer)
    if "messages" not in fields:
        if own is None:
            raise Reason(f"no prompt field: has keys [{', '.join(fields)}], wants prompt or messages")
        return _prompt(fields[own], own), said
    if own is not None:
        raise Reason(f"has both {own} and messages", "keep one of the two in each row")
    messages = _messages(fields["messages"], "messages")
    has_answers = said is not None or "chosen" in fields or "candidates" in fields
    if messages[-1]["role"] == "assistant" and not has_answers:
        said = messages.pop()["content"]
        if not messages:
            raise Reason("messages holds only the assistant's message, no prompt")
    return _unanswered(messages, "messages"), said


def _prompt(value: Any, name: str) -> str | list[dict[str, str]]:
    if isinstance(value, list):
        return _unanswered(_messages(value, name), name)
    text = _text(value, name, "a string or a list of messages")
    if not text.strip():
        raise Reason(f"{name} is empty", "a prompt has at least one character that is not white space")
    return text


def _unanswered(messages: list[dict[str, str]], name: str) -> list[dict[str, str]]:
    if messages[-1]["role"] == "assistant":
        raise Reason(f"{name} ends with the assistant's message", "end it with the user's")
    if not any(message["content"].strip() for message in messages):
        raise Reason(f"{name} is empty", "a prompt has at least one character that is not white space")
    return messages


def _messages(value: Any, name: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise Reason(f'{name} is {type_name(value)}, wants a list of {{"role", "content"}} messages')
    messages: list[dict[str, str]] = []
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise Reason(f'{name}[{i}] is not a {{"role", "content"}} message')
        role = _text(message["role"], f"{name}[{i}].role")
        messages.append({"role": role, "content": _text(message["content"], f"{name}[{i}].content")})
    return messages


def _texts(fields: Mapping[str, Any], name: str, *, one: bool = True) -> tuple[str, ...]:
    value = fields[name]
    if one and isinstance(value, str):
        return (value,)
    wants = "a string or a list of strings" if one else "a list of strings"
    if not isinstance(value, list) or not value:
        raise Reason(f"{name} is {type_name(value)}, wants {wants}")
    return tuple(_text(item, f"{name}[{i}]") for i, item in enumerate(value))


def _text(value: Any, name: str, wants: str = "a string") -> str:
    if not isinstance(value, str):
        raise Reason(f"{name} is {type_name(value)}, wants {wants}")
    return value


def _ended(fields: Mapping[str, Any]) -> bool:
    ended = fields.get("ended", True)
    if not isinstance(ended, bool):
        raise Reason(f"ended is {type_name(ended)}, wants true or false")
    return ended and fields.get("finish_reason") != "length"
