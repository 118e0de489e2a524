"""The ledger of a run, which splits the change of the mean reward since the untrained policy into its parts.

There is one entry for each latent, one for the residual of a reward model with a head of its own, and one for
each further part of the reward (edits, every penalty, the
human-KL term, the penalty on answers that did not end, shaping). Both policies' answers are rewarded under
the controls as they are now. So the change is due to the policy alone, and the entries sum to it.

Shapes: `N` answers of each policy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sarm_control.control import TOTAL, RewardBreakdown, latent_ledger
from sarm_control.errors import TrainingError
from sarm_control.files import atomic_file
from sarm_control.reward_model import CONSTANT, RESIDUAL

MODEL = "reward/model"
_PENALTY = "penalty/"


class Entry(NamedTuple):
    """One part of the change of the mean total; reward units.

    Args:
        term: `latent`, `residual`, `constant`, `edits`, `penalty`, `residual_penalty`, `human_kl`,
            `missing_end`, `shaping`, or `rounding`: the difference of the float32 rewards from the sum of
            their parts.
        latent: of a latent, or of a penalty on one.
        weight: head weight of a latent.
        rate_before: share of the untrained policy's answers in which the latent fires (z > 0).
        rate_after: the same for the policy as it is.
        before: mean of the part over the untrained policy's answers.
        after: mean over the policy's.
        change: `after - before`.
    """

    term: str
    latent: int | None
    weight: float | None
    rate_before: float | None
    rate_after: float | None
    before: float
    after: float
    change: float


def ledger_entries(before: RewardBreakdown, after: RewardBreakdown) -> list[Entry]:
    """Splits the change of the mean total; latents first, largest magnitude first.

    Args:
        before: [N] of the untrained policy's answers, with their latents.
        after: [N] of the policy's answers, rewarded under the same controls.

    Raises:
        ValueError: the latents are missing, or there are no answers.
    """
    latents = _latent_entries(before, after)
    outside = _outside(before, after)
    # without the model's reward, which the latents and the residual split up, and without the total
    names = [name for name in {**before.columns, **after.columns} if name not in (MODEL, TOTAL)]
    first = _mean(before, MODEL) - sum(entry.before for entry in (*latents, *outside))
    last = _mean(after, MODEL) - sum(entry.after for entry in (*latents, *outside))
    return [
        *latents,
        *outside,
        *(_part(*_term(name), _mean(before, name), _mean(after, name)) for name in names),
        _part("rounding", None, first, last),
    ]


def most_rewarded(entries: Sequence[Entry], top: int = 5) -> list[Entry]:
    """The latents whose entries rose most, the largest rise first."""
    rewarded = [entry for entry in entries if entry.term == "latent" and entry.change > 0]
    return sorted(rewarded, key=lambda entry: -entry.change)[:top]


def append_ledger(path: Path, step: int, entries: Sequence[Entry]) -> None:
    """Adds a step's entries to a Parquet file and drops those of later steps.

    The whole file is written anew, so a kill leaves the old file or the new one. Equal runs have equal bytes.

    Raises:
        OutputError: the disk is full; the old file stays.
        TrainingError: see `read_ledger`.
    """
    import pyarrow as pa

    columns: dict[str, Any] = {"step": [step] * len(entries)}
    columns |= {name: [getattr(entry, name) for entry in entries] for name in Entry._fields}
    new = pa.table(columns, schema=_schema())
    old = read_ledger(path, before=step)
    _write_table(path, new if old is None else pa.concat_tables([old, new]))


def cut_ledger(path: Path, step: int) -> None:
    """Drops the entries of steps after `step`, which a resumed run does again.

    Raises:
        TrainingError: see `read_ledger`.
    """
    kept = read_ledger(path, before=step + 1)
    if kept is None:
        return
    if len(kept):
        _write_table(path, kept)
    else:
        path.unlink()


def read_ledger(path: Path, *, before: int | None = None) -> Any:
    """The entries as a `pyarrow.Table`, those of steps below `before` if it is given; None without a file.

    Raises:
        TrainingError: the file is not a ledger.
    """
    if not path.is_file():
        return None
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, schema=_schema())
        return table if before is None else table.filter(pc.less(table["step"], before))
    except (OSError, pa.ArrowException) as error:
        raise TrainingError(
            f"{path} is not readable: it is cut short or no ledger",
            hint=f"put it back, or move it away (mv {path} {path}.bad): the ledger then begins anew",
        ) from error


def _write_table(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(table.combine_chunks(), temporary, compression="zstd")


def _schema() -> Any:
    import pyarrow as pa

    texts = [("step", pa.int64()), ("term", pa.string()), ("latent", pa.int64())]
    return pa.schema(texts + [(name, pa.float64()) for name in Entry._fields[2:]])


def _latent_entries(before: RewardBreakdown, after: RewardBreakdown) -> list[Entry]:
    if before.scored is None or after.scored is None:
        raise ValueError("a ledger needs the latents of both policies' answers")
    # every answer has the same weight, as if all were answers to one prompt
    prompts = [np.zeros(len(scored), dtype=np.int64) for scored in (before.scored, after.scored)]
    ledger = latent_ledger(before.scored.latents, after.scored.latents, after.scored.head, *prompts)
    columns = (
        ledger.latents,
        ledger.weights,
        ledger.base_rate,
        ledger.trained_rate,
        ledger.weights * ledger.base_mean,
        ledger.weights * ledger.trained_mean,
        ledger.delta,
    )
    return [Entry("latent", *row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _outside(before: RewardBreakdown, after: RewardBreakdown) -> list[Entry]:
    """What no latent holds, and the constant, which changes nothing: none of a SARM."""
    if before.scored is None or after.scored is None or after.scored.kind == "sarm":
        return []
    means = (float(one.residual.mean()) for one in (before.scored, after.scored))
    constant = after.scored.constant
    return [_part(RESIDUAL, None, *means), _part(CONSTANT, None, constant, constant)]


def _part(term: str, latent: int | None, before: float, after: float) -> Entry:
    return Entry(term, latent, None, None, None, before, after, after - before)


def _term(name: str) -> tuple[str, int | None]:
    term = name.removeprefix("reward/")
    if not term.startswith(_PENALTY):
        return term, None
    watched = term.removeprefix(_PENALTY)
    return ("residual_penalty", None) if watched == RESIDUAL else ("penalty", int(watched))


def _mean(rewards: RewardBreakdown, name: str) -> float:
    column = rewards.columns.get(name)
    return 0.0 if column is None else float(column.mean())
