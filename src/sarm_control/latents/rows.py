"""Rows of data and the scores of their answers, which everything that reads latents works on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.conversation.rows import Row
from sarm_control.errors import DataError, ModelError
from sarm_control.sarm.scored import Scored

if TYPE_CHECKING:
    from sarm_control.sarm import RewardModel

Role = Literal["response", "chosen", "rejected", "candidate"]


class ScoredRows(NamedTuple):
    """Rows and the scores of their answers: `Row.answers` in order, row by row."""

    rows: Sequence[Row]
    scored: Scored


def roles(row: Row) -> list[Role]:
    """What each of `row.answers` is in its row."""
    counts: list[tuple[Role, int]] = [
        ("response", int(row.response is not None)),
        ("chosen", len(row.chosen)),
        ("rejected", len(row.rejected)),
        ("candidate", len(row.candidates)),
    ]
    return [role for role, count in counts for _ in range(count)]


def score_rows(
    rm: "RewardModel",
    rows: Sequence[Row],
    *,
    batch_tokens: int | None = None,
    keep_states: bool = False,
    progress: ProgressFactory = no_progress,
) -> Scored:
    """Scores every answer (`Row.answers`) of every row, in order.

    Args:
        rm: the reward model.
        rows: rows with answers.
        batch_tokens: see `RewardModel.score`.
        keep_states: see `RewardModel.score`.
        progress: see `RewardModel.score`.

    Raises:
        DataError: `file:line: reason` for a conversation the chat template refuses, or a reward that is
            no number.
    """
    ended = [row.ended for row in rows for _ in row.answers]
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
    except ModelError as error:
        _blame_row(rm, rows)
        raise error
    _check_finite(rm, rows, scored)
    return scored


def _check_finite(rm: "RewardModel", rows: Sequence[Row], scored: Scored) -> None:
    """Refuses NaN and infinite rewards: comparisons with them are false, which looks like a figure."""
    lost = ~np.isfinite(scored.rewards)
    if lost.any():
        owners = [row for row in rows for _ in row.answers]
        dtype = str(next(rm.trunk.parameters()).dtype).removeprefix("torch.")
        raise DataError(
            f"{owners[int(lost.argmax())].where}: the reward of an answer is not a finite number "
            f"({int(lost.sum())} of {len(lost)} answers, {dtype} trunk)",
            hint="a half-precision trunk may have overflowed: try --dtype float32; else look at the weights",
        )


def _blame_row(rm: "RewardModel", rows: Sequence[Row]) -> None:
    """Raises for the first row whose conversation cannot be encoded; returns when all can be."""
    for row in rows:
        for answer in row.answers:
            try:
                rm.template.encode(row.prompt, answer)
            except ModelError as error:
                raise DataError(f"{row.where}: {error}", hint=error.hint) from error
