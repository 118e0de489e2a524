"""Rows of a data file: prompts, answers, preference pairs, candidates.

A row is one record of a file of any form (see `data/files`), or of rows in memory (DESIGN.md, section 3):

    {"prompt", "response"}             kind "answer"       ("question", "answer" are aliases)
    {"prompt", "chosen", "rejected"}   kind "pair"         (each a string or a list of strings)
    {"prompt", "candidates"}           kind "candidates"   (a list of strings)
    {"prompt"}                         kind "prompt"
    {"messages"}                       kind "answer" when the last message is the assistant's, else "prompt"

The forms that others write (`data/shapes/`) are read as one of these. A prompt is a string or a list of
`{"role", "content"}` messages. A row of more than one kind is read as the first kind of this order that is
wanted: pair, candidates, answer, prompt. Other fields are kept in `Row.raw`. A field that is null counts as
absent.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from sarm_control.console import say
from sarm_control.data.files import AnyRecord, BadRecord, Columns, Source, read_records
from sarm_control.data.files.memory import is_in_memory, name_of, repeatable
from sarm_control.data.lines import START, Place, Reason, Unit, named_place, type_name
from sarm_control.data.messages import Prompt, prompt_key, prompt_text
from sarm_control.data.shapes import (
    AUTOMATIC,
    FileShape,
    Repeats,
    RowOptions,
    begins_with_prompt,
    nearest_form,
    plain_fields,
    tells,
    turns_of,
    without_prompt,
)
from sarm_control.errors import DataError
from sarm_control.files import check_writable, write_jsonl

Kind = Literal["answer", "pair", "candidates", "prompt"]

WITH_ANSWERS: frozenset[Kind] = frozenset({"answer", "pair", "candidates"})
"""The kinds of row that have answers."""

_HEAD = 50
"""Rows of a file by which its form is found."""

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
        read_as: what has to be known to read `raw` as this row again.
        unit: what `line` counts: lines of JSON Lines, rows of every other form.
        file: the name of its file, when `path` is a folder of files.
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
    read_as: RowOptions = AUTOMATIC
    unit: Unit = "line"
    file: str = ""

    @property
    def where(self) -> str:
        """The row's place, as messages name it: `data.jsonl:17`, `data.parquet: row 17`."""
        return named_place(self.path / self.file, self.line, self.unit)

    @property
    def answers(self) -> tuple[str, ...]:
        """Every answer of the row: the response, or chosen then rejected, or the candidates."""
        if self.response is not None:
            return (self.response,)
        return self.chosen + self.rejected + self.candidates

    @property
    def prompt_key(self) -> str:
        """One text per distinct prompt, the unit that statistics are clustered by.

        A single user message and the same text as a plain string have the same key; so have prompts that
        differ in case or white space alone.
        """
        return prompt_key(self.prompt)

    @property
    def prompt_text(self) -> str:
        """The prompt in one text, as it is written."""
        return prompt_text(self.prompt)


class BadRow(NamedTuple):
    """A line or row that cannot be used, and why."""

    line: int
    reason: str
    hint: str | None
    text: str
    unit: Unit = "line"
    file: str = ""


RowCheck = Callable[[Row], None]
"""Called with a row that was read; raises `Reason` when it cannot be used all the same."""


class PlacedRow(NamedTuple):
    """A row and where its line starts."""

    place: Place
    row: Row


