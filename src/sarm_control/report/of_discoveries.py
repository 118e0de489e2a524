"""What a discovery found: the latents that promote or harm a goal, with names and effects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sarm_control.charts import Row, Tone, forest, tone_of
from sarm_control.pages import (
    Block,
    Cell,
    Drawing,
    Facts,
    More,
    Number,
    Page,
    Prose,
    Section,
    Table,
    TableRow,
    Tile,
    interval_cell,
    number,
    text_cell,
)
from sarm_control.report.names import named
from sarm_control.statistics import counted, decimals, fixed

_SHOWN = 12
Names = Mapping[int, str]


def discovery_page(found: Mapping[str, Any], names: Names, *, command: str = "") -> Page:
    """The page of a discovery.

    Args:
        found: the content of `features.json`.
        names: latent -> words.
        command: how it was made.
    """
    harms, promotes = found["lists"]["harms"], found["lists"]["promotes"]
    accuracy = found["confirmation"]["pair_accuracy"]
    line = (
        f"{counted(len(harms), 'latent harms', 'latents harm')} the goal, {len(promotes)} promote it."
        if harms
        else "No latent harms the goal by these tests: a null result."
    )
    tiles = [
        _effect_tile("What harms most?", harms, names, "bad"),
        _effect_tile("What promotes most?", promotes, names, "good"),
        Tile(
            "Is the better answer paid more?",
            f"{100 * accuracy['mean']:.0f} %",
            _percent_ends(accuracy),
            f"of the pairs of {found['confirmation']['prompts']} confirmation prompts",
        ),
    ]
    return Page(
        f"Discovery: {found['goal']}",
        line,
        "bad" if harms else "unclear",
        [f"{found['counts']['tested']} latents were tested on prompts that did not confirm them."],
        tiles,
        _drawing(found, names, 600),
        [*_lists(found, names), _how(found, command)],
        f"Made from features.json of {found['model']}, head {found['head'][:12]}.",
    )


def discovery_section(path: Path, found: Mapping[str, Any], names: Names) -> Section:
    """The part of a report on one discovery."""
    lists = found["lists"]
    finding = (
        f"{counted(len(lists['harms']), 'latent harms', 'latents harm')}, {len(lists['promotes'])} promote "
        f"({found['goal']})."
    )
    drawing = _drawing(found, names, 720)
    tables: list[Block] = [block for section in _lists(found, names) for block in section.blocks]
    facts = Facts([("Folder", str(path)), *_settings(found)])
    blocks: list[Block] = [*([drawing] if drawing else []), More("Every called latent", tables), facts]
    return Section("found", "What was found before training", finding, blocks)


def _drawing(found: Mapping[str, Any], names: Names, width: int) -> Drawing | None:
    rows = []
    tones: dict[str, Tone] = {"harms": "bad", "promotes": "good"}
    for kind, tone in tones.items():
        rows += [
            Row(named(one["latent"], names), one["effect"], one["low"], one["high"], _tone(one, tone))
            # half of the rows for each, so that a long list of one kind does not crowd out the other
            for one in found["lists"][kind][: _SHOWN // 2]
        ]
    if not rows:
        return None
    figure = forest(
        rows,
        name="effects",
        title="What the largest latents add to the margin.",
        x_title="mean margin contribution (reward units, 95 %)",
    )
    prompts = found["confirmation"]["prompts"]
    caption = f"On {prompts} prompts that did not choose the latents. Left of 0: worse answers are paid more."
    return Drawing(figure, caption, width)


def _tone(one: Mapping[str, Any], tone: Tone) -> Tone:
    # the list says what it was called, the interval on prompts that did not call it whether that holds there
    return "unclear" if tone_of(one["low"], one["high"], more_is="good") == "unclear" else tone


def _effect_tile(question: str, listed: list[Mapping[str, Any]], names: Names, tone: Tone) -> Tile:
    if not listed:
        return Tile(
            question,
            "nothing",
            "no latent was called",
            "a null result, at the tests' rate of errors",
            "unclear",
        )
    # lists are in the order of their tests, and the largest effect need not be the surest
    one = max(listed, key=lambda item: abs(item["effect"]))
    ends = {"mean": one["effect"], "low": one["low"], "high": one["high"]}
    digits = decimals(ends)
    low, high = (fixed(ends[end], digits, sign=True) for end in ("low", "high"))
    interval = (
        f"95 % interval {low} to {high}" if one["low"] is not None else "too few prompts for an interval"
    )
    return Tile(
        question,
        fixed(one["effect"], digits, sign=True),
        interval,
        named(one["latent"], names),
        _tone(one, tone),
    )


def _lists(found: Mapping[str, Any], names: Names) -> list[Section]:
    sections = []
    for kind, title in (("harms", "Latents that harm"), ("promotes", "Latents that promote")):
        listed = found["lists"][kind]
        head = ("Latent", "Kind", "Effect", "In SDs", "Active, chosen", "Active, rejected", "q", "AUROC")
        rows = [TableRow(named(one["latent"], names), _cells(one)) for one in listed]
        caption = (
            f"{title}: effects in reward units, 95 % over {found['confirmation']['prompts']} confirming "
            f"prompts; q is corrected for {found['counts']['tested']} latents."
        )
        blocks: list[Block] = [Table(caption, head, rows)] if rows else [Prose(["None: a null result."])]
        # an empty list keeps its part: that nothing was found is a result
        sections.append(Section(kind, title, f"{len(listed)} of {found['counts']['tested']} tested.", blocks))
    return sections


def _cells(one: Mapping[str, Any]) -> list[Cell]:
    ends = {"mean": one["effect"], "low": one["low"], "high": one["high"]}
    return [
        text_cell(one["kind"]),
        interval_cell(ends, sign=True),
        Cell(number(one["effect_sd"], 3, sign=True)),
        Cell(number(one["rate_chosen"], 1, scale=100), unit=" %"),
        Cell(number(one["rate_rejected"], 1, scale=100), unit=" %"),
        Cell(Number(one["q"], f"{one['q']:.2g}")),
        Cell(number(one["auroc"], 2)),
    ]


def _settings(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Goal", str(found["goal"])),
        ("Reward model", f"{found['model']}, head {found['head'][:12]}"),
        (
            "Prompts",
            f"{found['selection']['prompts']} that select, {found['confirmation']['prompts']} that confirm",
        ),
        ("False discovery rate", f"{found['alpha']:g}"),
        ("Seed", str(found["seed"])),
    ]


def _how(found: Mapping[str, Any], command: str) -> Section:
    pairs = _settings(found) + [(f"Hash of {name}", str(value)[:16]) for name, value in found["data"].items()]
    pairs += [("Command", command)] if command else []
    return Section("made", "How this was made", "Data, tests and settings.", [Facts(pairs)])


def _percent_ends(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None:
        return "too few prompts for an interval"
    return f"95 % interval {100 * interval['low']:.0f} to {100 * interval['high']:.0f} %"
