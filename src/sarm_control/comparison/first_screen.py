"""The first screen of a comparison: did the control work, against what, and at what cost?

A change counts only when its interval excludes 0, as in the headline.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.charts import Tone, tone_of
from sarm_control.comparison.headline import (
    NO_CHANGE,
    TOO_FEW,
    arm_title,
    difference_between,
    role_of,
    verdict,
)
from sarm_control.comparison.measures import GOLD, KL, REWARD
from sarm_control.pages import Tile
from sarm_control.statistics import decimals, fixed
from sarm_control.training import CONTROLLED, NO_CONTROL, PLACEBO

Interval = Mapping[str, Any]


class Verdict(NamedTuple):
    """The first screen.

    Args:
        line: the verdict in one line.
        tone: what it means.
        lead: sentences below it.
        tiles: three numbers with intervals.
    """

    line: str
    tone: Tone
    lead: tuple[str, ...]
    tiles: tuple[Tile, ...]


class _Arms(NamedTuple):
    free: Mapping[str, Any] | None
    controlled: Mapping[str, Any] | None
    placebo: Mapping[str, Any] | None


def arm_titles(report: Mapping[str, Any]) -> dict[str, str]:
    """How readers see each arm of a comparison, by its name."""
    return {str(arm["name"]): arm_title(arm) for arm in report["arms"]}


def verdict_of(report: Mapping[str, Any]) -> Verdict:
    """The verdict of a comparison.

    A controlled run is judged against the run without control, else against the base policy, and against the
    placebo if there is one.

    Args:
        report: the contents of `report.json`.
    """
    arms = _roles(report["arms"])
    has_gold = any(row["key"] == GOLD for row in report["arms"][0]["measures"])
    if arms.controlled is None:
        return _of_training(report, has_gold)
    return (_of_control if has_gold else _without_gold)(report, arms)


def measure(arm: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """One measure of an arm; None if it has none of that key."""
    return next((row for row in arm["measures"] if row["key"] == key), None)


def _roles(arms: Sequence[Mapping[str, Any]]) -> _Arms:
    free, controlled, placebo = (
        next((arm for arm in arms if role_of(arm) == role), None)
        for role in (NO_CONTROL, CONTROLLED, PLACEBO)
    )
    # a placebo alone is judged as what it is: a run with controls
    return _Arms(free, controlled or placebo, None if controlled is None else placebo)


def _of_control(report: Mapping[str, Any], arms: _Arms) -> Verdict:
    arm, free, placebo = arms.controlled, arms.free, arms.placebo
    assert arm is not None
    gold = _change(report, free, arm, GOLD)
    against = "no control" if free else "the base policy"
    chance = None if placebo is None else _change(report, placebo, arm, GOLD)
    line, tone = _worked(verdict(gold), None if chance is None else verdict(chance), against)
    lead = [f"The run {arm['name']} was trained under {_count(len(arm['controls']), 'control')}."]
    if free is not None:
        own = _change(report, None, free, GOLD)
        word = {"rose": "rises", "fell": "falls"}.get(verdict(own), "shows no clear change")
        lead.append(f"Without control the gold reward {word} from the base policy: {_ends(own)}.")
    # the placebo is the harder test: any change of the reward may help a little, and it changes as
    # much without knowing what harms
    second = chance if chance is not None else _change(report, None, arm, GOLD)
    other = "the placebo" if chance is not None else "the base policy"
    return Verdict(
        line,
        tone,
        tuple(lead),
        (
            _tile("Did it work?", gold, f"gold reward, {arm['name']} against {against}", "good"),
            _tile("Against what?", second, f"gold reward, {arm['name']} against {other}", "good"),
            _cost(report, arm, free),
        ),
    )


def _without_gold(report: Mapping[str, Any], arms: _Arms) -> Verdict:
    """Without a gold reward nobody knows whether answers are better: only the latents can be judged."""
    arm, free = arms.controlled, arms.free
    assert arm is not None
    against = "no control" if free else "the base policy"
    rates = [_change(report, free, arm, key) for key in _penalised(arm)]
    fell = sum(verdict(rate) == "fell" for rate in rates)
    reward = _change(report, free, arm, REWARD)
    line = f"Whether answers are better is not known: no gold reward judged them (against {against})."
    if rates:
        line = f"{fell} of {len(rates)} penalised latents fire less than under {against}; no gold judged."
    kl = _change(report, free, arm, KL)
    tiles = (
        [_tile("Did it hold?", rates[0], f"{_penalised(arm)[0]}, against {against}", "bad", 100, " points")]
        if rates
        else []
    )
    return Verdict(
        line,
        "unclear",
        ("Give --gold, a benchmark or a judge to learn whether the control helped.",),
        (
            *tiles,
            _tile("What is paid?", reward, f"unedited reward, against {against}", "plain"),
            _tile("How far?", kl, f"KL to the base policy, against {against}", "plain", unit=" nats"),
        ),
    )


def _of_training(report: Mapping[str, Any], has_gold: bool) -> Verdict:
    """Runs without controls: what training against the reward model did."""
    arm = report["arms"][0]
    reward, kl = _change(report, None, arm, REWARD), _change(report, None, arm, KL)
    tiles = [
        _tile("What was learnt?", reward, "unedited reward, against the base policy", "plain"),
        _tile("How far?", kl, "KL to the base policy", "plain", unit=" nats"),
    ]
    if not has_gold:
        words = {"rose": "rose", "fell": "fell"}.get(verdict(reward), "shows no clear change")
        line = f"The reward {words}; whether answers are better is not known, since no gold judged them."
        return Verdict(line, "unclear", (), tuple(tiles))
    gold = _change(report, None, arm, GOLD)
    said = {
        ("rose", "fell"): ("The reward model was hacked: its reward rose while gold fell.", "bad"),
        ("rose", "rose"): ("Training helped: reward and gold both rose.", "good"),
        ("fell", "fell"): ("Reward and gold both fell.", "bad"),
    }
    line, tone = said.get((verdict(reward), verdict(gold)), ("Gold shows no clear change.", "unclear"))
    first = _tile("Did it work?", gold, "gold reward, against the base policy", "good")
    return Verdict(
        line, "good" if tone == "good" else "bad" if tone == "bad" else "unclear", (), (first, *tiles)
    )


def _worked(gold: str, chance: str | None, against: str) -> tuple[str, Tone]:
    """A control that any latents would be shows no knowledge."""
    if gold == "rose":
        if chance is None:
            return f"The control worked: gold ends higher than under {against}. No placebo was run.", "good"
        if chance == "rose":
            return f"The control worked: gold ends higher than under {against} and under the placebo.", "good"
        if chance == "fell":
            return f"Gold ends higher than under {against}, but lower than under the placebo.", "bad"
        return f"Gold ends higher than under {against}, but no clearer than under the placebo.", "unclear"
    if gold == "fell":
        return f"The control did harm: gold ends lower than under {against}.", "bad"
    if gold == TOO_FEW:
        return "Too few prompts differ to tell whether the control worked.", "unclear"
    return f"No clear effect: gold shows {NO_CHANGE} against {against}.", "unclear"


def _change(
    report: Mapping[str, Any], first: Mapping[str, Any] | None, second: Mapping[str, Any], key: str
) -> Interval:
    """The change of a measure from one arm (None: the base policy) to another."""
    if first is not None:
        # paired by prompt, which is tighter than the difference of two changes from the base
        between = difference_between(report["differences"], first["name"], second["name"])
        if key in between:
            return between[key]
    row = measure(second, key)
    # the KL has no base to change from: its value says how far the policy went
    found: Interval = (row["change"] or row["trained"]) if row else {"mean": None, "low": None, "high": None}
    return found


def _penalised(arm: Mapping[str, Any]) -> list[str]:
    """Keys of the firing rates that the arm's penalties are to lower."""
    keys = [row["key"] for row in arm["measures"]]
    latents = [key.rsplit("/", 1)[1] for key in keys if key.startswith("reward/penalty/")]
    wanted = [
        f"penalty/{one}/rate" if f"penalty/{one}/rate" in keys else f"latent/{one}/rate" for one in latents
    ]
    return [key for key in wanted if key in keys]


