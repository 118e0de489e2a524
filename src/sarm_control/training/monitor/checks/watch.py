"""Which checks fire now: a window of past steps, and the warnings that were told already."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.control import Penalty, metric_names, named_forms
from sarm_control.training.monitor.checks.dead_penalty import dead_penalty
from sarm_control.training.monitor.checks.discriminator_saturation import saturated
from sarm_control.training.monitor.checks.finding import Finding

WINDOW = 8
"""Steps that the checks of every step look back on; before there are so many they say nothing."""
_SATURATED = "human_kl/saturated"


class Seen(NamedTuple):
    """What a step's findings come to.

    Args:
        metrics: the numbers of all of them.
        begun: those that fire and did not at the time before.
    """

    metrics: dict[str, float]
    begun: tuple[Finding, ...]


class Watch:
    """Follows a run's metrics; its state is small and belongs into the checkpoint.

    Args:
        penalties: of the run, in any form.
    """

    def __init__(self, penalties: Sequence[Penalty]) -> None:
        self._penalties = tuple(penalties)
        self._window: list[dict[str, float]] = []
        self._active: set[str] = set()

    def step(self, metrics: Mapping[str, float]) -> list[Finding]:
        """Takes up one step's metrics and judges the window, once it is full."""
        of_penalties = [(f"{name}/rate", f"{name}/variance_share") for name in metric_names(self._penalties)]
        names = [_SATURATED, *(name for pair in of_penalties for name in pair)]
        kept = {name: float(metrics[name]) for name in names if name in metrics}
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
        """Remembers which findings fire; a check that stops firing may warn again later."""
        begun = tuple(one for one in findings if one.fires and one.name not in self._active)
        self._active -= {one.name for one in findings}
        self._active |= {one.name for one in findings if one.fires}
        return Seen({name: value for one in findings for name, value in one.metrics().items()}, begun)

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {"window": self._window, "active": sorted(self._active)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state` gave."""
        self._window = [dict(row) for row in state["window"]]
        self._active = set(state["active"])

    def _column(self, name: str) -> list[float]:
        return [row[name] for row in self._window if name in row]
