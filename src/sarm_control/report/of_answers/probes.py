"""The page of `sarm probe`: what edits do to the rewards of given answers."""

import math
from collections.abc import Iterator

from sarm_control.charts import Bin, Row, Tone, forest, histogram, tone_of
from sarm_control.pages import (
    Answer,
    Block,
    Cell,
    Drawing,
    Page,
    Prose,
    Section,
    SideBySide,
    Table,
    TableRow,
    Tile,
    interval_cell,
    number,
)
from sarm_control.report.names import edits_in_words
from sarm_control.report.of_answers.words import POINTS, Found, made_section, scaled, tile
from sarm_control.statistics import counted, decimals, fixed

_HERO = 600


def probe_page(found: Found, *, command: str = "") -> Page:
    """The page of a probe.

    Args:
        found: what `sarm probe --json` writes.
        command: how it was made.
    """
    line, tone = _verdict(found)
    size = f"{counted(found['answers'], 'answer')} to {counted(found['prompts'], 'prompt')}"
    return Page(
        f"Probe of {counted(len(found['edits']), 'edit')} on {size}, scored by {found['model']}",
        line,
        tone,
        _lead(found),
        _tiles(found),
        _hero(found),
        [_rewards(found), *_pairs(found), *_examples(found), _made(found, command)],
        "Made from the summary of sarm probe.",
    )


def _moved(found: Found) -> bool:
    return any(side["changed"] for side in found["sides"].values())


def _verdict(found: Found) -> tuple[str, Tone]:
    if not _moved(found):
        return (
            "No reward changes: the edited latents have these values already, or none is active.",
            "unclear",
        )
    pairs = found["preference"]
    if pairs is not None:
        return _of_pairs(pairs)
    # without pairs nothing says what is better
    side = next(iter(found["sides"].values()))
    change = side["delta"]
    direction = tone_of(change["low"], change["high"], more_is="plain")
    if direction == "unclear":
        return "The edits show no clear change of the mean reward: a null result.", "unclear"
    verb = "raise" if change["mean"] > 0 else "lower"
    return f"The edits {verb} the mean reward of these {side['answers']:,} answers.", "plain"


def _of_pairs(pairs: Found) -> tuple[str, Tone]:
    flips, margin = pairs["flips"], pairs["margin_delta"]
    # order first: which answer wins is what a policy is trained by, whatever the margin does
    if flips["p"] <= 0.05:
        more = flips["gained"] > flips["lost"]
        often = "more" if more else "less"
        return f"With the edits the better answer of a pair wins {often} often.", ("good" if more else "bad")
    tone = tone_of(margin["low"], margin["high"], more_is="good")
    if tone == "unclear":
        return "The edits show no clear change of what the better answer is paid: a null result.", tone
    moves = "raise" if tone == "good" else "lower"
    return (
        f"The edits {moves} what the better answer of a pair is paid over the worse; how often it is paid "
        "more shows no clear change."
    ), tone


def _lead(found: Found) -> list[str]:
    lines = [f"Tried: {edits_in_words(found['edits'], {})}."]
    difference = found.get("largest_difference")
    if difference is not None:
        lines.append(
            f"Scored again with the edits inside the model, the changes differ by at most {difference:.2g}."
        )
    return lines


def _tiles(found: Found) -> list[Tile]:
    prompts = f"n = {counted(found['prompts'], 'prompt')}"
    # the summary holds shares; rounded, they are the counts again
    changed = sum(round(side["changed"] * side["answers"]) for side in found["sides"].values())
    share = f"{100 * changed / found['answers']:.0f} %"
    answers = f"{changed:,} of {found['answers']:,}: counted, not estimated"
    tiles = [Tile("How many of these answers change?", share, answers, "answers whose reward changes")]
    pairs, sd = found["preference"], found["reward_sd"]
    if pairs is None:
        for name, side in found["sides"].items():
            detail = f"mean reward of {name}, n = {counted(side['delta']['n'], 'prompt')}"
            question = "What do the edits change?"
            tiles.append(tile(question, side["delta"], detail, scale=_scale(sd), sign=True, unit=_unit(sd)))
        return tiles[:3]
    margin, accuracy = pairs["margin_delta"], pairs["accuracy_delta"]
    tone = tone_of(margin["low"], margin["high"], more_is="good")
    tiles.append(
        tile(
            "Is the better answer paid more?", margin, f"change of its margin, {prompts}", tone,
            scale=_scale(sd), sign=True, unit=_unit(sd),
        )
    )  # fmt: skip
    before, after = (100 * pairs[f"accuracy_{when}"]["mean"] for when in ("before", "after"))
    detail = f"{before:.1f} % before, {after:.1f} % with the edits, {prompts}"
    tone = tone_of(accuracy["low"], accuracy["high"], more_is="good")
    tiles.append(
        tile("How much more often?", accuracy, detail, tone, scale=100, sign=True, unit=POINTS)
    )  # fmt: skip
    return tiles


def _scale(sd: float) -> float:
    # all rewards are equal: there are no SDs to count in, and the axis says reward units
    return 1 / sd if sd else 1.0


def _unit(sd: float) -> str:
    return " SD" if sd else ""


