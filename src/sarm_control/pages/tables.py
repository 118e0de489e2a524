"""Tables as rows of cells; every number keeps its exact value for machines beside what is shown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.charts import Tone
from sarm_control.statistics import decimals, fixed


class Number(NamedTuple):
    """A number as text, and its exact value for machines."""

    value: float
    shown: str


class Cell(NamedTuple):
    """What stands in a cell: a number with the ends of its interval, or words.

    Args:
        mean: the number; None where there is none.
        low: lower end of its interval.
        high: upper end.
        unit: behind the number.
        text: words, in place of a number.
        tone: what it means.
    """

    mean: Number | None = None
    low: Number | None = None
    high: Number | None = None
    unit: str = ""
    text: str = ""
    tone: Tone = "plain"


class TableRow(NamedTuple):
    """A row.

    Args:
        name: its first cell.
        cells: the others.
        unit: behind the name, softer.
        kind: `total` or `marked`, or empty.
        span: the columns that the name takes, where that is not one.
    """

    name: str
    cells: Sequence[Cell]
    unit: str = ""
    kind: str = ""
    span: int | None = None


class Table(NamedTuple):
    """A table with a caption and the names of its columns."""

    caption: str
    head: Sequence[str]
    rows: Sequence[TableRow]

    @property
    def words(self) -> frozenset[int]:
        """Columns (0 is that of the names) of words alone: their head and cells stand at the left."""
        kinds: dict[int, set[str]] = {}
        for row in self.rows:
            for place, cell in enumerate(row.cells, row.span or 1):
                # an empty cell says nothing of its column: one that has words or nothing is a column of words
                kind = "words" if cell.text else "number" if cell.mean else "empty"
                kinds.setdefault(place, set()).add(kind)
        return frozenset(place for place, kind in kinds.items() if kind - {"empty"} == {"words"})


def number(value: float | None, digits: int, *, scale: float = 1, sign: bool = False) -> Number | None:
    """A number with fixed decimals."""
    return None if value is None else Number(value, fixed(value * scale, digits, sign=sign))


def text_cell(text: str, *, tone: Tone = "plain") -> Cell:
    """A cell of words."""
    return Cell(text=text, tone=tone)


def interval_cell(
    interval: Mapping[str, Any] | None,
    digits: int | None = None,
    *,
    scale: float = 1,
    sign: bool = False,
    unit: str = "",
    tone: Tone = "plain",
) -> Cell:
    """A cell with the mean and the ends of its interval.

    Args:
        interval: `mean`, `low` and `high`; None for an empty cell.
        digits: decimals; None for as many as the interval justifies.
        scale: what the numbers are multiplied by to be shown.
        sign: whether a plus sign is shown.
        unit: behind the number.
        tone: what the number means.
    """
    if interval is None or interval["mean"] is None:
        return Cell()
    if digits is None:
        ends = ("mean", "low", "high")
        digits = decimals({e: None if interval[e] is None else interval[e] * scale for e in ends})
    mean, low, high = (
        number(interval[end], digits, scale=scale, sign=sign) for end in ("mean", "low", "high")
    )
    return Cell(mean, low, high, unit, tone=tone)
