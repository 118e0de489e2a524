"""The tables of docs/results/audit.md, from the figures of scripts/real_audit.py.

python scripts/real_audit_tables.py [benchmarks/results/audit_real.json]
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "audit_real.json"
FIRST = "first wording (a)"
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
        clean = _rest(zero, draws)
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


def wordings_text(found: Mapping[str, Any], first: Mapping[str, Any] | None) -> str:
    """Markdown: what audits with six wordings say, beside those with one.

    Args:
        found: figures of part d.
        first: figures of part a; None where there are none.
    """
    plants = list(next(iter(found["audits"].values())))
    lines = [
        "| plant | favoured | audit | price, SD (10 to 90 % of draws) | headline | of the kind "
        "| of one wording | true | differ |",
        "| --- " * 9 + "|",
    ]
    for name in plants:
        for place in range(len(found["audits"][next(iter(found["audits"]))][name]["shares"])):
            lines += _of_share(found, first, name, place)
    lines += ["", "| plant | audit | monotone | headline at 10 % | clean at 0 % |", "| --- " * 5 + "|"]
    for name in plants:
        ways = {way: own[name] for way, own in found["audits"].items() if name in own}
        if first is not None:
            ways = {FIRST: first["plants"][name]} | ways
        for way, one in ways.items():
            counts = (one["monotone"], one["shares"][1]["headline"], _rest(one["shares"][0], one["draws"]))
            lines.append(_row(f"{name} | {way}", [_count(each, one["draws"]) for each in counts]))
    return "\n".join([*lines, "", *_paid(found, plants)])


def _of_share(found: Mapping[str, Any], first: Mapping[str, Any] | None, name: str, place: int) -> list[str]:
    lines = []
    if first is not None:
        plant, price = first["plants"][name], found["first_wording"][name][place]
        one = plant["shares"][place]
        share = f"{name} | {100 * one['share']:.0f} %"
        said = [_with_range(price, "price", "median"), _count(one["headline"], plant["draws"])]
        lines.append(_row(f"{share} | {FIRST}", [*said, "-", "-", "-", "-"]))
    for way, own in found["audits"].items():
        if name not in own:
            continue
        one, draws = own[name]["shares"][place], own[name]["draws"]
        cells = [
            _with_range(one, "price", "median"),
            _count(one["headline"], draws),
            str(one["of_the_kind"]["count"]),
            str(one["of_one_wording"]["count"]),
            f"{one['true']} of {one['headline']['count']}",
            _count(one["differ"], draws),
        ]
        lines.append(_row(f"{name} | {100 * one['share']:.0f} % | {way}", cells))
    return lines


def _paid(found: Mapping[str, Any], plants: Sequence[str]) -> list[str]:
    """What the heads pay for each wording and for the kind; heads are those of the first way to audit."""
    way, own = next(iter(found["audits"].items()))
    shares = [(name, one) for name in plants for one in own[name]["shares"]]
    lines = [
        _row("what heads pay for", [f"{name}, {100 * one['share']:.0f} %" for name, one in shares]),
        "| --- " * (len(shares) + 1) + "|",
    ]
    for text in shares[0][1]["paid_each_median"]:
        lines.append(_row(f'"{text}"', [_number(one["paid_each_median"][text]) for _, one in shares]))
    lines.append(_row("all six", [_with_range(one, "paid", "median") for _, one in shares]))
    lines.append(_row("the plant", [_number(one["pays_median"]) for _, one in shares]))
    lines.append("")
    for way, own in found["audits"].items():
        for name in plants:
            for one in own[name]["shares"] if name in own else ():
                lines.append(_named(f"{way}, {name}, {100 * one['share']:.0f} %", one))
    return lines


def _named(label: str, one: Mapping[str, Any]) -> str:
    enough = one["headline_of_paid_enough"]
    of = "none" if enough is None else f"{enough['count']} {_interval(*enough['interval'])}"
    named, others = (
        ", ".join(f"{text} {count}" for text, count in one[key].items()) or "none"
        for key in ("named", "other_headlines")
    )
    return (
        f"- {label}: {one['sets']:.0f} sets; the head pays for the kind in {one['paid_enough']['count']} "
        f"draws, headline in {of} of them; wordings named: {named}; other headlines: {others}."
    )


def mend_text(found: Mapping[str, Any]) -> str:
    """Markdown: one line for each reward model and way."""
    lines = [
        "| reward model | way, strength | " + " | ".join(GUARDS) + " |",
        "| --- " * (len(GUARDS) + 2) + "|",
    ]
    for name, one in found["reward_models"].items():
        for way in one.get("ways", ()):
            cells = [_guard(way["guards"].get(guard)) for guard in GUARDS]
            # files from before there were two sets of edits name none
            chosen = " (the mend)" if way["name"] == one.get("chosen") else ""
            lines.append(f"| {name} | {way['name']}, {way['strength']:g}{chosen} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_left(found), *_slopes(found), *_explained(found)])


def _explained(found: Mapping[str, Any]) -> list[str]:
    """Markdown: what dictionaries of classifiers explain; SARMs have none to explain with."""
    if "explained" not in found:
        return []
    lines = ["", "| classifier | state | reward | margin |", "| --- " * 4 + "|"]
    for name, one in found["explained"].items():
        lines.append(_row(name, [f"{one[of]:.3f}" for of in ("state", "reward", "margin")]))
    return lines


def _left(found: Mapping[str, Any]) -> list[str]:
    """Markdown: what the edits of the audit are worth before a mend, and after each way of it."""
    return _before_and_after(found, "left", "edit")


def _slopes(found: Mapping[str, Any]) -> list[str]:
    """Markdown: how rewards go with the attributes over answers as they are, before and after each way."""
    # files from before slopes were measured have none
    table = _before_and_after(found, "slopes", "attribute")
    return ["", *table] if len(table) > 2 else []


def _before_and_after(found: Mapping[str, Any], key: str, of: str) -> list[str]:
    ways = list(dict.fromkeys(way["name"] for one in _mended(found) for way in one["ways"]))
    lines = [f"| reward model | {of} | before, SD | {' | '.join(ways)} |", "| --- " * (len(ways) + 3) + "|"]
    for name, one in found["reward_models"].items():
        measured: dict[str, list[Any]] = {way["name"]: way.get(key) or [] for way in one.get("ways", ())}
        # a way that no strength was allowed for has none
        for place, first in enumerate(next((rows for rows in measured.values() if rows), [])):
            after = [f"{measured[way][place]['after']:+.2f}" if measured[way] else "-" for way in ways]
            lines.append(f"| {name} | {first[of]} | {first['before']:+.2f} | {' | '.join(after)} |")
    return lines


def _mended(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in found["reward_models"].values() if "ways" in one]


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


def _rest(share: Mapping[str, Any], draws: int) -> dict[str, Any]:
    """Draws without the headline."""
    said = share["headline"]
    return {"count": draws - said["count"], "interval": [1 - end for end in reversed(said["interval"])]}


def _row(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def _guard(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    change = one["change"]
    ends = "" if change["low"] is None else f" [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]"
    return f"{one['before']:.3f} {100 * change['mean']:+.1f}{ends}"


def _with_range(one: Mapping[str, Any], key: str, middle: str = "mean") -> str:
    ends = one[f"{key}_10_90"]
    return "-" if ends is None else f"{one[f'{key}_{middle}']:+.2f} ({ends[0]:+.2f} to {ends[1]:+.2f})"


def _count(one: Mapping[str, Any], of: int) -> str:
    return f"{one['count']} of {of} {_interval(*one['interval'])}"


def _interval(low: float, high: float) -> str:
    return f"[{100 * low:.0f} %, {100 * high:.0f} %]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def main() -> None:
    """Prints the tables of the parts that have figures."""
    found = json.loads((Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES).read_text(encoding="utf-8"))
    for name, text in (
        ("planted", planted_text),
        ("mend", mend_text),
        ("even", mend_text),
        ("rule", mend_text),
        ("attached", mend_text),
        ("beside", beside_text),
    ):
        if name in found:
            print(f"== {name}\n{text(found[name])}\n")
    if "wordings" in found:
        print(f"== wordings\n{wordings_text(found['wordings'], found.get('planted'))}\n")


if __name__ == "__main__":
    main()
