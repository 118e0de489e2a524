"""What the table of latents shows: one number per latent and column, for all latents at once.

Shapes: `N` answers, `L` latents, `M` tested latents.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.data import Row
from sarm_control.discovery import Feature
from sarm_control.latents import ScoredRows, roles
from sarm_control.reward_model import Scored

Column = NDArray[np.float32]

NOT_TESTED = "not tested"
TABLE = (
    *("effect", "low", "high", "effect_sd", "share_of_margin", "p", "q", "q_confirm", "auroc"),
    *("selection_effect", "effect_equal_length", "equal_length_low", "equal_length_high"),
)
"""Columns of a discovery's table that the pages show."""


class KindColumn(NamedTuple):
    """What a discovery calls each latent: `codes` [L] uint8 into `names`."""

    names: tuple[str, ...]
    codes: NDArray[np.uint8]

    def of(self, latent: int) -> str:
        """The kind of one latent."""
        return str(self.names[int(self.codes[latent])])


def answer_roles(rows: Sequence[Row]) -> NDArray[np.str_]:
    """[N] the role of every answer in its row: response, chosen, rejected or candidate."""
    return np.array([role for row in rows for role in roles(row)], dtype=np.str_)


def activity_columns(data: ScoredRows) -> dict[str, Column]:
    """How often each latent is active and how much its contribution varies, [L] each.

    `rate`: share of answers with the latent active. `rate_chosen`, `rate_rejected`: the same of one side;
    left out where there are no pairs. `mean`: mean contribution over all answers, reward units. `spread`: SD
    (n) of the contribution over all answers, reward units, the square root of its variance. `top`: the
    largest z of any answer in which it is active, 0 where there is none.
    """
    latents, head = data.scored.latents, data.scored.head.astype(np.float64)
    count = max(len(latents), 1)
    who = answer_roles(data.rows)[latents.row_ids()]
    products = latents.values.astype(np.float64) * head[latents.indices]
    mean = _per_latent(latents.indices, products, latents.size) / count
    squares = _per_latent(latents.indices, products**2, latents.size) / count
    top = np.full(latents.size, -np.inf)
    # unbuffered: a latent stands there once for each answer that it fires in
    np.maximum.at(top, latents.indices, latents.values)
    columns = {
        "rate": _per_latent(latents.indices, None, latents.size) / count,
        "mean": mean,
        "spread": np.sqrt(np.maximum(squares - mean**2, 0.0)),
        "top": np.where(np.isfinite(top), top, 0.0),
    }
    sides = answer_roles(data.rows)
    for side in ("chosen", "rejected"):
        answers = int((sides == side).sum())
        if answers:
            of_side = latents.indices[who == side]
            columns[f"rate_{side}"] = _per_latent(of_side, None, latents.size) / answers
    return {name: column.astype(np.float32) for name, column in columns.items()}


def effect_columns(table: Mapping[str, NDArray[Any]], size: int) -> dict[str, Column]:
    """Columns of a discovery's table spread over all L latents, NaN where a latent was not tested.

    Args:
        table: `latent` [M], and any of `TABLE`, [M] each.
        size: L.
    """
    columns = {}
    for name in TABLE:
        if name in table:
            column = np.full(size, np.nan, dtype=np.float32)
            column[table["latent"]] = table[name]
            columns[name] = column
    return columns


def kind_column(table: Mapping[str, NDArray[Any]], size: int) -> KindColumn:
    """The kind of all L latents; see `effect_columns`."""
    tested = [str(kind) for kind in table["kind"]] if "kind" in table else []
    names = (NOT_TESTED, *sorted(set(tested) - {NOT_TESTED}))
    codes = np.zeros(size, dtype=np.uint8)
    if tested:
        codes[table["latent"]] = [names.index(kind) for kind in tested]
    return KindColumn(names, codes)


def table_of_features(features: Sequence[Feature]) -> dict[str, NDArray[Any]]:
    """The called latents of a features file as a table, where the whole table is not at hand."""
    # properties are attributes of the class, and fields without a default are not
    numbers = [name for name in TABLE if hasattr(Feature, name) or name in Feature.__dataclass_fields__]
    table: dict[str, NDArray[Any]] = {
        name: np.array([_number(getattr(one, name)) for one in features]) for name in numbers
    }
    latents = np.array([one.latent for one in features], dtype=np.int64)
    return {"latent": latents, "kind": np.array([one.kind for one in features], dtype=np.str_), **table}


def reward_summary(scored: Scored, rows: Sequence[Row]) -> dict[str, Any]:
    """Counts, and mean and SD of the rewards; the accuracy on rows that have chosen and rejected answers."""
    if not len(scored):
        return {"answers": 0, "prompts": 0, "rows": 0, "mean": None, "sd": None, "accuracy": None}
    rewards = scored.rewards.astype(np.float64)
    right, start = [], 0
    for row in rows:
        own = rewards[start : start + len(row.answers)]
        start += len(row.answers)
        if row.chosen and row.rejected:
            gap = own[: len(row.chosen)].mean() - own[len(row.chosen) :].mean()
            right.append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
    return {
        "answers": len(scored),
        "rows": len(rows),
        "prompts": len({row.prompt_key for row in rows}),
        "mean": float(rewards.mean()),
        "sd": float(rewards.std(ddof=1)) if len(rewards) > 1 else None,
        "accuracy": float(np.mean(right)) if right else None,
    }


def encoded(column: NDArray[Any]) -> str:
    """A column as base64 of its little-endian bytes: float32 or uint8, exact and a third of JSON's size."""
    return base64.b64encode(column.astype(column.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _per_latent(
    indices: NDArray[np.int32], weights: NDArray[np.float64] | None, size: int
) -> NDArray[np.float64]:
    return np.bincount(indices, weights=weights, minlength=size).astype(np.float64)
