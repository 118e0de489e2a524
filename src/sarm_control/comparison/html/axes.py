"""Scales and axes of the charts."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sarm_control.statistics import MINUS


class Tick(NamedTuple):
    """A mark of an axis: its pixel, its label, and whether it is at zero."""

    at: float
    label: str
    is_zero: bool


class Scale(NamedTuple):
    """A straight map from data to pixels.

    Args:
        low: data value at `start`.
        high: data value at `end`.
        start: pixel of `low`.
        end: pixel of `high`; smaller than `start` on an upward axis.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a data value, rounded to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def x_ticks(self) -> list[Tick]:
        """The marks of a horizontal axis, one every 75 pixels or so."""
        return self._ticks(max(3, round((self.end - self.start) / 75)))

    def y_ticks(self) -> list[Tick]:
        """The marks of a vertical axis."""
        return self._ticks(4)

    def _ticks(self, count: int) -> list[Tick]:
        values = ticks(self.low, self.high, count)
        labels = tick_labels(values)
        return [
            Tick(self(value), label, abs(value) < 1e-12) for value, label in zip(values, labels, strict=True)
        ]


def extent(values: Iterable[float | None], *, include_zero: bool) -> tuple[float, float]:
    """The least and greatest finite value, never equal; (0, 1) when there is none."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if include_zero:
        finite.append(0.0)
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if low == high:
        room = abs(low) * 0.1 or 1.0
        return low - room, high + room
    room = (high - low) * 0.04
    return (low - room if low != 0 else low), (high + room if high != 0 else high)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (steps of 1, 2, 2.5 or 5 times a power of ten) within [low, high]."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The ticks with as many decimals as their step needs."""
    step = values[1] - values[0] if len(values) > 1 else abs(values[0]) if values else 1.0
    if step and not 1e-5 <= step < 1e6:
        return [f"{value:.3g}".replace("-", MINUS) for value in values]
    digits = next((d for d in range(8) if abs(round(step, d) - step) < 1e-6 * step), 8) if step else 0
    return [_plain(value, digits) for value in values]


def _plain(value: float, digits: int) -> str:
    shown = f"{value:.{digits}f}"
    return f"{0:.{digits}f}" if float(shown) == 0 else shown.replace("-", MINUS)
