"""The finding of a monitor: a number, whether it is a warning, and one sentence of advice."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Watched
from sarm_control.training.config.check_names import Check

Floats = NDArray[np.floating[Any]]

ALPHA, STRICT = 0.01, 2.58
"""Standard errors a change must have to count: one in a hundred by chance, two-sided."""


@dataclass(frozen=True)
class Finding:
    """The result of one monitor at one step.

    Args:
        check: its name, as `--stop-on` takes it.
        value: the number that is compared with the monitor's limit.
        fires: whether something is wrong.
        text: what is wrong and what to do, one sentence; reported when it fires.
        latent: the latent, or the residual, it is about; None for a monitor of the whole reward.
        form: of the penalty it is about, where the latent has two.
        further: numbers beside the value, by short names.
    """

    check: Check
    value: float
    fires: bool
    text: str
    latent: Watched | None = None
    form: str | None = None
    further: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`monitor/<check>`, `monitor/<check>/<latent>` or `monitor/<check>/<latent>/<form>`."""
        about = (part for part in (self.latent, self.form) if part is not None)
        return "/".join(["monitor", self.check, *map(str, about)])

    def of_form(self, form: str | None) -> "Finding":
        """The finding for the penalty of that form; None, for a latent's only penalty, changes nothing."""
        if form is None:
            return self
        return replace(self, form=form, text=f"{self.text} (this is about its {form} penalty)")

    def metrics(self) -> dict[str, float]:
        """The value under the finding's name, and the further numbers below that name."""
        return {self.name: self.value, **{f"{self.name}/{key}": value for key, value in self.further.items()}}


def share_grew(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> bool:
    """Whether a share is larger afterwards by more than chance, from N and M answers."""
    first, last = float(before.mean()), float(after.mean())
    # the two-sample test of proportions with the pooled share, and one more answer of either kind, so that a
    # share of 0 has an error above 0
    pooled = (before.sum() + after.sum() + 1.0) / (len(before) + len(after) + 2.0)
    error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / len(before) + 1.0 / len(after)))
    return last - first >= STRICT * error


def strictness(tests: int) -> float:
    """`STRICT` for one of several tests of the same kind: all together err as rarely as one (Bonferroni)."""
    return max(STRICT, NormalDist().inv_cdf(1.0 - ALPHA / 2.0 / tests))


def surely_above(values: Floats, limit: float, *, tests: int = 1) -> bool:
    """Whether the mean of [N] numbers is at least `limit`, and above 0 by more than chance.

    Args:
        values: [N].
        limit: of the mean.
        tests: how many such tests are made at once.
    """
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return mean >= limit and mean >= strictness(tests) * error
