"""The charts of a comparison, from the numbers of `report.json`."""

from collections.abc import Mapping, Sequence
from typing import Any

from sarm_control.charts import (
    Figure,
    LinePoint,
    Place,
    Row,
    Step,
    Tone,
    forest,
    lines,
    plane,
    slug,
    tone_of,
    waterfall,
)
from sarm_control.comparison.first_screen import arm_titles, measure
from sarm_control.comparison.headline import arm_title
from sarm_control.comparison.measures import ENDED, GAP, GOLD, KL, LENGTH, REWARD
from sarm_control.comparison.report_tables import UNITS, difference_title, scaled
from sarm_control.statistics import MINUS, decimals, fixed

CURVES = (
    ("reward/model", "Reward, unedited", "reward units"),
    ("reward/total", "Reward as trained on", "reward units"),
    ("objective/kl", "KL to the base policy", "nats an answer"),
)
_CHANGE_UNITS = {
    "reward": "reward units",
    "gold": "gold reward",
    "SD": "SD",
    "share": "percentage points",
    "tokens": "tokens",
    "nats": "nats an answer",
}
_PANELS = 8
_TOP = 8
_WHOLE = (GOLD, REWARD, KL, LENGTH, ENDED)
_MEANING: Mapping[str, Tone] = {GOLD: "good", ENDED: "good", GAP: "bad"}

_DASH = "\u2013"

Names = Mapping[int, str]
"""Latent -> what it is about, in a few words."""


def latent_name(latent: int, names: Names) -> str:
    """`latent 15` or, where words for it are known, `15 - i love how you think`."""
    return f"{latent} {_DASH} {names[latent]}" if latent in names else f"latent {latent}"


def proxy_and_gold(report: Mapping[str, Any]) -> Figure:
    """Each policy's gain in reward and in gold; without gold, in KL and reward."""
    arms = report["arms"]
    places = [Place("base policy", 0.0, 0.0)]
    if measure(arms[0], GOLD) is None:
        places += [_place(arm, KL, REWARD, 1.0) for arm in arms]
        return plane(
            places,
            name="reward-and-kl",
            title="How far each policy went, and what it was paid for it.",
            x_title="KL to the base policy (nats an answer)",
            y_title="change of the unedited reward (reward units)",
        )
    # in SDs of the base policy's reward, where there is one
    sd = arms[0]["reward_sd"] or 1.0
    places += [_place(arm, REWARD, GOLD, sd) for arm in arms]
    return plane(
        places,
        name="proxy-and-gold",
        title="What the reward model believes, and what answers are worth.",
        x_title="change of the reward model's score (SDs of the base policy)",
        y_title="change of the gold reward (its own units)",
    )


def change_figures(report: Mapping[str, Any], names: Names) -> list[Figure]:
    """One chart a measure: each arm against the base, and arms against each other."""
    return [_change_figure(report, item, names) for item in _plotted(report)]


def ledger_figure(arm: Mapping[str, Any], names: Names) -> Figure:
    """The change of the mean reward of an arm as a sum: its largest latents, the rest, controls."""
    ledger, charged = arm["ledger"], penalised_latents([arm])
    steps = []
    for item in ledger["entries"][:_TOP]:
        tone: Tone = "plain"
        if item["latent"] in charged:
            tone = tone_of(item["low"], item["high"], more_is="bad")
        label = latent_name(item["latent"], names)
        steps.append(Step(label, item["delta"], tone, low=item["low"], high=item["high"]))
    # the report lists more entries than a chart can show, and sums up only those beyond: a bar for both
    # keeps the bars adding up
    others = ledger["entries"][_TOP:]
    count = ledger["rest"]["count"] + len(others)
    if count:
        rest = ledger["rest"]["delta"] + sum(item["delta"] for item in others)
        steps.append(Step(f"{count} other latents", rest))
    outside = ledger.get("outside")
    if outside is not None:
        steps.append(_part(outside))
    steps.append(Step("Unedited reward", ledger["model_change"], total=True))
    # without the KL term, which the objective subtracts and the reward does not hold
    controls = [item for item in ledger["controls"] if item["kind"] != "kl" and item["delta"]]
    if controls:
        steps += [_part(item) for item in controls]
        steps.append(Step("Reward as trained on", ledger["total_change"], total=True))
    return waterfall(
        steps,
        name=f"ledger-{slug(arm['name'])}",
        title=f"Where the change of the mean reward of {arm_title(arm)} comes from.",
        x_title="change of the mean reward (reward units)",
    )


