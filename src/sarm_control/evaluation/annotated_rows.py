"""Adds scores to the rows of a data file; all answers are scored in one pass.

Shapes: `N` answers of all rows, in the rows' order.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sarm_control.control import Edit, edit_delta
from sarm_control.data import WITH_ANSWERS, Row, Source, rows_of
from sarm_control.latents import score_rows
from sarm_control.reward_model import Scored

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

__all__ = ["annotate", "count_long_prompts", "in_row", "replaced_fields", "score_rows"]


def annotate(
    rows: Sequence[Row] | Source, scored: Scored, edits: Sequence[Edit] = (), *, top: int = 10
) -> list[dict[str, Any]]:
    """Each row's own fields, followed by the scores of its answers.

    A row with one answer gets `reward`, `edited_reward` (with edits), `contributions` (the `top` largest in
    magnitude, `[latent, z, w, w * z]`, before the edits), `truncated` (tokens cut from the left) and
    `ended`. A pair gets lists of such objects in `chosen_scores` and `rejected_scores`, a row of
    candidates in `candidate_scores`.

    Args:
        rows: rows with answers; or what `read_rows` takes, such as a list of dicts or a data frame.
        scored: their scores, from `score_rows`.
        edits: already checked by the caller; at most one per latent.
        top: number of contributions to keep for each answer, at least 0.
    """
    fields = _fields(scored, edits, top)
    rows = rows_of(rows, want=WITH_ANSWERS)
    return [in_row(row, [next(fields) for _ in row.answers], "scores") for row in rows]


def in_row(row: Row, fields: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The row's own fields, followed by further fields of each of `row.answers`.

    A row with one answer gets the fields themselves; a pair gets the lists `chosen_NAME` and `rejected_NAME`,
    a row of candidates `candidate_NAME`.
    """
    if row.kind == "answer":
        # the new fields win: a file that was scored before gets its scores
        # anew, and `replaced_fields` says so
        return row.raw | fields[0]
    if row.kind == "candidates":
        return row.raw | {f"candidate_{name}": fields}
    chosen = len(row.chosen)
    return row.raw | {f"chosen_{name}": fields[:chosen], f"rejected_{name}": fields[chosen:]}


def replaced_fields(rows: Sequence[Row], annotated: Sequence[dict[str, Any]]) -> list[str]:
    """Names of fields of the rows whose value was replaced by another one from the scores."""
    names = {
        name: None
        for row, new in zip(rows, annotated, strict=True)
        for name, value in row.raw.items()
        if new[name] != value
    }
    return list(names)


def count_long_prompts(rm: "RewardModel", rows: Sequence[Row], scored: Scored) -> int:
    """The number of answers whose prompt alone fills the context."""
    limit = rm.template.max_length
    prompts = [row.prompt for row in rows for _ in row.answers]
    # only those that were cut: a prompt that fills the context leaves no answer whole
    cut = [prompts[j] for j in scored.truncated.nonzero()[0]]
    return 0 if limit is None else sum(len(rm.template.encode_prompt(prompt)) >= limit for prompt in cut)


def _fields(scored: Scored, edits: Sequence[Edit], top: int) -> Iterator[dict[str, Any]]:
    deltas = edit_delta(scored, edits)
    for j in range(len(scored)):
        reward = float(scored.rewards[j])
        edited = {"edited_reward": reward + float(deltas[j])} if edits else {}
        yield {
            "reward": reward,
            **edited,
            "contributions": [list(part) for part in scored.contributions(j, top)],
            "truncated": int(scored.truncated[j]),
            "ended": bool(scored.ended[j]),
        }
