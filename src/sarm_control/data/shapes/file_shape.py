"""The form of one file: found in its first rows, held against every row."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.data.lines import Reason
from sarm_control.data.messages import Prompt
from sarm_control.data.shapes.columns import renamed
from sarm_control.data.shapes.detection import PLAIN as PLAIN_SHAPE
from sarm_control.data.shapes.detection import Shape, aliased, is_plain, shape_of
from sarm_control.data.shapes.options import AUTOMATIC, RowOptions
from sarm_control.data.shapes.readers import Fields
from sarm_control.data.shapes.repeats import begins_with_prompt, tells

_KEPT = ("response", "answer", "candidates", "ended", "finish_reason")
_OUR_OWN = ("prompt", "question", "messages", "response", "answer", "chosen", "rejected", "candidates")
_BY_HAND = "take it off with --repeated-prompts strip, or leave answers as they are with keep"


_BY_CHANCE = 0.01
"""The share of rows whose answers may begin with their prompt without anybody having put it there."""


class Repeats(NamedTuple):
    """Of a whole file: rows with answers, and those of them whose answers all begin with the prompt."""

    answered: int
    repeating: int


def plain_fields(raw: Mapping[str, Any], want: Collection[str], options: RowOptions = AUTOMATIC) -> Fields:
    """The fields of the plain row that says what a row of any form says.

    Args:
        raw: the row's own fields.
        want: the kinds of row that can be used.
        options: the names its fields have.

    Raises:
        Reason: a row of a known form that lacks something, or of what could be several forms.
    """
    fields = _present(raw, options)
    return _read(shape_of(fields), fields, want)


def other_fields(raw: Mapping[str, Any], options: RowOptions = AUTOMATIC) -> dict[str, Any] | None:
    """What a row of a form of others holds beside that form; None for a plain row.

    Args:
        raw: the row's own fields.
        options: the names its fields have.

    Raises:
        Reason: it could be of several forms.
    """
    shape = shape_of(_present(raw, options))
    if shape is PLAIN_SHAPE:
        return None
    theirs = dict(options.columns)
    used = {theirs.get(name, name) for name in (*shape.uses, *_OUR_OWN)} | {own for own, _ in options.columns}
    return {name: value for name, value in raw.items() if name not in used}


class FileShape:
    """How the rows of one file are read, and what was seen of them.

    Args:
        head: the fields of its first rows.
        options: what the user said.
        count: counts the whole file; called once, and only where one row is not as the first ones are.
    """

    def __init__(
        self,
        head: Iterable[Mapping[str, Any]],
        options: RowOptions = AUTOMATIC,
        count: Callable[[], Repeats] = lambda: Repeats(0, 0),
    ) -> None:
        self.options = options
        self.strips = options.repeated == "strip"
        self._count = count
        self._counted: Repeats | None = None
        self._stripped = self._left = 0
        self._found = _most_common(head, options)

    @property
    def name(self) -> str:
        """What messages call the form."""
        return self._found.name

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to say: rows of our own form, under our own names, read as they are."""
        as_they_are = not self.options.columns and not self._stripped and not self._left
        return self._found is PLAIN_SHAPE and as_they_are

    def plain_fields(self, raw: Mapping[str, Any], want: Collection[str]) -> Fields:
        """As the function of this name.

        Raises:
            Reason: also for a row of another form than the file's.
        """
        fields = _present(raw, self.options)
        shape = shape_of(fields)
        # a row that is the beginning of none is a bad row of its own, and says so itself
        if shape is not self._found and not (shape is PLAIN_SHAPE and not is_plain(fields)):
            raise Reason(
                f"a row of {shape.name} in a file of {self._found.name}: a file has one form",
                "give each form a file of its own, or set such rows aside with --skip-bad-rows",
            )
        return _read(shape, fields, want)

    def decide(self, answered: Iterable[tuple[Prompt, Sequence[str]]]) -> None:
        """Whether answers repeat their prompt, by the first rows that have answers."""
        if self.options.repeated != "auto":
            return
        rows = list(answered)
        repeat = [begins_with_prompt(prompt, answers) for prompt, answers in rows]
        # all of the first rows, and one of them in a way that is no chance, as "yes" is in "yes it
        # is"
        self.strips = all(repeat) and any(tells(*row) for row in rows)

    def repeats(self, prompt: Prompt, answers: Sequence[str]) -> bool:
        """Whether the prompt has to be taken off the answers of a row.

        Raises:
            Reason: it is not as in the other rows, and nobody said what to do.
        """
        begin = begins_with_prompt(prompt, answers)
        if self.options.repeated == "auto":
            if self.strips and not begin:
                raise Reason(f"not every answer begins with the prompt; {self._counts()}", _BY_HAND)
            if begin and not self.strips and tells(prompt, answers):
                # refused and not guessed: taken off wrongly an answer loses its beginning, left on
                # it the reward is of another text
                if not self._is_chance():
                    raise Reason(f"the answers begin with the prompt; {self._counts()}", _BY_HAND)
                self._left += 1
        self._stripped += begin and self.strips
        return begin and self.strips

    def _all(self) -> Repeats:
        self._counted = self._counted or self._count()
        return self._counted

    def _counts(self) -> str:
        found = self._all()
        return f"of {found.answered} rows with answers {found.repeating} repeat it"

    def _is_chance(self) -> bool:
        found = self._all()
        return found.repeating <= _BY_CHANCE * found.answered

    def line(self, rows: int) -> str:
        """The form in one line: `UltraFeedback messages, 12 rows`."""
        parts = [self.name, _rows(rows)]
        if self.options.columns:
            parts.append(", ".join(f"{own} from {theirs}" for own, theirs in self.options.columns))
        if self._stripped:
            parts.append(f"the prompt taken off the answers of {_rows(self._stripped)} that repeat it")
        if self._left:
            parts.append(f"answers of {_rows(self._left)} that begin with their prompt left as they are")
        return ", ".join(parts)


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _present(raw: Mapping[str, Any], options: RowOptions) -> Fields:
    fields = renamed(raw, options.columns)
    return {name: value for name, value in fields.items() if value is not None}


def _read(shape: Shape, fields: Fields, want: Collection[str]) -> Fields:
    if shape is PLAIN_SHAPE:
        return fields
    read = shape.read(aliased(fields), want)
    return {name: fields[name] for name in _KEPT if name in fields} | read


def _most_common(head: Iterable[Mapping[str, Any]], options: RowOptions) -> Shape:
    counts: Counter[str] = Counter()
    shapes: dict[str, Shape] = {}
    for raw in head:
        fields = _present(raw, options)
        try:
            shape = shape_of(fields)
        except Reason:
            continue
        if shape is not PLAIN_SHAPE or is_plain(fields):
            counts[shape.name] += 1
            shapes[shape.name] = shape
    # by most and not by the first: a bad first row would give the whole file its form
    return shapes[counts.most_common(1)[0][0]] if counts else PLAIN_SHAPE
