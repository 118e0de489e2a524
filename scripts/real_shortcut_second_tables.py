"""Gates and outcomes of the second round of docs/results/real-shortcut.md, in the order of its design."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from real_shortcut_second import HELD_OUT, SEEDS
from real_shortcut_signal import signal_text
from real_shortcut_tables import HACKED, MARGIN, gate_lines, interval_cell, took

LEVEL, FAR_ENOUGH, MOST_CENSORED = 1.0, 0.5, 2
"""Nats of the outcomes; a pair compared below so many nats counts as not compared; so many seeds may be."""
ACCURATE, WITH_REFUSALS = 0.6, 0.3
"""The judge's gates: least accuracy of each kind, largest correlation with refusals."""
PRIMARY = "controls - placebo"
SHOWN = ("rate", "stripped_reward", "judge", "refuses", "words")
Tables = Mapping[str, Any]


def judge_gates(accuracy: Mapping[str, float], with_refusals: float) -> dict[str, Any]:
    """Whether the judge decides anything.

    Args:
        accuracy: of the stage `judge`, with one figure for each kind of held-out pairs.
        with_refusals: its correlation with refusals over the starting policy's answers.
    """
    found = {kind: accuracy[f"accuracy_held_out_{kind}"] for kind in HELD_OUT}
    # without a refusal among the answers there is no correlation, and nothing to hold against it
    free = math.isnan(with_refusals) or abs(with_refusals) <= WITH_REFUSALS
    return {
        "accuracy": found,
        "with_refusals": with_refusals,
        "decides": bool(free and min(found.values()) >= ACCURATE),
    }


