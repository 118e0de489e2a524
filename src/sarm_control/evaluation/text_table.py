"""Numbers and columns on a terminal."""

import math
from collections.abc import Iterator, Sequence

from sarm_control.discovery.interval_text import missing, with_ends
from sarm_control.discovery.statistics import Interval


def aligned(rows: Sequence[Sequence[str]], *, left: int = 0) -> Iterator[str]:
    """Lines of a table, two spaces in, each column as wide as its longest cell.

    Args:
        rows: cells, the header first; every row has as many.
        left: how many of the first columns are aligned to the left; the others to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield ("  " + "  ".join(cells)).rstrip()


def number(value: float | None, style: str = "+.4g") -> str:
    """The number in that format; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:{style}}"


def interval(value: Interval, style: str = "+.4g") -> str:
    """`mean [low, high]`, or the mean and why there is no interval."""
    return with_ends(value, style) if math.isfinite(value.mean) else f"- ({missing(value)})"


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "-"


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
