"""The state of the monitors: a window of past steps, and the warnings that were reported already."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.control import Penalty, metric_names, named_forms
from sarm_control.training.monitor.checks.dead_penalty import dead_penalty
from sarm_control.training.monitor.checks.discriminator_saturation import saturated
from sarm_control.training.monitor.checks.finding import Finding

WINDOW = 8
"""Steps in the window of the monitors of every step; until it is full they report nothing."""
_SATURATED = "human_kl/saturated"


class Seen(NamedTuple):
    """The findings of a step, summarised.

    Args:
        metrics: the numbers of all findings.
        begun: the findings that fire now and did not fire the last time.
    """

    metrics: dict[str, float]
    begun: tuple[Finding, ...]


class Watch:
    """Follows a run's metrics; its state is small and belongs in the checkpoint.

    Args:
        penalties: of the run, in any form.
    """

    def __init__(self, penalties: Sequence[Penalty]) -> None:
        self._penalties = tuple(penalties)
        self._window: list[dict[str, float]] = []
        self._active: set[str] = set()

    def step(self, metrics: Mapping[str, float]) -> list[Finding]:
        """Adds one step's metrics to the window and judges it once it is full."""
        of_penalties = [(f"{name}/rate", f"{name}/variance_share") for name in metric_names(self._penalties)]
        names = [_SATURATED, *(name for pair in of_penalties for name in pair)]
        kept = {name: float(metrics[name]) for name in names if name in metrics}
        # only the metrics that monitors read are kept, since the window is in every checkpoint
        self._window = [*self._window, kept][-WINDOW:]
        if len(self._window) < WINDOW:
            return []
        found = []
        parts = zip(self._penalties, named_forms(self._penalties), of_penalties, strict=True)
        for penalty, form, pair in parts:
            rates, shares = map(self._column, pair)
            found += [dead_penalty(penalty, rates, shares).of_form(form)] if rates and shares else []
        flags = self._column(_SATURATED)
        return [*found, *([saturated(flags)] if flags else [])]

    def judge(self, findings: Sequence[Finding]) -> Seen:
        """Records which findings fire; a monitor that stops firing may warn again later."""
        begun = tuple(finding for finding in findings if finding.fires and finding.name not in self._active)
        # of these findings alone: monitors of evaluations are not looked at in every step
        self._active -= {finding.name for finding in findings}
        self._active |= {finding.name for finding in findings if finding.fires}
        return Seen({name: value for finding in findings for name, value in finding.metrics().items()}, begun)

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {"window": self._window, "active": sorted(self._active)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self._window = [dict(row) for row in state["window"]]
        self._active = set(state["active"])

    def _column(self, name: str) -> list[float]:
        return [row[name] for row in self._window if name in row]
