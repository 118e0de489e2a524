"""Charts of two measures: places with intervals in both, and clouds of many spots."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sarm_control.charts.colours import SHAPES, Tone, light
from sarm_control.charts.figure import Figure, altair, inline
from sarm_control.charts.row_charts import extent, shapes, tones


class Place(NamedTuple):
    """A thing with two measures and their intervals.

    Args:
        label: its name, written beside it.
        x: first measure.
        y: second measure.
        x_low: lower end of the first interval, or None; likewise the other ends.
        x_high: upper end.
        y_low: lower end of the second interval.
        y_high: upper end.
        tone: what the place means.
    """

    label: str
    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    tone: Tone = "plain"


class Spot(NamedTuple):
    """One of many things: where it lies, how large it is, what it means, and its name if it is written."""

    x: float
    y: float
    size: float
    tone: Tone = "unclear"
    label: str = ""


def plane(
    places: Sequence[Place],
    *,
    name: str,
    title: str,
    x_title: str,
    y_title: str,
    diagonal: str = "",
) -> Figure:
    """Named places with intervals in both directions, and lines through zero.

    Args:
        places: at least one.
        name: of the figure's files.
        title: of the figure.
        x_title: first measure with its unit.
        y_title: second measure with its unit.
        diagonal: what the line y = x means, for the description; empty draws no line.
    """

    def build(width: int) -> Any:
        alt = altair()
        inner, height = width - 62, max(220, min(340, int(width * 0.5)))
        low_x, high_x = extent((v for p in places for v in (p.x, p.x_low, p.x_high)), zero=True)
        low_y, high_y = extent((v for p in places for v in (p.y, p.y_low, p.y_high)), zero=True)
        # the scale is given, since names are put on either side of its middle
        x = alt.X("x:Q", title=x_title, scale=alt.Scale(domain=[low_x, high_x], nice=False),
                  axis=alt.Axis(grid=False, tickCount=max(4, inner // 80)))  # fmt: skip
        y = alt.Y("y:Q", title=None, scale=alt.Scale(domain=[low_y, high_y], nice=False),
                  axis=alt.Axis(tickCount=6))  # fmt: skip
        base = alt.Chart(inline([place._asdict() for place in places]))
        rules = base.mark_rule(strokeWidth=1.75)
        dots = base.mark_point(filled=True, size=130, opacity=1, strokeWidth=0)
        heading = alt.Title(y_title, anchor="start", fontSize=12, fontWeight="normal", color=light("soft"))
        return alt.layer(
            *_zero_lines(),
            *(_diagonal(max(low_x, low_y), min(high_x, high_y)) if diagonal else ()),
            rules.encode(x="x_low:Q", x2="x_high:Q", y="y:Q", color=tones()),
            rules.encode(x="x:Q", y="y_low:Q", y2="y_high:Q", color=tones()),
            dots.encode(x=x, y=y, color=tones(), shape=shapes()),
            *_names(base, (low_x + high_x) / 2, inner),
        ).properties(width=inner, height=height, title=heading)

    said = "; ".join(f"{one.label}: {one.x:.3g}, {one.y:.3g}" for one in places)
    numbers = tuple(place._asdict() for place in places)
    return Figure(
        name, title, f"{title}. {x_title} and {y_title}: {said}. {diagonal}".strip(), numbers, build
    )


def spots(
    cloud: Sequence[Spot],
    *,
    name: str,
    title: str,
    x_title: str,
    y_title: str,
    size_title: str,
    largest: float | None = None,
) -> Figure:
    """Many spots, larger for more, with names where they have one; the named lie on top.

    Args:
        cloud: at least one.
        name: of the figure's files.
        title: of the figure.
        x_title: first direction.
        y_title: second direction.
        size_title: what makes a spot large.
        largest: the size that is drawn largest, the same for charts that are read side by side; that of the
            largest spot by default.
    """
    order = {"unclear": 0, "plain": 1, "good": 2, "bad": 3}
    data = [spot._asdict() for spot in sorted(cloud, key=lambda spot: (order[spot.tone], spot.size))]

    def build(width: int) -> Any:
        alt = altair()
        base = alt.Chart(inline(data))
        quiet = alt.Axis(grid=False, labels=False, ticks=False, domain=False)
        scale = alt.Scale(zero=False, padding=16, nice=False)
        x = alt.X("x:Q", title=x_title, scale=scale, axis=quiet)
        y = alt.Y("y:Q", title=y_title, scale=scale, axis=quiet)
        sizes = (
            # areas in square pixels: a spot of four times the size has twice the width
            alt.Scale(range=[14, 420]) if largest is None else alt.Scale(range=[14, 420], domain=[0, largest])
        )
        size = alt.Size("size:Q", scale=sizes, legend=None)
        dots = base.mark_point(filled=True, opacity=0.75, strokeWidth=0)
        names = base.transform_filter("datum.label != ''").mark_text(dy=-12, fontSize=11, limit=120)
        return alt.layer(
            dots.encode(x=x, y=y, size=size, color=tones(), shape=shapes(), tooltip="label:N"),
            names.encode(x="x:Q", y="y:Q", text="label:N"),
        ).properties(width=width - 40, height=max(240, int(width * 0.5)))

    named = [spot for spot in cloud if spot.label]
    counts = {tone: sum(spot.tone == tone for spot in cloud) for tone in SHAPES}
    said = ", ".join(f"{count} {tone}" for tone, count in counts.items() if count)
    words = "; ".join(spot.label for spot in named)
    return Figure(
        name,
        title,
        f"{title}. {len(cloud)} spots ({said}), larger for more {size_title}. Named: {words or 'none'}",
        tuple(spot._asdict() for spot in cloud),
        build,
    )


def _names(base: Any, middle: float, inner: int) -> list[Any]:
    """Names beside their places, towards the middle of the chart."""
    layers = []
    for side, align, dx in (("<=", "left", 10), (">", "right", -10)):
        there = base.transform_filter(f"datum.x {side} {middle}")
        names = there.mark_text(align=align, dx=dx, dy=-10, fontWeight="bold", limit=int(inner * 0.45))
        layers.append(names.encode(x="x:Q", y="y:Q", text="label:N"))
    return layers


def _zero_lines() -> list[Any]:
    alt = altair()
    rule = alt.Chart(inline([{"zero": 0}])).mark_rule(color=light("soft"), strokeWidth=1)
    return [rule.encode(x="zero:Q"), rule.encode(y="zero:Q")]


def _diagonal(low: float, high: float) -> list[Any]:
    alt = altair()
    ends = alt.Chart(inline([{"x": low, "y": low}, {"x": high, "y": high}]))
    line = ends.mark_line(strokeDash=[4, 4], strokeWidth=1, color=light("soft")).encode(x="x:Q", y="y:Q")
    return [line]
