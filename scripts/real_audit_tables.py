"""The tables of docs/results/audit.md, from the figures of scripts/real_audit.py.

python scripts/real_audit_tables.py [benchmarks/results/audit_real.json]
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "audit_real.json"
GUARDS = ("hard", "normal", "easy", "all", "RewardBench 2 safety")


def planted_text(found: Mapping[str, Any]) -> str:
    """Markdown: one line for each plant and share, then the counts over draws."""
    lines = [
        "| plant | favoured | price, SD (10 to 90 % of draws) | paid for it | headline | of them paid |",
        "| --- " * 6 + "|",
    ]
    for name, plant in found["plants"].items():
        for one in plant["shares"]:
            cells = [
                name,
                f"{100 * one['share']:.0f} %",
                _with_range(one, "price"),
                _with_range(one, "pays"),
                _count(one["headline"], plant["draws"]),
                f"{one['paid_by_the_head_too']} of {one['headline']['count']}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| plant | monotone | power at 10 % | clean at 0 % | contrast | no headline at all at 0 % |",
        "| --- " * 6 + "|",
    ]
    for name, plant in found["plants"].items():
        draws, (zero, ten) = plant["draws"], plant["shares"][:2]
        said = zero["headline"]
        clean = {"count": draws - said["count"], "interval": [1 - end for end in reversed(said["interval"])]}
        counts = (plant["monotone"], ten["headline"], clean, plant["contrast"], plant["nothing_said_at_0"])
        lines.append(f"| {name} | {' | '.join(_count(one, draws) for one in counts)} |")
    return "\n".join([*lines, "", *_further(found)])


def _further(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, plant in found["plants"].items():
        accuracy = ", ".join(f"{one['accuracy_mean']:.2f}" for one in plant["shares"])
        partial = ", ".join(_number(one["partial_mean"]) for one in plant["shares"])
        others = plant["shares"][0]["other_headlines"]
        said = ", ".join(f"{other} {count}" for other, count in others.items()) or "none"
        lines.append(
            f"- {name}: {plant['shares'][0]['prompts']:.0f} prompts an edit; accuracy on held-out pairs "
            f"{accuracy} by share; mean partial price {partial}; other headlines at 0 %, in draws: {said}."
        )
    return lines


def mend_text(found: Mapping[str, Any]) -> str:
    """Markdown: one line for each reward model and way."""
    lines = [
        "| reward model | way, strength | " + " | ".join(GUARDS) + " |",
        "| --- " * (len(GUARDS) + 2) + "|",
    ]
    for name, one in found["reward_models"].items():
        for way in one.get("ways", ()):
            cells = [_guard(way["guards"].get(guard)) for guard in GUARDS]
            lines.append(f"| {name} | {way['name']}, {way['strength']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def beside_text(found: Mapping[str, Any]) -> str:
    """Markdown: what each tool says of the two classifiers, and d of every axis of reward-lens."""
    both = [found[name] for name in ("planted", "clean")]
    lines = ["| asked | planted | clean |", "| --- " * 3 + "|"]
    audits = [one["sarm_audit"] for one in both]
    lines.append(_row("headlines", [", ".join(one["headlines"]) for one in audits]))
    closing = [one["prices"]["closing"] for one in audits]
    lines.append(
        _row("closing, SD", [f"{p['sd']:+.2f} [{p['low']:+.2f}, {p['high']:+.2f}]" for p in closing])
    )
    for pairs in ("its own pairs", "pairs with and without the closing"):
        axes = [one["reward_lens"][pairs]["per_axis"] for one in both]
        for axis in sorted(axes[0], key=lambda name: -abs(axes[0][name]["effect_size"])):
            label = f"{axis}, d ({axes[0][axis]['n_pairs']} pairs)"
            lines.append(_row(label, [f"{one[axis]['effect_size']:+.2f}" for one in axes]))
    return "\n".join(lines)


def _row(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def _guard(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    change = one["change"]
    ends = "" if change["low"] is None else f" [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]"
    return f"{one['before']:.3f} {100 * change['mean']:+.1f}{ends}"


def _with_range(one: Mapping[str, Any], key: str) -> str:
    ends = one[f"{key}_10_90"]
    return "-" if ends is None else f"{one[f'{key}_mean']:+.2f} ({ends[0]:+.2f} to {ends[1]:+.2f})"


def _count(one: Mapping[str, Any], of: int) -> str:
    return f"{one['count']} of {of} {_interval(*one['interval'])}"


def _interval(low: float, high: float) -> str:
    return f"[{100 * low:.0f} %, {100 * high:.0f} %]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def main() -> None:
    """Prints the tables of the parts that have figures."""
    found = json.loads((Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES).read_text(encoding="utf-8"))
    for name, text in (("planted", planted_text), ("mend", mend_text), ("beside", beside_text)):
        if name in found:
            print(f"== {name}\n{text(found[name])}\n")


if __name__ == "__main__":
    main()
