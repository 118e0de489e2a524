"""What a training run did to the attributes of its answers: its first samples against its last.

The samples of a run are a few answers of every step. Those of the first quarter of the steps stand for the
policy as it was, those of the last quarter for what it became. The change of each attribute is a difference
of means, its error clustered by prompt, because the same prompts come again; all bounds hold together with
probability .95.

A certificate (`certificates`) that was made before the run said which attributes would be still. It was about
best-of-N on answers of the policy before; a run may go further, and here is what it did.

Shapes: `N` samples, `A` attributes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.audit_json import finite
from sarm_control.auditing.certificates import ALPHA, LIMIT, Verdict, verdict_of
from sarm_control.auditing.table import AttributeTable, Floats
from sarm_control.data import Row
from sarm_control.errors import DataError

LEAST = 20
"""Samples that each end of a run must have."""
_END = 0.25


class RunMovement(NamedTuple):
    """How one attribute of a policy's answers moved in a run.

    Args:
        name: of the attribute.
        before: mean over the first samples: share of answers that have it, or of a size the size.
        after: the same over the last.
        change: after minus before; of a size its share of the mean before.
        low: lower simultaneous bound.
        high: upper one.
        verdict: see `certificates.Movement`.
        certified: what a certificate made before the run says of it; None where it says nothing.
        first: samples before.
        last: samples after.
    """

    name: str
    before: float
    after: float
    change: float
    low: float
    high: float
    verdict: Verdict
    certified: Verdict | None
    first: int
    last: int

    @property
    def broken(self) -> bool:
        """Whether it was certified as still and surely moved by more than that allows."""
        beyond = self.low > LIMIT or self.high < -LIMIT
        return self.certified == "still" and beyond

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; null where there is no number."""
        numbers = ("before", "after", "change", "low", "high")
        return {
            **self._asdict(),
            **{name: finite(getattr(self, name)) for name in numbers},
            "broken": self.broken,
        }


def steps_of(rows: Sequence[Row]) -> NDArray[np.int64]:
    """[N] the step of each sample.

    Raises:
        DataError: a row that says no step.
    """
    for row in rows:
        if not isinstance(row.raw.get("step"), int):
            raise DataError(
                f"{row.where}: no step, so no sample of a run", hint="give the folder of sarm train"
            )
    return np.array([row.raw["step"] for row in rows], dtype=np.int64)


def run_movements(
    table: AttributeTable, steps: NDArray[np.int64], *, certified: Mapping[str, Verdict] | None = None
) -> tuple[RunMovement, ...]:
    """The movement of every attribute from the first samples of a run to the last.

    Args:
        table: the attributes of the samples.
        steps: [N] the step of each.
        certified: what a certificate made before the run says of attributes.

    Raises:
        DataError: too few samples at one end.
    """
    distinct = np.unique(steps)
    each = max(1, int(len(distinct) * _END))
    first, last = np.isin(steps, distinct[:each]), np.isin(steps, distinct[-each:])
    few = min(first.sum(), last.sum())
    if len(distinct) < 2 or few < LEAST:
        raise DataError(
            f"{few} samples at one end of the run; {LEAST} are needed",
            hint="a longer run has more: a few answers of every step are kept",
        )
    kept = np.flatnonzero(first | last)
    late = last[kept].astype(np.float64)
    found = []
    for place, one in enumerate(table.attributes):
        size = one.unit == "doubling"
        # of a size `has` is "more than the median", which says nothing of how much longer answers
        # grew
        values = table.values[kept, place] if size else table.has[kept, place].astype(np.float64)
        before, after = float(values[late == 0].mean()), float(values[late == 1].mean())
        scale = max(before, 1e-12) if size else 1.0
        # Bonferroni: all intervals together fail as rarely as one
        alpha = ALPHA / len(table.attributes)
        low, high = _bounds(values / scale, late, table.prompt[kept], alpha, share=not size)
        verdict = verdict_of(low, high, LIMIT)
        known = None if certified is None else certified.get(one.name)
        found.append(
            RunMovement(
                one.name,
                *(before, after, (after - before) / scale, low, high, verdict, known),
                *(int((late == 0).sum()), int((late == 1).sum())),
            )
        )
    return tuple(found)


def _bounds(
    values: Floats, late: Floats, prompt: NDArray[np.int64], alpha: float, *, share: bool
) -> tuple[float, float]:
    """Both ends of an interval of `1 - alpha` for the difference of means."""
    sides = [values[late == end] for end in (0, 1)]
    if all(np.ptp(side) == 0 for side in sides):
        # without spread there is no error to estimate, and only shares have exact limits
        if not share:
            return -math.inf, math.inf
        # no answer differs: exact limits of each share, each at half of alpha
        (a_low, a_high), (b_low, b_high) = (_exact(side, alpha / 2) for side in sides)
        return b_low - a_high, b_high - a_low
    from scipy.stats import t

    # the difference of means is a sum of residuals over the samples; those of one prompt are added first, and
    # their spread is corrected as in a cluster-robust regression of two coefficients
    ends = np.where(late == 1, 1.0 / late.sum(), -1.0 / (1 - late).sum())
    means = np.where(late == 1, sides[1].mean(), sides[0].mean())
    _, place = np.unique(prompt, return_inverse=True)
    parts = np.bincount(place, weights=ends * (values - means))
    groups, count = len(parts), len(values)
    if groups < 2:
        return -math.inf, math.inf
    error = math.sqrt(float(parts @ parts) * groups / (groups - 1) * (count - 1) / (count - 2))
    # as many degrees as prompts less one: the prompts are what is independent, not the samples
    half = float(t.ppf(1 - alpha / 2, groups - 1)) * error
    change = float(sides[1].mean() - sides[0].mean())
    return change - half, change + half


def _exact(side: Floats, alpha: float) -> tuple[float, float]:
    """Limits of a share of which all or none have it (Clopper and Pearson)."""
    # the beta quantile of Clopper and Pearson has this closed form where all or none have it
    edge = float((alpha / 2) ** (1 / len(side)))
    return (edge, 1.0) if side[0] else (0.0, 1 - edge)