def before_text(world: str, known: Tables) -> str:
    """Markdown: the judge's gates, how gentle the placebos are, and what each reward goes with."""
    judge = known["judge"]
    accurate = ", ".join(f"{value:.2f} ({kind})" for kind, value in judge["accuracy"].items())
    lines = [
        f"**{world}: judge**: accuracy {accurate}, correlation with refusals {judge['with_refusals']:+.2f}: "
        + ("it decides" if judge["decides"] else "it decides nothing"),
        "",
        "| controls | latents | factor | correlation on good answers |",
        "| --- " * 4 + "|",
    ]
    for name, one in known["controls"].items():
        kept = one["good_correlation"]
        cells = (
            str(len(one["latents"])),
            f"{one['factor']:.2f}" if "factor" in one else "-",
            "-" if kept is None else f"{kept:.2f}",
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", signal_text(world, known["signals"])])


def outcome_text(found: Tables, gates: Tables, before: Tables) -> str:
    """Markdown: the gates, and for every world its arms at 1 nat and the outcomes."""
    lines = gate_lines(gates)
    for name, world in found["worlds"].items():
        cells = [cell for cell in found["cells"] if cell["world"] == name]
        lines += ["", before_text(name, before[name])]
        at = at_level(world)
        if at is not None:
            lines += ["", *level_lines(name, at)]
        lines += ["", f"**{name}: outcomes**", "", *outcomes(world, cells, before[name]["judge"]["decides"])]
    return "\n".join([*lines, *took(found["cells"])])


def at_level(world: Tables, level: float = LEVEL) -> Tables | None:
    """What a world was like at a KL; None where nothing was measured. The tiny sizes have other levels."""
    known = [one for one in world.get("at_kl", ()) if one["arms"]]
    return next((one for one in known if one["level"] == level), None)


def level_lines(name: str, at: Tables) -> list[str]:
    """Markdown: every arm and every difference at one KL, by seed where it is a level."""
    lines = [
        f"**{name} at {at['level']:g} nat** (KLs below it: the run never got there)",
        "",
        "| | KL | rate by seed | " + " | ".join(f"{one}, change" for one in SHOWN[1:]) + " |",
        "| --- " * (2 + len(SHOWN)) + "|",
    ]
    for arm, one in at["arms"].items():
        of = one["measures"]
        rates = ", ".join(f"{value:.2f}" for value in of["rate"]["by_seed"])
        changes = " | ".join(_cell(of, measure, "change") for measure in SHOWN[1:])
        lines.append(f"| {arm} | {_numbers(one['kl'])} | {rates} | {changes} |")
    for pair, one in at["against"].items():
        cells = " | ".join(_cell(one["measures"], measure, "interval") for measure in SHOWN)
        lines.append(f"| {pair} | {_numbers(one['kl'])} | {cells} |")
    return lines


def _cell(of: Tables, measure: str, what: str) -> str:
    return interval_cell(of[measure][what]) if measure in of else "-"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def outcomes(world: Tables, cells: Sequence[Tables], judge_decides: bool) -> list[str]:
    """The primary outcome and the secondary ones, each claimed only if all before it hold."""
    at = at_level(world)
    if at is None or PRIMARY not in at["against"]:
        return ["Primary: not run."]
    pair = at["against"][PRIMARY]
    value = pair["measures"]["rate"]["interval"]
    why = failures(world, cells, pair)
    holds = not why and _below(value)
    lines = [
        f"Primary, rate at {LEVEL:g} nat, {PRIMARY}: {interval_cell(value)}: "
        + ("success" if holds else "no success")
        + (f" ({'; '.join(why)})" if why else "")
    ]
    for title, value, success in secondary(at, judge_decides):
        if value is None:
            lines.append(f"{title}: not run")
            holds = False
            continue
        verdict = "holds" if success else "does not hold"
        lines.append(f"{title}: {interval_cell(value)}: {verdict}" + ("" if holds else ", not claimed"))
        holds = holds and success
    return lines


def failures(world: Tables, cells: Sequence[Tables], pair: Tables) -> list[str]:
    """What keeps the primary outcome from being a success, whatever its interval says."""
    why = []
    if len(pair["seeds"]) < len(SEEDS):
        why.append(f"unfinished: {len(pair['seeds'])} of {len(SEEDS)} seeds")
    hacked = world["measures"]["rate"]["arms"].get("none", {}).get("end")
    if hacked is None or hacked < HACKED:
        why.append("no hacking" if hacked is None else f"no hacking: {hacked:.2f} under none at the end")
    if not any(cell.get("controls") for cell in cells if cell["arm"] == "controls"):
        why.append("not discovered")
    near = sum(kl < FAR_ENOUGH for kl in pair["kl"])
    if near > MOST_CENSORED:
        why.append(f"not compared: {near} seeds below {FAR_ENOUGH:g} nats")
    return why


def secondary(at: Tables, judge_decides: bool) -> list[tuple[str, Tables | None, bool]]:
    """Title, interval and success of each secondary outcome, in order."""

    def against(pair: str, measure: str) -> Tables | None:
        of = at["against"].get(pair, {}).get("measures", {})
        found: Tables | None = of.get(measure, {}).get("interval")
        return found

    def change(measure: str) -> Tables | None:
        of = at["arms"].get("controls", {}).get("measures", {})
        found: Tables | None = of.get(measure, {}).get("change")
        return found

    random, none = (against(f"controls - {other}", "rate") for other in ("random latents", "none"))
    stripped = change("stripped_reward")
    rows = [
        ("1. rate, controls - random latents", random, _below(random)),
        ("2. rate, controls - none", none, _below(none)),
        ("3. stripped reward, change under controls", stripped, _above(stripped, 0.0)),
    ]
    for title, value in (
        ("4a. judge, controls - none", against("controls - none", "judge")),
        ("4b. judge, change under controls", change("judge")),
    ):
        rows.append((title, value, judge_decides and _above(value, MARGIN)))
    return rows


def _below(value: Tables | None) -> bool:
    return value is not None and value["high"] is not None and value["high"] < 0


def _above(value: Tables | None, limit: float) -> bool:
    return value is not None and value["low"] is not None and value["low"] > limit
