"""Scores for the rows of a data file: every answer in one pass, written back in the row's own place.

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
    """Each row's own fields followed by what scoring found.

    An answer gains `reward`, `edited_reward` (with edits), `contributions` (the `top` largest in
    magnitude, `[latent, z, w, w * z]`, before the edits), `truncated` (tokens cut from the left) and
    `ended`. A pair holds lists of such objects in `chosen_scores` and `rejected_scores`, a row of
    candidates in `candidate_scores`.

    Args:
        rows: rows with answers; or what `read_rows` takes, such as a list of dicts or a data frame.
        scored: their scores, from `score_rows`.
        edits: as checked by the caller; at most one for a latent.
        top: contributions to keep for each answer, at least 0.
    """
    found = _found(scored, edits, top)
    rows = rows_of(rows, want=WITH_ANSWERS)
    return [in_row(row, [next(found) for _ in row.answers], "scores") for row in rows]


def in_row(row: Row, found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The row's own fields followed by what was found for each of `row.answers`.

    One answer gains the fields themselves; a pair gains the lists `chosen_NAME` and `rejected_NAME`,
    a row of candidates `candidate_NAME`.
    """
    if row.kind == "answer":
        return row.raw | found[0]
    if row.kind == "candidates":
        return row.raw | {f"candidate_{name}": found}
    chosen = len(row.chosen)
    return row.raw | {f"chosen_{name}": found[:chosen], f"rejected_{name}": found[chosen:]}


def replaced_fields(rows: Sequence[Row], annotated: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the rows' own fields that the scores took the place of, with another value."""
    names = {
        name: None
        for row, new in zip(rows, annotated, strict=True)
        for name, value in row.raw.items()
        if new[name] != value
    }
    return list(names)


def count_long_prompts(rm: "RewardModel", rows: Sequence[Row], scored: Scored) -> int:
    """How many answers have a prompt that alone fills the context, so that nothing of them fits whole."""
    limit = rm.template.max_length
    prompts = [row.prompt for row in rows for _ in row.answers]
    cut = [prompts[j] for j in scored.truncated.nonzero()[0]]
    return 0 if limit is None else sum(len(rm.template.encode_prompt(prompt)) >= limit for prompt in cut)


def _found(scored: Scored, edits: Sequence[Edit], top: int) -> Iterator[dict[str, Any]]:
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
