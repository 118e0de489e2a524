"""How results show themselves in a notebook, and how tables become pandas frames.

The HTML is plain: escaped text, tables and bars made of styled cells, no script and nothing that is fetched.
Colours are half transparent, so that they are read on light and dark pages; a sign is always written too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from sarm_control.extras import import_extra

_ABOVE, _BELOW = "rgba(38, 139, 160, .55)", "rgba(214, 120, 40, .55)"
_CELL = "padding:2px 8px;border:0;text-align:{side};vertical-align:middle;white-space:nowrap"
_HALF = 90


class Bar(NamedTuple):
    """A number that is drawn from a zero line in the middle.

    Args:
        value: its length; NaN draws nothing.
        longest: the largest |value| of the column, which fills half of the cell.
        text: what is written beside it.
    """

    value: float
    longest: float
    text: str


def number(value: float | None, spec: str = "+.4g") -> str:
    """A number in a cell; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else format(value, spec)


def span(low: float | None, high: float | None, spec: str = "+.3g") -> str:
    """An interval in a cell; nothing where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "no interval"
    return f"[{low:{spec}}, {high:{spec}}]"


def html_table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """A table as HTML.

    Args:
        title: above the table.
        head: names of the columns.
        rows: cells: text, numbers or `Bar`; everything is escaped.
        note: a sentence below.
    """
    lines = [f'<div style="margin:4px 0;overflow-x:auto"><strong>{escape(title)}</strong>']
    rows = list(rows)
    if rows:
        lines.append('<table style="border-collapse:collapse;margin:2px 0">')
        named = "".join(f'<th scope="col" style="{_style("left")}">{escape(name)}</th>' for name in head)
        lines.append(f"<thead><tr>{named}</tr></thead><tbody>")
        lines += [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
        lines.append("</tbody></table>")
    if note:
        lines.append(f'<div style="opacity:.75">{escape(note)}</div>')
    return "".join([*lines, "</div>"])


def data_frame(rows: Iterable[Mapping[str, Any]], index: str | None = None) -> Any:
    """A pandas frame of rows that all have the same keys.

    Args:
        rows: one mapping a row.
        index: the column that becomes the index.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    pandas = import_extra("pandas", "audit", needed="a data frame needs pandas")
    frame = pandas.DataFrame(list(rows))
    # a frame of no rows has no columns either
    return frame if index is None or index not in frame else frame.set_index(index)


def ends_of(**intervals: Any) -> dict[str, float]:
    """Columns of a frame from means with intervals: `NAME`, `NAME_low`, `NAME_high` of each.

    Args:
        intervals: NAME -> an object with `mean`, `low` and `high`.
    """
    return {
        f"{name}{end}": value
        for name, one in intervals.items()
        for end, value in (("", one.mean), ("_low", one.low), ("_high", one.high))
    }


def _style(side: str) -> str:
    return _CELL.format(side=side)


def _cell(value: Any) -> str:
    if isinstance(value, Bar):
        return f'<td style="{_style("left")}">{_bar(value)}</td>'
    # a bool is an int to Python, and a word to readers
    side = "right" if isinstance(value, int | float) and not isinstance(value, bool) else "left"
    text = number(value) if isinstance(value, float) else str(value)
    return f'<td style="{_style(side)}">{escape(text)}</td>'


def _bar(bar: Bar) -> str:
    share = abs(bar.value) / bar.longest if bar.longest > 0 and math.isfinite(bar.value) else 0.0
    width = round(_HALF * min(share, 1.0))
    start = _HALF - width if bar.value < 0 else _HALF
    drawn = (
        f'<span style="position:absolute;left:{start}px;width:{width}px;top:3px;bottom:3px;'
        f'background:{_BELOW if bar.value < 0 else _ABOVE}"></span>'
    )
    zero = (
        f'<span style="position:absolute;left:{_HALF}px;top:0;bottom:0;border-left:1px solid currentColor;'
        f'opacity:.4"></span>'
    )
    frame = f"position:relative;display:inline-block;width:{2 * _HALF}px;height:1.2em;vertical-align:middle"
    # hidden from screen readers, which read the number beside it
    return f'<span style="{frame}" aria-hidden="true">{drawn}{zero}</span> {escape(bar.text)}'
