"""Lines over steps or over pressure, with a band where several seeds or an interval are behind a line."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.charts.colours import DASHES, light, series_name
from sarm_control.charts.figure import Figure, altair, inline
from sarm_control.charts.row_charts import CHARACTER

_SYMBOL = 28
"""Pixels of a name's stroke in the legend, and of the room around it."""


class LinePoint(NamedTuple):
    """One point of a line.

    Args:
        series: the name of the line.
        x: place on the horizontal axis.
        y: value; None or NaN leaves a gap.
        low: lower edge of the band, or None.
        high: upper edge, or None.
    """

    series: str
    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


def lines(
    points: Sequence[LinePoint],
    *,
    name: str,
    title: str,
    x_title: str,
    y_title: str,
    targets: Mapping[str, float] | None = None,
    smooth: bool = False,
    log_x: bool = False,
    zero: bool = False,
    legend: bool = True,
) -> Figure:
    """One line for each series, in the order of their first points; colours and dashes go by that order.

    Args:
        points: at least one.
        name: of the figure's files.
        title: of the figure.
        x_title: what the horizontal axis is.
        y_title: what the vertical axis measures, with its unit.
        targets: label -> value, drawn as dashed rules across the chart.
        smooth: draw the values faint and their running mean on top.
        log_x: the horizontal axis by powers of two, as for best-of-N.
        zero: whether the vertical axis holds 0.
        legend: whether names of series stand above a chart with several of them.
    """
    names = list(dict.fromkeys(point.series for point in points))
    drawn = _with_means(points, names) if smooth else [{**p._asdict(), "mean": p.y} for p in points]

    def build(width: int) -> Any:
        alt = altair()
        base = alt.Chart(inline(drawn))
        # the axis ends with the data: rounded ends would leave a gap that looks like missing steps
        scale = alt.Scale(type="log", base=2, nice=False) if log_x else alt.Scale(nice=False, zero=False)
        x_axis = alt.Axis(tickCount=max(3, width // 90), grid=False, labelOverlap="greedy", format="d")
        x = alt.X("x:Q", title=x_title, scale=scale, axis=x_axis)
        y = alt.Y("mean:Q", title=None, scale=alt.Scale(zero=zero, nice=True), axis=alt.Axis(tickCount=5))
        colour, dash = _keys(names, legend, width)
        layers = [*_targets(targets or {}), *_band(base, x, points, colour)]
        if smooth and any(row["mean"] != row["y"] for row in drawn):
            faint = base.mark_line(strokeWidth=1, opacity=0.3)
            layers.append(faint.encode(x=x, y="y:Q", color=colour, detail="series:N"))
        # a missing value breaks the line; the default would leave it out and join its neighbours
        line = base.mark_line(strokeWidth=2.25, strokeJoin="round", invalid="break-paths-show-domains")
        layers.append(line.encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=_tooltip(x_title)))
        heading = alt.Title(y_title, anchor="start", fontSize=12, fontWeight="normal", color=light("soft"))
        size = max(150, min(260, int(width * 0.42)))
        # Vega's width is that of the plot: the labels of the vertical axis come on top of it
        return alt.layer(*layers).properties(width=width - 58, height=size, title=heading)

    numbers = tuple(point._asdict() for point in points)
    return Figure(name, title, _described(title, points, names, x_title, y_title), numbers, build)


def window(count: int) -> int:
    """Steps in the running mean of a curve: 1 for short curves, then a tenth, odd."""
    return 1 if count < 15 else 2 * (count // 20) + 3


def running_mean(values: Sequence[float | None], size: int) -> list[float | None]:
    """Centred means over `size` values, fewer at the ends; a gap stays a gap."""
    half = size // 2
    result: list[float | None] = []
    for position, value in enumerate(values):
        # as many on both sides: a window that is cut on one side pulls the ends of a rising curve
        # inwards
        reach = min(half, position, len(values) - 1 - position)
        near = [v for v in values[position - reach : position + reach + 1] if v is not None]
        result.append(sum(near) / len(near) if value is not None else None)
    return result


def _with_means(points: Sequence[LinePoint], names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        own = [point for point in points if point.series == name]
        means = running_mean([point.y for point in own], window(len(own)))
        rows += [{**point._asdict(), "mean": mean} for point, mean in zip(own, means, strict=True)]
    return rows


def _keys(names: Sequence[str], legend: bool, width: int) -> tuple[Any, Any]:
    alt = altair()
    colours = [light(series_name(place)) for place in range(len(names))]
    dashes = [list(DASHES[place % len(DASHES)]) for place in range(len(names))]
    shown: Any = (
        alt.Legend(
            columns=_columns(names, width), symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.25
        )
        if legend and len(names) > 1
        else None
    )
    return (
        alt.Color("series:N", scale=alt.Scale(domain=list(names), range=colours), legend=shown),
        alt.StrokeDash("series:N", scale=alt.Scale(domain=list(names), range=dashes), legend=shown),
    )


def _columns(names: Sequence[str], width: int) -> int:
    """Names beside each other above the chart: a legend wider than the chart would make all of it smaller."""
    return max(1, min(len(names), (width - 58) // (_SYMBOL + int(CHARACTER * max(map(len, names))))))


def _band(base: Any, x: Any, points: Sequence[LinePoint], colour: Any) -> list[Any]:
    if all(point.low is None for point in points):
        return []
    area = base.mark_area(opacity=0.18)
    return [area.encode(x=x, y="low:Q", y2="high:Q", color=colour)]


def _targets(targets: Mapping[str, float]) -> list[Any]:
    if not targets:
        return []
    alt = altair()
    base = alt.Chart(inline([{"label": label, "target": value} for label, value in targets.items()]))
    rule = base.mark_rule(strokeDash=[4, 3], color=light("ink"), strokeWidth=1.25).encode(y="target:Q")
    said = base.mark_text(align="right", baseline="bottom", dy=-3, fontSize=11, color=light("soft"))
    return [rule, said.encode(x=alt.value("width"), y="target:Q", text="label:N")]


def _tooltip(x_title: str) -> list[Any]:
    alt = altair()
    return [
        alt.Tooltip("series:N", title="line"),
        alt.Tooltip("x:Q", title=x_title),
        alt.Tooltip("y:Q", title="value", format=".4g"),
    ]


def _described(
    title: str, points: Sequence[LinePoint], names: Sequence[str], x_title: str, y_title: str
) -> str:
    said = []
    for name in names:
        own = [point for point in points if point.series == name and point.y is not None]
        if own:
            first, last = own[0], own[-1]
            said.append(f"{name}: {first.y:.3g} at {first.x:g}, {last.y:.3g} at {last.x:g}")
    return f"{title}, {y_title} over {x_title}. " + "; ".join(said)
