"""Charts with one row a thing: dots with intervals (a forest plot), and bars from zero.

On a narrow screen each label stands above its mark, since there is no room beside it.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sarm_control.charts.colours import SHAPES, Tone, light
from sarm_control.charts.figure import Figure, altair, inline
from sarm_control.statistics import bracket, decimals, fixed

CHARACTER = 6.3
"""Pixels of a letter on average, at 12 pixels."""
_LONGEST = 34
PHONE = 480
"""Pixels: below this width labels stand above their marks."""


class Row(NamedTuple):
    """One row of a chart.

    Args:
        label: what it is.
        value: the mean; None draws the label alone, with `shown`.
        low: lower end of its interval, or None.
        high: upper end, or None.
        tone: what the value means.
        strong: drawn with emphasis, such as a controlled latent.
        shown: the value in words; None: the mean and its interval, with the digits that this justifies.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    tone: Tone = "plain"
    strong: bool = False
    shown: str | None = None


def forest(
    rows: Sequence[Row], *, name: str, title: str, x_title: str, description: str = "", zero: bool = True
) -> Figure:
    """Dots with intervals, in the order given.

    Args:
        rows: at least one.
        name: of the figure's files.
        title: of the figure.
        x_title: what the axis measures, with its unit.
        description: for screen readers; made from the rows when empty.
        zero: whether the axis holds 0 and marks it, as for changes.
    """
    return _figure(rows, name, title, x_title, description, lambda w: _chart(rows, x_title, w, zero, False))


def bars(rows: Sequence[Row], *, name: str, title: str, x_title: str, description: str = "") -> Figure:
    """Bars from zero with whiskers where there are intervals, in the order given; see `forest`."""
    return _figure(rows, name, title, x_title, description, lambda w: _chart(rows, x_title, w, True, True))


def in_words(row: Row) -> str:
    """The value as text: as given, or the mean with its interval."""
    if row.shown is not None:
        return row.shown
    ends = {"mean": row.value, "low": row.low, "high": row.high}
    digits = decimals(ends)
    return f"{fixed(row.value, digits, sign=True)} {bracket(ends, digits, sign=True)}".strip()


