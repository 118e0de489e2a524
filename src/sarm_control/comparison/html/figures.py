"""The charts of a comparison, from the numbers of `report.json`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.comparison.html.charts import Bar, Series, bar_chart, interval_plot, line_chart, window
from sarm_control.comparison.html.tables import UNITS, scaled
from sarm_control.comparison.measures import ENDED, GOLD, KL, LENGTH, REWARD
from sarm_control.statistics import decimals, fixed

if TYPE_CHECKING:
    from markupsafe import Markup

CURVES = (
    ("reward/model", "Reward, unedited", "reward"),
    ("reward/total", "Reward as trained on", "reward"),
    ("objective/kl", "KL to the base policy", "nats an answer"),
)
_CHANGE_UNITS = {
    "reward": "reward",
    "gold": "gold reward",
    "SD": "SD",
    "share": "points",
    "tokens": "tokens",
    "nats": "nats an answer",
}
_PANELS = 8
_WHOLE = (GOLD, REWARD, KL, LENGTH, ENDED)


class Panel(NamedTuple):
    """A small chart with its heading."""

    label: str
    chart: "Markup"


class Curves(NamedTuple):
    """Charts over training steps, and of how many steps their bold lines are means."""

    panels: list[Panel]
    window: int


def ledger_chart(ledger: Mapping[str, Any], *, name: str, top: int = 12) -> "Markup":
    """Bars of the latents that moved the mean reward most, controlled ones in bold."""
    entries = ledger["entries"][:top]
    digits = decimals(
        {"mean": max((abs(item["delta"]) for item in entries), default=0.0), "low": None, "high": None}
    )
    bars = [
        Bar(
            item["label"],
            item["delta"],
            item["low"],
            item["high"],
            fixed(item["delta"], digits, sign=True),
            item["controlled"],
        )
        for item in entries
    ]
    return bar_chart(
        bars,
        title=f"Contribution of latents to the reward change of {name}",
        x_label="change of mean reward (reward units), 95 % interval",
    )


def change_panels(report: Mapping[str, Any]) -> list[Panel]:
    """One small plot per measure: each arm against the base, and arms against each other."""
    panels = []
    for measure in _plotted(report):
        points = _points(report, measure)
        label = measure["label"]
        chart = interval_plot(points, title=f"{label}: differences", x_label=_CHANGE_UNITS[measure["unit"]])
        panels.append(Panel(label, chart))
    return panels


def training_curves(arms: Sequence[Mapping[str, Any]]) -> Curves:
    """Reward and KL over training steps, one line per arm."""
    panels = []
    for key, label, unit in CURVES:
        series = [
            Series(arm["name"], arm["curves"]["step"], arm["curves"][key])
            for arm in arms
            if key in arm["curves"]
        ]
        if any(value is not None for line in series for value in line.y):
            chart = line_chart(
                series, title=f"{label} over training steps", x_label="training step", y_label=unit
            )
            panels.append(Panel(label, chart))
    return Curves(panels, window(max(len(arm["curves"]["step"]) for arm in arms)))


def _plotted(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = [item for item in report["arms"][0]["measures"] if item["change"] or item["unit"] == "nats"]
    whole = [item for item in rows if item["key"] in _WHOLE]
    latents = [item for item in rows if item["key"].startswith(("latent/", "penalty/"))]
    # What happened to the answers comes before what happened to each of many latents.
    return sorted(whole, key=lambda item: _WHOLE.index(item["key"])) + latents[: _PANELS - len(whole)]


def _points(report: Mapping[str, Any], measure: Mapping[str, Any]) -> list[Bar]:
    named: list[tuple[str, Mapping[str, Any]]] = []
    for arm in report["arms"]:
        item = next((item for item in arm["measures"] if item["key"] == measure["key"]), None)
        if item:
            named.append((f"{arm['name']} \u2212 base", item["change"] or item["trained"]))
    for pair in report["differences"]:
        item = next((item for item in pair["measures"] if item["key"] == measure["key"]), None)
        if item:
            named.append((f"{pair['to']} \u2212 {pair['from']}", item["change"]))
    scale = UNITS[measure["unit"]].scale
    return [_point(label, scaled(interval, scale)) for label, interval in named]


def _point(label: str, interval: Mapping[str, Any]) -> Bar:
    mean = fixed(interval["mean"], decimals(interval), sign=True)
    return Bar(label, interval["mean"], interval["low"], interval["high"], mean)
