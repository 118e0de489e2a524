"""The ledger as rows: latents with intervals, then the effects of the controls and of the KL."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.comparison.measures import KL, REWARD, TOTAL, MeasureChange
from sarm_control.control import Ledger
from sarm_control.files import atomic_file
from sarm_control.statistics import Interval, mean_interval, mean_intervals

WITH_INTERVALS = 200

Row = dict[str, Any]


def latent_rows(ledger: Ledger, *, controlled: Sequence[int]) -> list[Row]:
    """One row per latent, largest magnitude first; the first 200 carry a 95 % interval.

    Args:
        ledger: the entries.
        controlled: latents that a control acts on; their rows are marked.
    """
    # the rows are sorted by magnitude; the 65,536th of them needs no interval
    top = min(WITH_INTERVALS, len(ledger.latents))
    low, high = np.full(len(ledger.latents), np.nan), np.full(len(ledger.latents), np.nan)
    if top:
        ends = mean_intervals(ledger.prompt_deltas[:, :top])
        low[:top], high[:top] = ends.low, ends.high
    marked = np.isin(ledger.latents, list(controlled))
    return [
        {
            "kind": "latent",
            "label": f"latent {ledger.latents[i]}",
            "latent": int(ledger.latents[i]),
            "controlled": bool(marked[i]),
            "weight": float(ledger.weights[i]),
            "base_mean": float(ledger.base_mean[i]),
            "trained_mean": float(ledger.trained_mean[i]),
            "base_rate": float(ledger.base_rate[i]),
            "trained_rate": float(ledger.trained_rate[i]),
            "delta": float(ledger.delta[i]),
            "low": _or_none(low[i]),
            "high": _or_none(high[i]),
        }
        for i in range(len(ledger.latents))
    ]


def residual_row(changes: NDArray[np.float64]) -> Row:
    """The row of the part of the reward that no latent holds, for a reward model with a head of its own.

    Args:
        changes: [P] each prompt's change of the residual, reward units.
    """
    return _row("residual", "Residual: what no latent holds", mean_interval(changes))


def control_rows(compared: Sequence[MeasureChange], *, kl_price: float) -> list[Row]:
    """Rows for the edits, each penalty, the human-KL term and the KL, in reward units.

    Args:
        compared: the measures of one arm.
        kl_price: reward units that the training objective subtracts per nat of KL.
    """
    rows = [
        _row(_kind(item.measure.key), item.measure.label, item.change)
        for item in compared
        if item.measure.unit == "reward" and item.change and item.measure.key not in (REWARD, TOTAL)
    ]
    kl = next((item.trained for item in compared if item.measure.key == KL), None)
    if kl is not None:
        # a cost: the sign turns, and with it the ends of the interval
        penalty = Interval(-kl_price * kl.mean, -kl_price * kl.high, -kl_price * kl.low, kl.n)
        rows.append(_row("kl", "KL to the base policy, at its weight in the objective", penalty))
    return rows


def ledger_json(
    latents: Sequence[Row],
    controls: Sequence[Row],
    compared: Sequence[MeasureChange],
    *,
    outside: Row | None = None,
    top: int = 40,
) -> dict[str, Any]:
    """The ledger of one arm for `report.json`: the top latents, the rest as one sum, the totals.

    Args:
        latents: see `latent_rows`.
        controls: see `control_rows`.
        compared: the measures of the arm.
        outside: see `residual_row`; None for a SARM.
        top: latents shown one by one.
    """
    change = {item.measure.key: item.change.mean for item in compared if item.change}
    # the sum of the rest keeps the ledger's parts equal to its total
    shown, rest = latents[:top], latents[top:]
    total = sum(row["delta"] for row in latents)
    return {
        "latents": len(latents),
        "entries": list(shown),
        "rest": {"count": len(rest), "delta": sum(row["delta"] for row in rest)},
        "latent_sum": total,
        "model_change": change[REWARD],
        # what the sums of float32 rewards leave over: 0 but for rounding, which shows that nothing is
        # missing
        "residual": total + (0.0 if outside is None else outside["delta"]) - change[REWARD],
        **({} if outside is None else {"outside": outside}),
        "controls": list(controls),
        "total_change": change.get(TOTAL, change[REWARD]),
    }


def write_ledger(path: Path, arms: Mapping[str, Sequence[Row]]) -> None:
    """Writes every row of every arm as Parquet, zstd-compressed, one table with an `arm` column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    # said openly: in a ledger of controls alone columns of latents are empty, and would have no type
    schema = pa.schema(
        [("arm", text), ("kind", text), ("label", text), ("latent", pa.int64()), ("controlled", pa.bool_())]
        + [(name, number) for name in ("weight", "base_mean", "trained_mean", "base_rate", "trained_rate")]
        + [(name, number) for name in ("delta", "low", "high")]
    )
    rows = [{"arm": arm, **row} for arm, table in arms.items() for row in table]
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")


def _row(kind: str, label: str, interval: Interval) -> Row:
    value = interval.as_json()
    return {"kind": kind, "label": label, "delta": value["mean"], "low": value["low"], "high": value["high"]}


def _kind(key: str) -> str:
    return "penalty" if key.startswith("reward/penalty/") else key.removeprefix("reward/")


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
