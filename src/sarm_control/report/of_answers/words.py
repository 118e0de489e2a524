"""What the pages on answers have in common: tiles, rows, settings."""

from collections.abc import Mapping
from typing import Any

from sarm_control.charts import Row, Tone
from sarm_control.pages import Block, Code, Facts, Section, Tile
from sarm_control.statistics import decimals, fixed

Found = Mapping[str, Any]
POINTS = " points"
"""The unit of a change of a share."""


def share_row(label: str, interval: Found) -> Row:
    """A row of a forest plot in per cent."""
    ends = scaled(interval, 100)
    shown = f"{fixed(ends['mean'], 1)} %"
    if ends["low"] is not None and ends["high"] is not None:
        shown += f" [{fixed(ends['low'], 1)}, {fixed(ends['high'], 1)}]"
    return Row(label, ends["mean"], ends["low"], ends["high"], shown=shown)


def tile(
    question: str,
    interval: Found,
    detail: str,
    tone: Tone = "plain",
    *,
    scale: float = 1,
    sign: bool = False,
    unit: str = "",
) -> Tile:
    """A question with a mean and its interval for an answer."""
    own = scaled(interval, scale)
    digits = min(3, decimals(own))
    value = f"{fixed(own['mean'], digits, sign=sign)}{unit}"
    if own["low"] is None or own["high"] is None:
        ends = "no interval: too few prompts differ"
    else:
        low, high = (fixed(own[end], digits, sign=sign) for end in ("low", "high"))
        ends = f"95 % interval {low} to {high}"
    return Tile(question, value, ends, detail, tone)


def scaled(interval: Found, scale: float) -> dict[str, float | None]:
    """The interval in the unit it is shown in."""
    return {end: None if interval[end] is None else interval[end] * scale for end in ("mean", "low", "high")}


def made_section(pairs: list[tuple[str, str]], found: Found, command: str) -> Section:
    """The last part of a page: settings, model, head and command."""
    facts = [*pairs, ("Reward model", str(found["model"])), ("Head", str(found["head"]))]
    blocks: list[Block] = [Facts(facts), *([Code(command)] if command else [])]
    return Section("made", "How this was made", "Settings, model and command.", blocks)
