"""The conversations that a SARM is built from, each once, and the preferences between them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sarm_control.build.head.comparisons import PreferenceRow
from sarm_control.data import AUTOMATIC, Kind, Prompt, Row, RowOptions, Source, read_rows
from sarm_control.errors import DataError

_WITH_ANSWERS: tuple[Kind, ...] = ("pair", "candidates", "answer")


@dataclass(frozen=True)
class Conversation:
    """One conversation: a prompt, an answer to it, and the number of the prompt."""

    prompt: Prompt
    response: str
    prompt_id: int


class ConversationCorpus:
    """Answers, numbered in the order of their first occurrence; equal prompts share a number."""

    def __init__(self) -> None:
        self.answers: list[Conversation] = []
        self._prompts: dict[str, int] = {}
        self._seen: dict[tuple[int, str], int] = {}

    @property
    def prompts_count(self) -> int:
        """How many different prompts there are."""
        return len(self._prompts)

    def add(self, row: Row) -> PreferenceRow:
        """Adds a row's answers; chosen and rejected are empty for rows without preferences."""
        # by key: the same prompt in another case must not stand on both sides of the held-out split
        prompt = self._prompts.setdefault(row.prompt_key, len(self._prompts))
        numbers = {text: self._number(row, prompt, text) for text in row.answers}
        chosen = tuple(numbers[text] for text in row.chosen)
        return PreferenceRow(prompt, chosen, tuple(numbers[text] for text in row.rejected))

    def shared_with(self, rows: Sequence[Row]) -> set[str]:
        """The prompts of `rows` that are in this corpus too."""
        return {row.prompt_key for row in rows} & set(self._prompts)

    def _number(self, row: Row, prompt: int, text: str) -> int:
        # one text to two prompts is two answers, whose states differ
        number = self._seen.setdefault((prompt, text), len(self.answers))
        if number == len(self.answers):
            self.answers.append(Conversation(row.prompt, text, prompt))
        return number


def read_texts(
    paths: Sequence[Source], options: RowOptions = AUTOMATIC, *, limit: int | None = None
) -> list[Row]:
    """Every row of the files that has an answer; rows with only a prompt are left out.

    Args:
        paths: files, or other things that `read_rows` takes, such as data frames.
        options: how rows are read, see `read_rows`.
        limit: the most rows of each file that are read.

    Raises:
        DataError: a bad row (`file:line: reason`), or no row with an answer.
    """
    # prompts without an answer are read and dropped, so that files of mixed rows can be given
    want: tuple[Kind, ...] = ("prompt", *_WITH_ANSWERS)
    rows = [row for path in paths for row in read_rows(path, want=want, options=options, limit=limit)]
    answered = [row for row in rows if row.answers]
    if paths and not answered:
        raise DataError(
            f"{rows[0].path}: no row has an answer, and states are read at the end of answers",
            hint="give rows with response, chosen and rejected, candidates, or messages",
        )
    return answered


def read_pairs(
    paths: Sequence[Source],
    *,
    annotator: str | None = None,
    options: RowOptions = AUTOMATIC,
    limit: int | None = None,
) -> list[Row]:
    """Every preference row of the files.

    Args:
        paths: files, or other things that `read_rows` takes, such as data frames.
        annotator: the field every row has to name its annotator in, if any.
        options: how rows are read, see `read_rows`.
        limit: the most rows of each file that are read.

    Raises:
        DataError: a row without chosen and rejected answers, or without its annotator.
    """
    rows = [row for path in paths for row in read_rows(path, want={"pair"}, options=options, limit=limit)]
    if annotator is not None:
        for row in rows:
            annotator_of(row, annotator)
    return rows


def annotator_of(row: Row, field: str) -> str:
    """The annotator of a row.

    Raises:
        DataError: the row's `field` is missing or not text.
    """
    name = row.raw.get(field)
    if isinstance(name, str) and name:
        return name
    if name is None:
        raise DataError(
            f"{row.where}: no {field} field: has keys [{', '.join(row.raw)}]",
            hint="with --annotator every row of --pairs names who labelled it",
        )
    raise DataError(
        f"{row.where}: {field} is {name!r}, not a name", hint=f'write names as strings: "{field}": "ann"'
    )
