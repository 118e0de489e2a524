"""What `sarm eval` found: a benchmark before and after edits, and what the edits do to rewards."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sarm_control.charts import Pair, Row, Tone, before_after, forest, tone_of
from sarm_control.pages import (
    Block,
    Cell,
    Code,
    Drawing,
    Facts,
    Page,
    Prose,
    Section,
    Table,
    TableRow,
    Tile,
    interval_cell,
    number,
)
from sarm_control.report.names import edits_in_words
from sarm_control.statistics import bracket, decimals, fixed

Found = Mapping[str, Any]
Names = Mapping[int, str]
_TOTAL = "total"
# results.json of earlier versions counts answers that were cut to what makes figures wrong
_CUT = "answers were cut from the left to fit the context"


def evaluation_page(found: Found, *, sections: bool = False, command: str = "") -> Page:
    """The page of an evaluation.

    Args:
        found: the content of `results.json`.
        sections: whether its chart and tables follow the first screen; a report has them among its parts.
        command: how it was made; told with the sections.
    """
    kind = f"{found['benchmark']}: {found['items']} items scored by {found['model']}"
    line, tone = _finding(found)
    total, tiles = _total(found), []
    # no number beside a failed self-check: whoever reads only the tiles would take it for a result
    if total is not None and not _is_broken(found):
        detail = f"{found['benchmark']}, n = {total['units']} items"
        tiles.append(_tile("How good is it?", _main(total), detail, "plain"))
        if total["edits"] is not None:
            change = total["edits"]["change"]
            tone = tone_of(change["low"], change["high"], more_is="good")
            # in words here, since the tile beside it has the numbers; `_finding` has them
            # for a report, where no tile is
            line = {
                "good": "The edits raise the total of the benchmark.",
                "bad": "The edits lower the total of the benchmark.",
            }.get(tone, "The edits show no clear change of the benchmark's total: a null result.")
            tiles.append(_tile("What do the edits change?", change, detail, tone, sign=True))
    parts = [evaluation_section(None, found, {})] if sections else []
    if sections and command:
        parts.append(Section("made", "How this was made", "The command.", [Code(command)]))
    return Page(kind, line, tone, _problems(found), tiles, None, parts)


def _tile(question: str, interval: Found, detail: str, tone: Tone, *, sign: bool = False) -> Tile:
    digits = min(3, decimals(interval))
    low, high = (fixed(interval[end], digits, sign=sign) for end in ("low", "high"))
    ends = "too few items for an interval" if interval["low"] is None else f"95 % interval {low} to {high}"
    return Tile(question, fixed(interval["mean"], digits, sign=sign), ends, detail, tone)


def evaluation_section(path: Path | None, found: Found, names: Names) -> Section:
    """The part of a report on one evaluation.

    Args:
        path: of its folder or file; None where it was not read from one.
        found: the content of `results.json`.
        names: latent -> words.
    """
    line, _ = _finding(found)
    edits = edits_in_words(found["edits"], names) or "none"
    facts = Facts(
        [
            ("Reward model", f"{found['model']}, head {str(found['head'])[:12]}"),
            ("Edits", edits),
            *([] if path is None else [("Read from", str(path))]),
        ]
    )
    drawing = _figure(found)
    blocks: list[Block] = [
        *([Prose(_problems(found))] if _problems(found) else []),
        facts,
        *([drawing] if drawing else []),
        _table(found),
        *_steering(found),
    ]
    return Section("benchmark", f"Benchmark: {found['benchmark']}", line, blocks)


def _problems(found: Found) -> list[str]:
    """What the self-check found wrong, then what a reader should know beside right figures."""
    check = found["self_check"]
    if check is None:
        return ["No self-check: latents were read, nothing was scored."]
    cut = [one for one in check["problems"] if one.endswith(_CUT)]
    return [
        *(f"The self-check of the scores found: {problem}." for problem in _wrong(check)),
        *(f"{remark}." for remark in (*check.get("remarks", ()), *cut)),
    ]


def _wrong(check: Found) -> list[str]:
    """What makes every figure wrong."""
    return [one for one in check["problems"] if not one.endswith(_CUT)]


def _main(one: Found) -> Found:
    """The main figure of a subset: the first."""
    # a benchmark names its own first: the order of `Benchmark.figures`
    figure: Found = next(iter(one["figures"].values()))
    return figure


def _total(found: Found) -> Found | None:
    total: Found | None = next((one for one in found["subsets"] if one["name"] == _TOTAL), None)
    return total


def _is_broken(found: Found) -> bool:
    return bool(found["self_check"] and _wrong(found["self_check"]))


def _finding(found: Found) -> tuple[str, Tone]:
    """The total, or every subset where there is none; and what it means."""
    total = _total(found)
    # before anything else: scores that depend on the batch or the padding side make every figure below wrong
    if _is_broken(found):
        return "The self-check failed: no figure can be trusted before it is put right.", "bad"
    if total is None:
        missing = ", ".join(found["missing"]) or "other subsets"
        parts = "; ".join(f"{one['name']} {_said(_main(one))}" for one in found["subsets"])
        return f"{parts}; no total, which needs {missing} too.", "plain"
    before = f"Total {_said(_main(total))} (n = {total['units']} items)"
    changed = total["edits"]
    if changed is None:
        return f"{before}.", "plain"
    change = changed["change"]
    tone = tone_of(change["low"], change["high"], more_is="good")
    null = ", no clear change: a null result" if tone == "unclear" else ""
    return f"{before}; the edits change it by {_said(change, sign=True)}{null}.", tone


def _said(interval: Found, *, sign: bool = False) -> str:
    digits = min(3, decimals(interval))
    ends = bracket(interval, digits, sign=sign) or "(too few items for an interval)"
    return f"{fixed(interval['mean'], digits, sign=sign)} {ends}"


def _figure(found: Found) -> Drawing | None:
    subsets = found["subsets"]
    if not subsets:
        return None
    name = "benchmark"
    x_title = f"{next(iter(subsets[0]['figures']))} (1 is best)"
    if not found["edits"]:
        rows = [_row(one) for one in subsets]
        # an axis from 0 would be empty up to the worst subset, and press the intervals together
        figure = forest(rows, name=name, title="Each subset.", x_title=f"{x_title}, 95 %", zero=False)
        caption = "Teal: better than chance. Vermilion: worse. Grey: not told apart, or chance is not known."
        return Drawing(figure, caption, 720, numbers=False)
    pairs = []
    for one in subsets:
        ends = (_main(one)["mean"], one["edits"]["after"]["mean"])
        change = one["edits"]["change"]
        tone = tone_of(change["low"], change["high"], more_is="good")
        pairs.append(Pair(one["name"], *ends, f"{fixed(ends[0], 2)} to {fixed(ends[1], 2)}", tone))
    figure = before_after(pairs, name=name, title="Each subset before and after the edits.", x_title=x_title)
    return Drawing(figure, "Hollow: before. Filled: with the edits.", 720, numbers=False)


def _row(one: Found) -> Row:
    main, chance = _main(one), one["chance"]
    tone: Tone = "unclear"
    # Ties of RewardBench 2 have no known chance
    if chance is not None and main["low"] is not None:
        tone = tone_of(main["low"] - chance, main["high"] - chance, more_is="good")
    return Row(one["name"], main["mean"], main["low"], main["high"], tone, shown=_shown(main))


def _shown(interval: Found) -> str:
    return f"{fixed(interval['mean'], 2)} {bracket(interval, 2)}".strip()


def _table(found: Found) -> Table:
    if found["edits"]:
        head = ("Subset", "n", "Before", "After", "Change", "Turned right", "Wrong", "q")
        rows = [TableRow(one["name"], _edited_cells(one), kind=_kind(one)) for one in found["subsets"]]
        caption = (
            "Figures with 95 % intervals over items; q is the exact McNemar test of the items that turned, "
            "corrected over the subsets. No interval: too few items differ."
        )
        return Table(caption, head, rows)
    figures = list(found["subsets"][0]["figures"]) if found["subsets"] else []
    head = ("Subset", "n", *(one.capitalize() for one in figures), "Chance", "Shortest", "Longest", "q")
    rows = [TableRow(one["name"], _plain_cells(one), kind=_kind(one)) for one in found["subsets"]]
    caption = (
        "Figures with 95 % intervals over items. Shortest, longest: always picking by length; q tests the "
        "model against the better of the two."
    )
    return Table(caption, head, rows)


def _kind(one: Found) -> str:
    return "total" if one["name"] == _TOTAL else ""


def _edited_cells(one: Found) -> list[Cell]:
    edits = one["edits"]
    change = edits["change"]
    tone = tone_of(change["low"], change["high"], more_is="good")
    return [
        Cell(number(one["units"], 0)),
        interval_cell(_main(one), 3),
        interval_cell(edits["after"], 3),
        interval_cell(change, 3, sign=True, tone="plain" if tone == "unclear" else tone),
        Cell(number(edits["gained"], 0)),
        Cell(number(edits["lost"], 0)),
        Cell(number(edits["q"], 2)),
    ]


def _plain_cells(one: Found) -> list[Cell]:
    baselines = one["length_baselines"] or {}
    return [
        Cell(number(one["units"], 0)),
        *(interval_cell(figure, 3) for figure in one["figures"].values()),
        Cell(number(one["chance"], 3)),
        *(Cell(number(baselines.get(key), 3)) for key in ("shortest", "longest")),
        Cell(number(baselines.get("q"), 2)),
    ]


def _steering(found: Found) -> Iterator[Block]:
    """Rewards of target and complement, selectivity, and the place among random latents."""
    steering = found["steering"]
    if steering is None:
        return
    rows = [TableRow(one["name"], _group_cells(one)) for one in steering["groups"]]
    caption = (
        f"What the edits do to rewards (SD {steering['reward_sd']:.4g} over all answers), 95 % intervals "
        "over prompts: the target is what they aim at, the complement everything else."
    )
    head = ("Answers of", "n", "Changed", "Before", "After", "Change", "In SDs")
    yield Table(caption, head, rows)
    yield Prose(list(_steering_said(steering)))


def _group_cells(one: Found) -> list[Cell]:
    # the change is far smaller than the rewards it is of: by their own widths, before and after
    # would be rounded to the same number
    digits = decimals(one["change"])
    return [
        Cell(number(one["answers"], 0)),
        Cell(number(one["changed"], 1, scale=100), unit=" %"),
        Cell(number(one["before"], digits)),
        Cell(number(one["after"], digits)),
        interval_cell(one["change"], digits, sign=True),
        Cell(number(one["change_sd"], 3, sign=True)),
    ]


def _steering_said(steering: Found) -> Iterator[str]:
    selectivity = steering["selectivity_interval"]
    if selectivity is None:
        yield "Selectivity was not measured: there is no complement, or it does not change at all."
    else:
        yield (
            f"Selectivity {_said(selectivity)}: the change of the target over that of the complement "
            f"(n = {selectivity['n']} prompts)."
        )
    if steering["unmatched"]:
        yield f"Not compared with random latents: {steering['unmatched']}."
    for what, one in steering["matched_sets"].items():
        yield (
            f"The change of the target's {what} lies at percentile {fixed(one['percentile'], 1)} among the "
            f"same edits on {one['sets']:,} sets of random latents matched on firing rate and weight."
        )
