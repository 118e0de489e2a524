"""Numbers as readers see them: as many digits as the interval justifies, and on pages a real minus sign.

An interval is its two ends, or why there are none and how many prompts would be enough.
"""

import math
from collections.abc import Mapping
from typing import Any

from sarm_control.statistics.intervals import Interval

_MANY = 10
"""With at least this many prompts that differ from the median, their number is not the reason."""


def number(value: float | None, style: str = "+.4g") -> str:
    """The number in the format `style`; a dash for None, NaN and infinities."""
    return "-" if value is None or not math.isfinite(value) else f"{value:{style}}"


def interval(value: Interval, style: str = "+.4g") -> str:
    """`mean [low, high]`, or the mean and why there is no interval."""
    return with_ends(value, style) if math.isfinite(value.mean) else f"- ({missing(value)})"


def with_ends(value: Interval, style: str, *, percent: bool = False) -> str:
    """`mean [low, high]`, or the mean and why there is no interval.

    Args:
        value: the interval.
        style: format of each number, such as `+.3g`.
        percent: numbers are shares, shown times 100 with a percent sign.
    """
    scale = 100.0 if percent else 1.0
    return f"{scale * value.mean:{style}}{' %' if percent else ''} {ends(value, style, scale=scale)}"


def ends(value: Interval, style: str, *, scale: float = 1.0) -> str:
    """`[low, high]`, or in parentheses why there is no interval."""
    if not value.given:
        return f"({missing(value)})"
    return f"[{scale * value.low:{style}}, {scale * value.high:{style}}]"


def missing(value: Interval) -> str:
    """Why there is no interval, and, where it is known, about how many prompts would be enough."""
    if value.n < 2:
        return f"n = {value.n}: no interval"
    if value.apart == 0:
        return f"no interval: all {value.n} prompts are alike"
    if value.enough is None or value.apart is None:
        return f"no interval for these {value.n} prompts"
    few = (
        f"{value.apart} of {value.n} differ"
        if value.apart < _MANY
        else f"one of {value.n} outweighs all others"
    )
    return f"too few prompts: {few}, about {value.enough:,} would do"


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "-"


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


MINUS = "\u2212"
"""The minus sign of pages and charts; see `for_terminal`."""
_UNKNOWN = "\u2013"


def decimals(interval: Mapping[str, Any]) -> int:
    """The number of decimals that shows two significant digits of the interval's half-width."""
    low, high, mean = interval["low"], interval["high"], interval["mean"]
    width = (high - low) / 2 if low is not None and high is not None else 0.0
    # without an interval, two digits of the mean
    size = width or abs(mean or 0.0) / 10
    if size <= 0 or not math.isfinite(size):
        return 0
    return min(8, max(0, 1 - math.floor(math.log10(size))))


def fixed(value: float | None, digits: int, *, sign: bool = False) -> str:
    """The number with `digits` decimals; a dash when there is none, and no sign on a zero."""
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    rounded = f"{value:.{digits}f}"
    if float(rounded) == 0:
        return f"{0:.{digits}f}"
    shown = rounded.replace("-", MINUS)
    return f"+{shown}" if sign and value > 0 else shown


def short(value: float) -> str:
    """The number with three significant digits, without an exponent where that is readable."""
    if value == 0:
        return "0"
    if not 1e-5 <= abs(value) < 1e6:
        return f"{value:.2e}".replace("-", MINUS)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{digits}f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown).replace("-", MINUS)


def for_terminal(text: str) -> str:
    """A sentence of a page as a terminal shows it: with hyphens as minus signs.

    All other numbers there have them, and programs read and people search for `-0.5`.
    """
    return text.replace(MINUS, "-")


def bracket(interval: Mapping[str, Any], digits: int, *, sign: bool = False) -> str:
    """`[low, high]`, or an empty string when there is no interval."""
    if interval["low"] is None or interval["high"] is None:
        return ""
    low, high = (fixed(interval[end], digits, sign=sign) for end in ("low", "high"))
    return f"[{low}, {high}]"
