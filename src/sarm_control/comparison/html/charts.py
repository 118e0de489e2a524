"""Three charts as inline SVG: bars with intervals, dots with intervals, and lines over steps.

Colours and fonts come from the page's style sheet, so the charts follow light and
dark. Every chart carries a title for screen readers; its numbers are in a table too.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sarm_control.comparison.html.axes import Scale, extent
from sarm_control.comparison.html.templating import render_template

if TYPE_CHECKING:
    from markupsafe import Markup

_ROW = 26
_CHARACTER = 7.2
_WIDTH = 760


class Bar(NamedTuple):
    """One row of a bar or dot chart.

    Args:
        label: what the row is, at the left.
        value: the mean.
        low: lower end of its interval, or None.
        high: upper end of its interval, or None.
        shown: the value as text, at the right.
        marked: drawn with emphasis (a controlled latent).
    """

    label: str
    value: float
    low: float | None
    high: float | None
    shown: str
    marked: bool = False


class Series(NamedTuple):
    """One line: a name, steps, and values; a None or NaN value leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


def bar_chart(bars: Sequence[Bar], *, title: str, x_label: str) -> "Markup":
    """Horizontal bars from zero with interval whiskers, in the order given."""
    return _rows(bars, title=title, x_label=x_label, width=_WIDTH, dots=False)


def interval_plot(points: Sequence[Bar], *, title: str, x_label: str, width: int = 370) -> "Markup":
    """Dots with interval whiskers around a zero line, in the order given."""
    return _rows(points, title=title, x_label=x_label, width=width, dots=True)


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str) -> "Markup":
    """Lines over steps: the raw values faint, their running mean on top.

    Args:
        series: lines in legend order; colours and dashes go by position.
        title: for screen readers.
        x_label: name of the horizontal axis.
        y_label: name and unit of the vertical axis.
    """
    width, height, left, top, bottom = 370, 230, 52, 30, 186
    low, high = extent((value for line in series for value in line.y), include_zero=False)
    first, last = extent((step for line in series for step in line.x), include_zero=False)
    x = Scale(first, last, left, width - 8)
    y = Scale(low, high, bottom, top)
    lines = []
    for position, line in enumerate(series):
        smooth = running_mean(line.y, window(len(line.y)))
        if smooth != list(line.y):
            lines.append(_Line(_path(line.x, line.y, x, y), f"line faint s{position % 4}"))
        lines.append(_Line(_path(line.x, smooth, x, y), f"line s{position % 4}"))
    return render_template(
        "lines.svg",
        lines=[line for line in lines if line.path],
        x=x,
        y=y,
        title=title,
        x_label=x_label,
        y_label=y_label,
        width=width,
        height=height,
    )


def window(count: int) -> int:
    """Steps in the running mean of a curve: 1 for short curves, then a tenth, odd."""
    return 1 if count < 15 else 2 * (count // 20) + 3


def running_mean(values: Sequence[float | None], size: int) -> list[float | None]:
    """Centred means over `size` values, fewer at the ends; a gap stays a gap."""
    half = size // 2
    result: list[float | None] = []
    for position, value in enumerate(values):
        reach = min(half, position, len(values) - 1 - position)
        near = [v for v in values[position - reach : position + reach + 1] if _drawable(v)]
        result.append(sum(near) / len(near) if _drawable(value) else None)  # type: ignore[arg-type]
    return result


class _Line(NamedTuple):
    path: str
    kind: str


class _Row(NamedTuple):
    """Where a bar's row is drawn: its middle, its rectangle and its whisker, and the class of its mark."""

    bar: Bar
    y: float
    start: float
    size: float
    whisker: str
    kind: str


def _rows(bars: Sequence[Bar], *, title: str, x_label: str, width: int, dots: bool) -> "Markup":
    left = 12 + _CHARACTER * max((len(bar.label) for bar in bars), default=0)
    right = 12 + _CHARACTER * max((len(bar.shown) for bar in bars), default=0)
    low, high = extent((v for bar in bars for v in (bar.value, bar.low, bar.high)), include_zero=True)
    x = Scale(low, high, left, width - right)
    return render_template(
        "rows.svg",
        rows=[_row(bar, x, 8 + _ROW * place + _ROW / 2, dots=dots) for place, bar in enumerate(bars)],
        x=x,
        left=left,
        bottom=8 + _ROW * len(bars),
        width=width,
        title=title,
        x_label=x_label,
        dots=dots,
    )


def _row(bar: Bar, x: Scale, y: float, *, dots: bool) -> _Row:
    start, end = sorted((x(0.0), x(bar.value)))
    size = round(max(end - start, 0.5), 1)
    if dots:
        kind = "dot" if not _excludes_zero(bar) else "dot up" if bar.value > 0 else "dot down"
    else:
        kind = "up" if bar.value >= 0 else "down"
    return _Row(bar, y, start, size, _whisker(bar, x, y), kind)


def _whisker(bar: Bar, x: Scale, y: float) -> str:
    if bar.low is None or bar.high is None:
        return ""
    low, high = x(bar.low), x(bar.high)
    return f"M{low} {y - 4}V{y + 4}M{low} {y}H{high}M{high} {y - 4}V{y + 4}"


def _excludes_zero(bar: Bar) -> bool:
    return bar.low is not None and bar.high is not None and (bar.low > 0 or bar.high < 0)


def _path(steps: Sequence[float], values: Sequence[float | None], x: Scale, y: Scale) -> str:
    pieces = [piece for piece in _pieces(steps, values) if piece]
    return "".join(
        f"M{x(piece[0][0])} {y(piece[0][1])}"
        + ("".join(f"L{x(step)} {y(value)}" for step, value in piece[1:]) or "h.1")
        for piece in pieces
    )


def _pieces(steps: Sequence[float], values: Sequence[float | None]) -> Iterator[list[tuple[float, float]]]:
    piece: list[tuple[float, float]] = []
    for step, value in zip(steps, values, strict=True):
        if value is None or not math.isfinite(value):
            yield piece
            piece = []
        else:
            piece.append((step, value))
    yield piece


def _drawable(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