def _hero(found: Found) -> Drawing | None:
    if not _moved(found):
        return None
    sd, rows = found["reward_sd"], []
    for name, side in found["sides"].items():
        ends = scaled(side["delta"], _scale(sd))
        tone = tone_of(ends["low"], ends["high"], more_is="plain")
        rows.append(Row(name, ends["mean"], ends["low"], ends["high"], tone))
    if found["preference"] is not None:
        ends = scaled(found["preference"]["margin_delta"], _scale(sd))
        tone = tone_of(ends["low"], ends["high"], more_is="good")
        # the margin alone is good or bad: edits that lower chosen and rejected answers
        # alike change nothing for a policy
        rows.append(Row("chosen over rejected", ends["mean"], ends["low"], ends["high"], tone, strong=True))
    figure = forest(
        rows,
        name="changes",
        title="What the edits change in the mean reward.",
        x_title=f"change ({'SDs of the reward' if sd else 'reward units'}, 95 %)",
    )
    caption = "Each prompt counts once."
    if found["preference"] is not None:
        caption += " The last row is the margin: what the better answer is paid more."
    return Drawing(figure, caption, _HERO)


def _rewards(found: Found) -> Section:
    sd, rows = found["reward_sd"], []
    for name, side in found["sides"].items():
        digits = decimals(side["delta"])
        rows.append(
            TableRow(
                name,
                [
                    Cell(number(side["answers"], 0)),
                    Cell(number(side["active"], 1, scale=100), unit=" %"),
                    Cell(number(side["changed"], 1, scale=100), unit=" %"),
                    interval_cell(side["before"], digits),
                    interval_cell(side["after"], digits),
                    interval_cell(side["delta"], digits, sign=True),
                    Cell(number(side["delta_sd"], 3, sign=True)),
                ],
            )
        )
    caption = (
        f"Mean rewards with 95 % intervals over {found['prompts']} prompts (SD of the reward {sd:.4g}). "
        "Active: an edited latent is active before the edit."
    )
    head = ("Answers", "n", "Active", "Changed", "Before", "After", "Change", "In SDs")
    blocks: list[Block] = [*_spread(found), Table(caption, head, rows)]
    finding = "By answers, and how the changes are spread." if _moved(found) else "Nothing changes."
    return Section("rewards", "What the edits do to rewards", finding, blocks)


def _spread(found: Found) -> Iterator[Drawing]:
    bins = found["changes"]
    # a single column would say that all changes are alike, which the table says with their size
    if len(bins) < 2:
        return
    size = max(one["high"] - one["low"] for one in bins)
    # a width is 1, 2 or 5 times a power of ten
    digits = max(0, -math.floor(math.log10(size * (1 + 1e-9))))
    shown = [Bin(_edge(one, digits), one["answers"]) for one in bins]
    unit = "SDs" if found["reward_sd"] else "reward units"
    figure = histogram(
        shown,
        name="spread",
        title="How the changes are spread over the answers.",
        x_title=f"change of the reward ({unit}; each column goes from its number {size:.3g} towards 0)",
        y_title="answers",
    )
    yield Drawing(figure, "The column at 0 holds the answers that do not change at all.", 720)


def _edge(one: Found, digits: int) -> str:
    # the edge away from 0, so that columns at both sides are read alike and the one at 0 stands for no change
    far = one["low"] if one["low"] < 0 else one["high"]
    return fixed(far, digits, sign=True) if far else "0"


def _pairs(found: Found) -> Iterator[Section]:
    pairs = found["preference"]
    if pairs is None:
        return
    # by the change, which is smaller than what it changes: else before and after could read the same
    digits = decimals(pairs["margin_delta"])
    rows = [
        TableRow("Margin, reward units", [
            interval_cell(pairs["margin_before"], digits), interval_cell(pairs["margin_after"], digits),
            interval_cell(pairs["margin_delta"], digits, sign=True),
        ]),
        TableRow("Pairs in the right order", [
            interval_cell(pairs["accuracy_before"], 1, scale=100, unit=" %"),
            interval_cell(pairs["accuracy_after"], 1, scale=100, unit=" %"),
            interval_cell(pairs["accuracy_delta"], 1, scale=100, sign=True, unit=POINTS),
        ]),
    ]  # fmt: skip
    flips = pairs["flips"]
    caption = f"Chosen against rejected answers, 95 % over {flips['n']} prompts."
    finding = (
        f"{flips['gained']} of {counted(flips['n'], 'prompt')} gain, {flips['lost']} lose "
        f"(exact McNemar p = {flips['p']:.2g})."
    )
    table = Table(caption, ("Measure", "Before", "After", "Change"), rows)
    yield Section("pairs", "Which answer of a pair is paid more", finding, [table])


def _examples(found: Found) -> Iterator[Section]:
    moved = found["moved"]
    blocks: list[Block] = []
    for kind, why in (("falls", "Largest fall:"), ("rises", "Largest rise:")):
        for place, one in enumerate(moved[kind]):
            notes = [
                f"before {fixed(one['before'], 3, sign=True)}",
                f"after {fixed(one['after'], 3, sign=True)}",
                f"change {fixed(one['delta'], 3, sign=True)}",
            ]
            answer = Answer(one["side"], one["answer"], notes)
            blocks.append(SideBySide(one["prompt"], why if place == 0 else "Next:", [answer]))
    if blocks:
        yield Section(
            "examples", "Answers that move most", "Extremes of these answers, not typical ones.", blocks
        )


def _made(found: Found, command: str) -> Section:
    pairs = [
        ("Edits", edits_in_words(found["edits"], {})),
        ("SD of the reward", f"{found['reward_sd']:.4g} reward units"),
    ]
    section = made_section(pairs, found, command)
    note = (
        "Changes are exact for these answers. What a policy would do under the edited reward is not in them."
    )
    return section._replace(blocks=[*section.blocks, Prose([note], quiet=True)])