def _cost(report: Mapping[str, Any], arm: Mapping[str, Any], free: Mapping[str, Any] | None) -> Tile:
    if free is None:
        kl = _change(report, None, arm, KL)
        return _tile("At what cost?", kl, "KL to the base policy", "plain", unit=" nats")
    reward = _change(report, free, arm, REWARD)
    return _tile("At what cost?", reward, "the reward model's own score, against no control", "plain")


def _tile(
    question: str, change: Interval, detail: str, more_is: Tone, scale: float = 1, unit: str = ""
) -> Tile:
    shown = {end: None if change[end] is None else change[end] * scale for end in ("mean", "low", "high")}
    digits = decimals(shown)
    tone = "plain" if more_is == "plain" else tone_of(shown["low"], shown["high"], more_is=more_is)
    value = f"{fixed(shown['mean'], digits, sign=True)}{unit}"
    return Tile(question, value, _interval(shown, digits), detail, tone)


def _interval(shown: Interval, digits: int) -> str:
    if shown["low"] is None or shown["high"] is None:
        return TOO_FEW
    low, high = (fixed(shown[end], digits, sign=True) for end in ("low", "high"))
    return f"95 % interval {low} to {high}"


def _ends(change: Interval) -> str:
    digits = decimals(change)
    return f"{fixed(change['mean'], digits, sign=True)} ({_interval(change, digits)})"


def _count(count: int, one: str) -> str:
    return f"{count} {one}{'' if count == 1 else 's'}"
