"""Intervals in words: the two ends, or why there are none and how many prompts would be enough."""

from sarm_control.statistics.intervals import Interval

_MANY = 10
"""With at least this many prompts that differ from the median, their number is not the reason."""


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
