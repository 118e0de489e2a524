"""Intervals in words: the two ends, or why there are none and how many prompts would do."""

from sarm_control.statistics.intervals import Interval

_MANY = 10
"""Prompts apart from the median from which their number is not what is missing."""


def with_ends(value: Interval, style: str, *, percent: bool = False) -> str:
    """`mean [low, high]`, or the mean and why there is no interval.

    Args:
        value: the interval.
        style: format of each number, such as `+.3g`.
        percent: numbers are shares, shown times 100 and without a sign of their own.
    """
    scale = 100.0 if percent else 1.0
    return f"{scale * value.mean:{style}}{' %' if percent else ''} {ends(value, style, scale=scale)}"


def ends(value: Interval, style: str, *, scale: float = 1.0) -> str:
    """`[low, high]`, or in brackets why there is no interval."""
    if not value.given:
        return f"({missing(value)})"
    return f"[{scale * value.low:{style}}, {scale * value.high:{style}}]"


def missing(value: Interval) -> str:
    """Why there is no interval, and about how many prompts would do where that is known."""
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
