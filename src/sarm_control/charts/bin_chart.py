"""A histogram of bins that were counted elsewhere."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sarm_control.charts.colours import light
from sarm_control.charts.figure import Figure, altair, inline


class Bin(NamedTuple):
    """How many things lie in `[start, end)`, and how the bin is named on the axis."""

    label: str
    things: int


def histogram(bins: Sequence[Bin], *, name: str, title: str, x_title: str, y_title: str) -> Figure:
    """One column a bin, in the order given.

    Args:
        bins: at least one.
        name: of the figure's files.
        title: of the figure.
        x_title: what the bins are of, with its unit.
        y_title: what is counted.
    """

    def build(width: int) -> Any:
        alt = altair()
        base = alt.Chart(inline([one._asdict() for one in bins])).encode(
            x=alt.X("label:N", sort=None, title=x_title, axis=alt.Axis(labelAngle=0, labelOverlap="greedy"))
        )
        y = alt.Y("things:Q", title=None, axis=alt.Axis(tickCount=4))
        columns = base.mark_bar(color=light("plain"), cornerRadiusEnd=2).encode(y=y)
        counts = base.mark_text(baseline="bottom", dy=-3, fontSize=11, color=light("soft"))
        heading = alt.Title(y_title, anchor="start", fontSize=12, fontWeight="normal", color=light("soft"))
        return alt.layer(columns, counts.encode(y="things:Q", text="things:Q")).properties(
            width=width - 58, height=180, title=heading
        )

    said = "; ".join(f"{one.label}: {one.things}" for one in bins)
    return Figure(name, title, f"{title}. {said}", tuple(one._asdict() for one in bins), build)