def read_rows(
    path: Source,
    *,
    want: Collection[Kind],
    skip_bad_rows: Path | str | None = None,
    options: RowOptions = AUTOMATIC,
    say_form: bool = True,
    limit: int | None = None,
    check: RowCheck | None = None,
) -> list[Row]:
    """Reads the rows of a data file of any form, or takes rows that are in memory.

    Rows of a form that is not our own are read as ours, and one line on stderr says which form it is.

    Args:
        path: the data file; a name: `lab:audit` of the embedded world, `-` for standard input,
            `hf:owner/name/train` on the hub; or rows: a list of dicts, a pandas or polars frame, an Arrow
            table, a `datasets.Dataset`.
        want: the kinds of row the caller can use. `"prompt"` accepts every row, for its prompt.
        skip_bad_rows: a file that takes the rows that cannot be used, as `{"line", "reason", "text"}`
            (`"row"` instead of `"line"` in forms without lines); how many is said in one line on stderr.
            Without it the first bad row raises.
        options: the names of fields, and what to do about answers that repeat their prompt.
        say_form: false leaves the line about the form out, for who reads a file again.
        limit: the most rows that are read, bad ones included; None reads all.
        check: called with every row; those for which it raises `Reason` are bad rows, too.

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
        # before the reading: a file of millions of rows would else be read before it is
        # known that they cannot be set aside
        check_aside(named, aside)
    bad: list[BadRow] = []
    on_bad = None if aside is None else bad.append
    on_end = form_said(named) if say_form else None
    found = stream_rows(
        path, want=want, on_bad=on_bad, options=options, on_end=on_end, limit=limit, check=check
    )
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
    options: RowOptions = AUTOMATIC,
    on_end: Callable[[FileShape, int], None] | None = None,
    limit: int | None = None,
    check: RowCheck | None = None,
) -> Iterator[PlacedRow]:
    """The usable rows of a file from `start` on, read as they are asked for; there may be none.

    The form of the rows, and whether answers repeat their prompt, is decided by the first rows of the file
    wherever reading starts; every row is then held against it.

    Args:
        path: the data file, a name, or rows in memory; see `read_rows`.
        want: the kinds of row the caller can use, see `read_rows`.
        start: where a row starts, as an earlier reading gave it.
        on_bad: takes the rows that cannot be used; without it the first of them raises.
        options: see `read_rows`.
        on_end: after the last row, takes the form that was found and how many rows could be used.
        limit: the most rows that are read; None reads all.
        check: see `read_rows`.

    Raises:
        DataError: see `read_rows`.
    """
    named = name_of(path)
    source = _Records(repeatable(path), options.columns, limit)
    records = source.read(start)
    if start == START:
        head = list(islice(records, _HEAD))
        records = chain(head, records)
    else:
        # from the beginning, wherever reading goes on: a resumed reading must find
        # the form that the first one found
        head = list(islice(source.read(), _HEAD))
    form = _form(named, source, head, want, options)
    usable = 0
    for record in records:
        place = record.place
        try:
            if isinstance(record, BadRecord):
                raise record.reason
            row = _row_of(named, place, record.fields, want, form)
            if check is not None:
                check(row)
        except Reason as problem:
            if on_bad is None:
                raise DataError(f"{place.of(named)}: {problem}", hint=problem.hint) from None
            on_bad(BadRow(place.line, str(problem), problem.hint, record.text, place.unit, place.file))
        else:
            usable += 1
            yield PlacedRow(place, row)
    if on_end is not None:
        on_end(form, usable)


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


def form_said(path: Path) -> Callable[[FileShape, int], None]:
    """For `stream_rows`: says in one line on stderr what a file was read as, if not as plain rows."""

    def on_end(form: FileShape, usable: int) -> None:
        if usable and not form.is_plain:
            say(f"{path} read as: {form.line(usable)}")

    return on_end


def parse_row(
    raw: Mapping[str, Any],
    *,
    path: Path,
    line: int,
    want: Collection[Kind],
    options: RowOptions = AUTOMATIC,
    unit: Unit = "line",
) -> Row:
    """The row that one JSON object is, of any form.

    Args:
        raw: the object, of JSON values.
        path: the file it came from, for messages.
        line: its line there, from 1.
        want: the kinds of row the caller can use, see `read_rows`.
        options: see `read_rows`; one row alone does not say whether its answer repeats the prompt, so that
            it is taken off with `strip` only.
        unit: what `line` counts.

    Raises:
        DataError: `file:line: reason`.
    """
    try:
        fields = plain_fields(raw, want, options)
        row = _row(path, Place(line, 0, unit), dict(raw), fields, want, options)
    except Reason as problem:
        raise DataError(f"{named_place(path, line, unit)}: {problem}", hint=problem.hint) from None
    strip = options.repeated == "strip" and begins_with_prompt(row.prompt, row.answers)
    return _without_prompt(row) if strip else row


def count_empty_answers(rows: Sequence[Row]) -> int:
    """How many answers are the empty string: legal, and worth a warning."""
    return sum(answer == "" for row in rows for answer in row.answers)


def count_respelled(rows: Sequence[Row]) -> int:
    """How many rows have a prompt that another row has in other case or white space."""
    texts: dict[str, set[str]] = {}
    for row in rows:
        texts.setdefault(row.prompt_key, set()).add(row.prompt_text)
    return sum(len(texts[row.prompt_key]) > 1 for row in rows)


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
    """Writes the bad rows as `{"line" or "row", "reason", "text"}` and says how many they are.

    Those of a folder of files have `"file"` before.
    """
    write_jsonl(aside, [_aside(row) for row in bad])
    say(f"{path}: {len(bad)} of {len(bad) + usable} rows set aside in {aside}")


def _aside(row: BadRow) -> dict[str, Any]:
    file = {"file": row.file} if row.file else {}
    return {**file, row.unit: row.line, "reason": row.reason, "text": row.text}


def no_rows(path: Path, bad: Sequence[BadRow]) -> NoReturn:
    """Raises for a file without a usable row.

    Raises:
        DataError: always; it names the first bad row's reason.
    """
    if not bad:
        raise DataError(f"{path}: the file has no rows", hint='each line is one row: {"prompt": "..."}')
    first = bad[0]
    raise DataError(
        f"{path}: none of the {len(bad)} rows can be used; "
        f"{f'{first.file}, ' if first.file else ''}{first.unit} {first.line}: {first.reason}",
        hint=first.hint,
    )


class _Records(NamedTuple):
    """The records of a source that is read more than once.

    Args:
        source: see `read_records`.
        columns: the names its fields have, see `RowOptions`.
        limit: the most records that count.
    """

    source: Source
    columns: Columns
    limit: int | None

    def read(self, start: Place = START) -> Iterator[AnyRecord]:
        """The records from `start` on."""
        return read_records(self.source, start=start, limit=self.limit, columns=self.columns)


def _form(
    path: Path, source: _Records, head: Sequence[AnyRecord], want: Collection[Kind], options: RowOptions
) -> FileShape:
    """What the first rows of a file are."""
    objects = [record.fields for record in head if not isinstance(record, BadRecord)]
    # the whole file is counted only when a row makes it necessary, which is after `form` has its name
    form = FileShape(objects, options, lambda: _repeats(path, source, want, form))
    answered = []
    for raw in objects:
        # a bad row says nothing of how answers are written; it is reported when its turn comes
        with suppress(Reason):
            row = _row(path, START, raw, form.plain_fields(raw, want), want, options)
            if row.answers:
                answered.append((row.prompt, row.answers))
    form.decide(answered)
    return form


def _row_of(path: Path, place: Place, raw: dict[str, Any], want: Collection[Kind], form: FileShape) -> Row:
    """A row of a file of that form.

    Raises:
        Reason: it cannot be used, or is of another form.
    """
    row = _row(path, place, raw, form.plain_fields(raw, want), want, form.options)
    return _without_prompt(row) if row.answers and form.repeats(row.prompt, row.answers) else row


def _without_prompt(row: Row) -> Row:
    """The same row without the prompt that all its answers begin with."""

    def rest(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(without_prompt(row.prompt, text) for text in texts)

    return replace(
        row,
        response=None if row.response is None else without_prompt(row.prompt, row.response),
        chosen=rest(row.chosen),
        rejected=rest(row.rejected),
        candidates=rest(row.candidates),
        read_as=replace(row.read_as, repeated="strip"),
    )


def _repeats(path: Path, source: _Records, want: Collection[Kind], form: FileShape) -> Repeats:
    """How many rows of a whole file repeat their prompt; by chance only where it would be taken off."""
    answered = repeating = 0
    for record in source.read():
        if isinstance(record, BadRecord):
            continue
        with suppress(Reason):
            raw = record.fields
            row = _row(path, START, raw, form.plain_fields(raw, want), want, form.options)
            if row.answers:
                answered += 1
                telling = form.strips or tells(row.prompt, row.answers)
                repeating += telling and begins_with_prompt(row.prompt, row.answers)
    return Repeats(answered, repeating)


def _row(
    path: Path,
    place: Place,
    raw: dict[str, Any],
    plain: Mapping[str, Any],
    want: Collection[Kind],
    options: RowOptions,
) -> Row:
    """The row that the fields of a plain one are; `raw` are those it was written with."""
    # tables have every column in every row: null is how they say that a row lacks one
    fields = {name: value for name, value in plain.items() if value is not None}
    try:
        prompt, said = _prompt_and_answer(fields)
        kind = _kind(fields, said, want)
        if kind is None:
            _no_answer(raw, want)
    # only where something lacks: a form that is nearly known is then a better hint than a list of fields
    except _Lacking as problem:
        raise Reason(str(problem), problem.hint or nearest_form(raw, want, path, options)) from None
    row = Row(path, place.line, raw, kind, prompt, read_as=options, unit=place.unit, file=place.file)
    if kind == "answer":
        return replace(row, response=said, ended=_ended(fields))
    if kind == "pair":
        return replace(row, chosen=_texts(fields, "chosen"), rejected=_texts(fields, "rejected"))
    if kind == "candidates":
        return replace(row, candidates=_texts(fields, "candidates", one=False))
    return row


class _Lacking(Reason):
    """A row without a prompt, or without an answer that is wanted."""


def _kind(fields: Mapping[str, Any], said: str | None, want: Collection[Kind]) -> Kind | None:
    has: dict[Kind, bool] = {
        "pair": "chosen" in fields and "rejected" in fields,
        "candidates": "candidates" in fields,
        "answer": said is not None,
        # last, since every row has one: it is only taken where no answers were wanted
        "prompt": True,
    }
    return next((kind for kind, present in has.items() if present and kind in want), None)


def _no_answer(raw: Mapping[str, Any], want: Collection[Kind]) -> NoReturn:
    keys = ", ".join(f"{name} (null)" if value is None else name for name, value in raw.items())
    wanted = ", ".join(text for kind, text in _ANSWER_FIELDS.items() if kind in want)
    missing = [name for name in ("chosen", "rejected") if raw.get(name) is None]
    if "pair" in want and len(missing) == 1:
        raise _Lacking(f"no {missing[0]} field: has keys [{keys}]", f"wants one of: {wanted}")
    raise _Lacking(f"no answer field: has keys [{keys}], wants one of [{wanted}]")


def _prompt_and_answer(fields: Mapping[str, Any]) -> tuple[str | list[dict[str, str]], str | None]:
    own = next((name for name in ("prompt", "question") if name in fields), None)
    answer = next((name for name in ("response", "answer") if name in fields), None)
    said = None if answer is None else _text(fields[answer], answer)
    if "messages" not in fields:
        if own is None:
            raise _Lacking(f"no prompt field: has keys [{', '.join(fields)}], wants prompt or messages")
        return _prompt(fields[own], own), said
    if own is not None:
        # two prompts in one row may differ, and nobody could tell which of them was answered
        raise Reason(f"has both {own} and messages", "keep one of the two in each row")
    messages = _messages(fields["messages"], "messages")
    # beside other answers the assistant's last turn is none of them: `_unanswered` refuses the row
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
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns_of(value, name)]


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
    # servers of the OpenAI form write the second, and their rows have no field of our name
    return ended and fields.get("finish_reason") != "length"
