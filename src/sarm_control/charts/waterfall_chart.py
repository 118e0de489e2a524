"""A sum drawn as a waterfall: each part begins where the one before it ended."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sarm_control.charts.colours import Tone
from sarm_control.charts.figure import Figure, altair, inline
from sarm_control.charts.row_charts import (
    Row,
    bar_marks,
    extent,
    in_words,
    room,
    row_labels,
    row_places,
    zero_line,
)


class Step(NamedTuple):
    """One part of a sum, or a sum so far.

    Args:
        label: what it is.
        value: the part; for a total, the sum of all parts before it.
        tone: what the part means.
        total: a sum so far, drawn from zero.
        low: lower end of the part's interval, or None.
        high: upper end, or None.
    """

    label: str
    value: float
    tone: Tone = "plain"
    total: bool = False
    low: float | None = None
    high: float | None = None


class _Placed(NamedTuple):
    row: Row
    start: float
    end: float


def waterfall(steps: Sequence[Step], *, name: str, title: str, x_title: str) -> Figure:
    """Parts of a sum from top to bottom, in the order given.

    Args:
        steps: parts and totals, at least one.
        name: of the figure's files.
        title: of the figure.
        x_title: what the axis measures, with its unit.
    """
    placed = _placed(steps)

    def build(width: int) -> Any:
        alt = altair()
        rows = [one.row for one in placed]
        words = [in_words(row) for row in rows]
        phone, left, inner = room([row.label for row in rows], words, width)
        low, high = extent((v for one in placed for v in (one.start, one.end)), zero=True)
        data = [
            # a bar is drawn from where the sum stood to where it stands; whiskers would be about
            # the part and not the sum, so they are left to the words
            {**one.row._asdict(), "shown": shown, "place": place, "value": one.end, "origin": one.start}
            | {"low": None, "high": None}
            for place, (one, shown) in enumerate(zip(placed, words, strict=True))
        ]
        base = alt.Chart(inline(data)).encode(y=row_places(rows, phone, left))
        axis = alt.Axis(tickCount=max(4, inner // 80), labelOverlap="greedy")
        x = alt.X("value:Q", title=x_title, axis=axis, scale=alt.Scale(domain=[low, high], nice=False))
        bar = bar_marks(base, x)[0]
        return alt.layer(*zero_line(True), bar, *row_labels(base, inner, phone)).properties(
            width=inner, height=alt.Step(48 if phone else 28)
        )

    numbers = tuple(
        {**step._asdict(), "start": one.start, "end": one.end}
        for step, one in zip(steps, placed, strict=True)
    )
    said = "; ".join(f"{one.row.label}: {in_words(one.row)}" for one in placed)
    return Figure(name, title, f"{title}. {said} (axis: {x_title})", numbers, build)


def _placed(steps: Sequence[Step]) -> list[_Placed]:
    reached, placed = 0.0, []
    for step in steps:
        start = 0.0 if step.total else reached
        reached = step.value if step.total else reached + step.value
        row = Row(step.label, step.value, step.low, step.high, step.tone, strong=step.total)
        placed.append(_Placed(row, start, reached))
    return placed