def curve_figures(arms: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Reward and KL over training steps, one line an arm."""
    figures = []
    for key, label, unit in CURVES:
        points = [
            LinePoint(arm_title(arm), step, value)
            for arm in arms
            for step, value in zip(arm["curves"].get("step", ()), arm["curves"].get(key, ()), strict=False)
        ]
        if any(point.y is not None for point in points):
            figures.append(
                lines(
                    points,
                    name=f"curve-{slug(key)}",
                    title=f"{label}.",
                    x_title="training step",
                    y_title=unit,
                    smooth=True,
                )
            )
    return figures


def penalised_latents(arms: Sequence[Mapping[str, Any]]) -> set[int]:
    """Latents that a penalty of some arm charges."""
    keys = [row["key"] for arm in arms for row in arm["measures"]]
    parts = [key.rsplit("/", 1)[1] for key in keys if key.startswith("reward/penalty/")]
    return {int(part) for part in parts if part.isdigit()}


def _place(arm: Mapping[str, Any], x_key: str, y_key: str, sd: float) -> Place:
    ends = []
    for key, scale in ((x_key, 1.0 / sd), (y_key, 1.0)):
        row = measure(arm, key)
        assert row is not None
        ends.append(scaled(row["change"] or row["trained"], scale))
    x, y = ends
    tone = tone_of(y["low"], y["high"], more_is="good") if y_key == GOLD else "plain"
    return Place(
        arm_title(arm), x["mean"] or 0.0, y["mean"] or 0.0, x["low"], x["high"], y["low"], y["high"], tone
    )


def _plotted(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = [item for item in report["arms"][0]["measures"] if item["change"] or item["unit"] == "nats"]
    whole = [item for item in rows if item["key"] in _WHOLE]
    latents = [item for item in rows if item["key"].startswith(("latent/", "penalty/"))]
    charged = penalised_latents(report["arms"])
    # what happened to the answers comes first, then the latents that a penalty is to lower
    latents.sort(key=lambda item: int(item["key"].split("/")[1]) not in charged)
    return sorted(whole, key=lambda item: _WHOLE.index(item["key"])) + latents[: _PANELS - len(whole)]


def _change_figure(report: Mapping[str, Any], item: Mapping[str, Any], names: Names) -> Figure:
    key, scale = item["key"], UNITS[item["unit"]].scale
    more_is = _MEANING.get(key, "plain")
    label = item["label"]
    if key.startswith(("latent/", "penalty/")):
        latent = int(key.split("/")[1])
        if latent in penalised_latents(report["arms"]):
            more_is = "bad"
        label = label.replace(f"Latent {latent}", latent_name(latent, names).capitalize(), 1)
    rows, titles = [], arm_titles(report)
    for arm in report["arms"]:
        found = measure(arm, key)
        if found is not None:
            rows.append(
                # the KL has no base to change from, and is shown as it is
                _row(f"{arm_title(arm)} {MINUS} base", found["change"] or found["trained"], scale, more_is)
            )
    for pair in report["differences"]:
        found = next((row for row in pair["measures"] if row["key"] == key), None)
        if found is not None:
            name = difference_title(pair, titles)
            rows.append(_row(name, found["change"], scale, more_is))
    return forest(
        rows, name=f"change-{slug(key)}", title=f"{label}.", x_title=f"change ({_CHANGE_UNITS[item['unit']]})"
    )


def _row(label: str, interval: Mapping[str, Any], scale: float, more_is: Tone) -> Row:
    shown = scaled(interval, scale)
    tone = tone_of(shown["low"], shown["high"], more_is=more_is)
    words = fixed(shown["mean"], decimals(shown), sign=True)
    return Row(label, shown["mean"], shown["low"], shown["high"], tone, shown=words)


def _part(item: Mapping[str, Any]) -> Step:
    return Step(item["label"], item["delta"], low=item["low"], high=item["high"])