def extent(values: Iterable[float | None], *, zero: bool) -> tuple[float, float]:
    """The least and greatest finite value with some room, never equal; (0, 1) when there is none."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if zero:
        finite.append(0.0)
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    # equal values have no range to take a share of, and zeros no size either
    room = 0.05 * (high - low) or abs(low) * 0.1 or 1.0
    # bars begin at the frame where zero is an end: no room is left on its far side
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)


class Room(NamedTuple):
    """How the width of a chart of rows is shared out, in pixels.

    Args:
        phone: labels stand above their marks.
        left: what labels take at the left.
        inner: what marks take.
    """

    phone: bool
    left: int
    inner: int


def room(labels: Sequence[str], words: Sequence[str], width: int) -> Room:
    """The room for labels at the left, marks, and values in words at the right."""
    if width < PHONE:
        return Room(True, 4, width - 16)
    left = 8 + int(CHARACTER * min(_LONGEST, max(map(len, labels))))
    return Room(False, left, max(120, width - left - 18 - int(CHARACTER * max(map(len, words)))))


def _figure(
    rows: Sequence[Row], name: str, title: str, x_title: str, description: str, build: Callable[[int], Any]
) -> Figure:
    said = description or f"{title}. " + "; ".join(f"{row.label}: {in_words(row)}" for row in rows)
    numbers = tuple(
        {"label": row.label, "value": row.value, "low": row.low, "high": row.high, "meaning": row.tone}
        for row in rows
    )
    return Figure(name, title, f"{said} (axis: {x_title})", numbers, build)


def _chart(rows: Sequence[Row], x_title: str, width: int, zero: bool, filled: bool) -> Any:
    alt = altair()
    words = [in_words(row) for row in rows]
    phone, left, inner = room([row.label for row in rows], words, width)
    low, high = extent((v for row in rows for v in (row.value, row.low, row.high)), zero=zero)
    base = alt.Chart(
        inline(
            [
                {**row._asdict(), "shown": shown, "place": place, "origin": 0}
                for place, (row, shown) in enumerate(zip(rows, words, strict=True))
            ]
        )
    ).encode(y=row_places(rows, phone, left))
    x = alt.X(
        "value:Q",
        title=x_title,
        scale=alt.Scale(domain=[low, high], nice=False, zero=False),
        axis=alt.Axis(tickCount=max(4, inner // 80), labelOverlap="greedy", labelFlush=False),
    )
    marks = bar_marks(base, x) if filled else _dot_marks(base, x)
    return alt.layer(*zero_line(zero), *marks, *row_labels(base, inner, phone)).properties(
        width=inner, height=alt.Step(48 if phone else 30)
    )


def row_places(rows: Sequence[Row], phone: bool, left: int) -> Any:
    """One band a row, by position: two rows may have the same label."""
    alt = altair()
    if phone:
        return alt.Y("place:O", axis=None)
    labels = alt.Axis(
        title=None, domain=False, ticks=False, labelLimit=left, labelColor=light("ink"), labelPadding=8,
        labelExpr=f"{_quoted([row.label for row in rows])}[datum.value]",
    )  # fmt: skip
    strong = [place for place, row in enumerate(rows) if row.strong]
    if strong:
        labels.labelFontWeight = alt.condition(
            f"indexof({strong}, datum.value) >= 0", alt.value("bold"), alt.value("normal")
        )
    return alt.Y("place:O", axis=labels)


def _quoted(labels: Sequence[str]) -> str:
    # an expression of Vega is a script: JSON quotes whatever a label holds
    return json.dumps(list(labels))


def _dot_marks(base: Any, x: Any) -> list[Any]:
    alt = altair()
    interval = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", color=tones())
    dots = base.mark_point(filled=True, size=90, opacity=1, strokeWidth=0).encode(
        x=x, color=tones(), shape=shapes(), tooltip=_tooltip()
    )
    return [interval, dots]


def bar_marks(base: Any, x: Any) -> list[Any]:
    """Bars from `origin` to `value`, and the whiskers of their intervals."""
    alt = altair()
    bar = base.mark_bar(height=14, cornerRadius=2, opacity=1).encode(
        x=x, x2="origin:Q", color=tones(), tooltip=_tooltip()
    )
    whisker = base.mark_rule(strokeWidth=1.5, color=light("ink")).encode(x=alt.X("low:Q"), x2="high:Q")
    return [bar, whisker]


def _tooltip() -> list[Any]:
    alt = altair()
    return [alt.Tooltip("label:N", title="what"), alt.Tooltip("shown:N", title="value")]


def tones() -> Any:
    """The colour of a mark by its tone."""
    alt = altair()
    names = list(SHAPES)
    scale = alt.Scale(domain=names, range=[light(one) for one in names])
    return alt.Color("tone:N", scale=scale, legend=None)


def shapes() -> Any:
    """The shape of a mark by its tone, for readers who do not tell the colours apart."""
    alt = altair()
    return alt.Shape("tone:N", scale=alt.Scale(domain=list(SHAPES), range=list(SHAPES.values())), legend=None)


def zero_line(zero: bool) -> list[Any]:
    """A vertical line at 0, if there is to be one."""
    if not zero:
        return []
    rule = altair().Chart(inline([{"zero": 0}])).mark_rule(color=light("soft"), strokeWidth=1)
    return [rule.encode(x="zero:Q")]


def row_labels(base: Any, inner: int, phone: bool) -> list[Any]:
    """Values in words at the right; on a telephone labels and values above the marks."""
    alt = altair()
    if not phone:
        said = base.mark_text(align="left", baseline="middle")
        return [said.encode(x=alt.value(inner + 10), text="shown:N")]
    # words stand on the lines of the chart: a rim in the colour of the paper, drawn first, keeps them apart
    above = {"baseline": "bottom", "dy": -10}
    rim = {"stroke": light("paper"), "strokeWidth": 4, "strokeJoin": "round"}
    layers = []
    for drawn in (rim, {}):
        left = base.mark_text(align="left", limit=inner * 0.56, **above, **drawn)
        right = base.mark_text(align="right", limit=inner * 0.48, **above, **drawn)
        layers += [left.encode(x=alt.value(0), text="label:N")]
        layers += [right.encode(x=alt.value(inner), text="shown:N")]
    return layers
