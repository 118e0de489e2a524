"""Before and after on one line a thing: a hollow mark, a filled one, and the way between them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sarm_control.charts.colours import Tone, light
from sarm_control.charts.figure import Figure, altair, inline
from sarm_control.charts.row_charts import Row, extent, room, row_labels, row_places, tones


class Pair(NamedTuple):
    """A thing measured twice.

    Args:
        label: what it is.
        before: its value before.
        after: its value after.
        shown: both in words, such as `61 % to 68 %`.
        tone: what the change means.
    """

    label: str
    before: float
    after: float
    shown: str
    tone: Tone = "plain"


def before_after(pairs: Sequence[Pair], *, name: str, title: str, x_title: str, zero: bool = False) -> Figure:
    """One line a thing, in the order given.

    Args:
        pairs: at least one.
        name: of the figure's files.
        title: of the figure.
        x_title: what the axis measures, with its unit.
        zero: whether the axis holds 0.
    """

    def build(width: int) -> Any:
        alt = altair()
        rows = [Row(one.label, one.after, shown=one.shown, tone=one.tone) for one in pairs]
        phone, left, inner = room([one.label for one in pairs], [one.shown for one in pairs], width)
        low, high = extent((v for one in pairs for v in (one.before, one.after)), zero=zero)
        data = [{**one._asdict(), "place": place} for place, one in enumerate(pairs)]
        base = alt.Chart(inline(data)).encode(y=row_places(rows, phone, left))
        scale = alt.Scale(domain=[low, high], nice=False, zero=False)
        x = alt.X("after:Q", title=x_title, scale=scale, axis=alt.Axis(tickCount=max(4, inner // 80)))
        way = base.mark_rule(strokeWidth=2).encode(x="before:Q", x2="after:Q", color=tones())
        first = base.mark_point(filled=False, size=80, strokeWidth=2, opacity=1, color=light("soft"))
        last = base.mark_point(filled=True, size=100, opacity=1, strokeWidth=0)
        return alt.layer(
            way,
            first.encode(x="before:Q"),
            last.encode(x=x, color=tones()),
            *row_labels(base, inner, phone),
        ).properties(width=inner, height=alt.Step(48 if phone else 30))

    said = "; ".join(f"{one.label}: {one.shown}" for one in pairs)
    numbers = tuple(one._asdict() for one in pairs)
    return Figure(name, title, f"{title}. {said} (axis: {x_title})", numbers, build)
