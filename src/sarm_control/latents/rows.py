"""Rows of data with the scores of their answers, the input of everything that reads latents."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import WITH_ANSWERS, Reason, Row, RowCheck, Source, rows_of
from sarm_control.errors import DataError, ModelError
from sarm_control.reward_model import NonFiniteError, Scored, check_embeddings

if TYPE_CHECKING:
    from sarm_control.conversation import ChatTemplate
    from sarm_control.reward_model import RewardModel

Role = Literal["response", "chosen", "rejected", "candidate"]


class ScoredRows(NamedTuple):
    """Rows and the scores of their answers: `Row.answers` in order, row by row."""

    rows: Sequence[Row]
    scored: Scored


def roles(row: Row) -> list[Role]:
    """The role of each of `row.answers` in its row."""
    counts: list[tuple[Role, int]] = [
        ("response", int(row.response is not None)),
        ("chosen", len(row.chosen)),
        ("rejected", len(row.rejected)),
        ("candidate", len(row.candidates)),
    ]
    return [role for role, count in counts for _ in range(count)]


def template_check(template: "ChatTemplate") -> RowCheck:
    """For `read_rows`: a row is bad when the chat template refuses its prompt or one of its answers.

    Args:
        template: of the model that will score the rows; see also `read_template`, which loads no weights.
    """

    def check(row: Row) -> None:
        try:
            template.check(row.prompt, row.answers)
        except ModelError as error:
            raise Reason(str(error), error.hint) from error

    return check


def check_tokens(rows: Sequence[Row], template: "ChatTemplate", known: int) -> None:
    """Refuses answers with tokens that have no embedding, as scoring would, with no model loaded.

    Args:
        rows: rows with answers.
        template: of the model that will score them.
        known: tokens that have an embedding, see `check_checkpoint`.

    Raises:
        ModelError: naming the answer, from 0, and the token.
    """
    # almost every tokenizer fits its model, and then nothing has to be made tokens of twice
    if max(template.tokenizer.get_vocab().values(), default=0) < known:
        return
    rendered = [
        template.render(row.prompt, answer, ended=row.ended) for row in rows for answer in row.answers
    ]
    check_embeddings(template.encode_rendered(rendered), known)


def score_rows(
    rm: "RewardModel",
    rows: Sequence[Row] | Source,
    *,
    batch_tokens: int | None = None,
    keep_states: bool = False,
    progress: ProgressFactory = no_progress,
) -> Scored:
    """Scores every answer (`Row.answers`) of every row, in order.

    Args:
        rm: the reward model.
        rows: rows with answers; or what `read_rows` takes, such as a list of dicts or a data frame.
        batch_tokens: see `RewardModel.score`.
        keep_states: see `RewardModel.score`.
        progress: see `RewardModel.score`.

    Raises:
        DataError: `file:line: reason` for a conversation that the chat template refuses, or a reward that is
            not a finite number; see also `read_rows`.
    """
    rows = rows_of(rows, want=WITH_ANSWERS)
    ended = [row.ended for row in rows for _ in row.answers]
    # one flat list for all rows: batches are made across them, by length
    prompts = [row.prompt for row in rows for _ in row.answers]
    answers = [answer for row in rows for answer in row.answers]
    try:
        scored = rm.score(
            prompts,
            answers,
            ended=ended,
            batch_tokens=batch_tokens,
            keep_states=keep_states,
            progress=progress,
        )
    except NonFiniteError as error:
        raise _in_file(error, rows) from error
    # the model's error names no row; rows are encoded one by one only now, to find the one that is to blame
    except ModelError as error:
        _blame_row(rm, rows)
        raise error
    return scored


def _in_file(error: NonFiniteError, rows: Sequence[Row]) -> DataError:
    """The error with the file and line of the first answer whose reward is not finite."""
    owners = [row for row in rows for _ in row.answers]
    return DataError(
        f"{owners[int(error.rows[0])].where}: the reward of an answer is not a finite number "
        f"({len(error.rows)} of {len(owners)} answers): {error.cause}",
        hint=error.hint,
    )


def _blame_row(rm: "RewardModel", rows: Sequence[Row]) -> None:
    """Raises for the first row whose conversation cannot be encoded; returns when all can be."""
    for row in rows:
        for answer in row.answers:
            try:
                rm.template.encode(row.prompt, answer)
            except ModelError as error:
                raise DataError(f"{row.where}: {error}", hint=error.hint) from error
