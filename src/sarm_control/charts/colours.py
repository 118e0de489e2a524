"""Colours by meaning: good, bad and unclear are never told apart by hue alone, nor are series.

Every colour is one that no other meaning has. A page can therefore give each a second shade for dark screens
by CSS selectors such as `[fill="#0a7a68"]`, and a chart without a page still has its light one. Good and bad
are a teal and a vermilion, which people with any of the common colour deficiencies tell apart (after Okabe
and Ito, jfly.uni-koeln.de/color); shapes and words say the same once more.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

Tone: TypeAlias = Literal["good", "bad", "unclear", "plain"]
"""What a number means: better, worse, not told apart from no change, or neither good nor bad."""


class Shade(NamedTuple):
    """A colour on light and on dark paper; where it carries text its contrast is at least 4.5 on both."""

    light: str
    dark: str


COLOURS: Final[Mapping[str, Shade]] = MappingProxyType(
    {
        "paper": Shade("#ffffff", "#14171b"),
        "wash": Shade("#f4f6f8", "#1d2228"),
        "ink": Shade("#1c2128", "#e7e9ec"),
        "soft": Shade("#57606a", "#a5afba"),
        "rule": Shade("#d9dee4", "#363e48"),
        "good": Shade("#0a7a68", "#4fc9b0"),
        "bad": Shade("#b93a0b", "#ff9a70"),
        "unclear": Shade("#646e7a", "#98a3af"),
        "plain": Shade("#3c5a80", "#8fb3de"),
        "series0": Shade("#4550c8", "#a3abff"),
        "series1": Shade("#a8216f", "#f28bc4"),
        "series2": Shade("#7d6200", "#dcbf4d"),
        "series3": Shade("#1a6f9e", "#6fc0ea"),
        "series4": Shade("#4d5660", "#c3cbd3"),
    }
)
"""Every colour that charts and pages use."""

SERIES: Final = ("series0", "series1", "series2", "series3", "series4")
"""Colours of things that are only different, such as the runs of a comparison, in their order."""

DASHES: Final = ((1, 0), (7, 4), (2, 3), (9, 3, 2, 3))
"""Dashes go with the colours: four and five have no common divisor, so twenty lines all look different."""
SHAPES: Final = {"good": "triangle-up", "bad": "diamond", "unclear": "circle", "plain": "circle"}
FONT: Final = "Liberation Sans, Arial, Helvetica, sans-serif"


def light(name: str) -> str:
    """The colour by which a chart is drawn; pages replace it on dark screens."""
    return COLOURS[name].light


def series_name(position: int) -> str:
    """The colour of the series at a position; from the sixth on they repeat, with other dashes."""
    return SERIES[position % len(SERIES)]


def tone_of(low: float | None, high: float | None, *, more_is: Tone) -> Tone:
    """What a change means, read off its interval.

    Args:
        low: lower end of the interval of the change, or None where there is none.
        high: upper end.
        more_is: what a rise means: good, bad, or plain where neither.

    Returns:
        `unclear` where there is no interval or it holds 0; else `more_is` for a rise and its opposite for a
        fall.
    """
    # an end that is exactly 0 does not exclude it
    if low is None or high is None or low <= 0 <= high:
        return "unclear"
    opposite: dict[Tone, Tone] = {"good": "bad", "bad": "good"}
    return more_is if low > 0 else opposite.get(more_is, more_is)


def theme() -> dict[str, Any]:
    """Vega-Lite's `config` of every chart: quiet axes, no frame, text as on the page."""
    soft, ink, rule = light("soft"), light("ink"), light("rule")
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": soft,
            "titleColor": soft,
            "titleFontWeight": "normal",
            "titleFontSize": 12,
            "labelFontSize": 12,
            "titlePadding": 8,
            "gridColor": rule,
            "domainColor": rule,
            "tickColor": rule,
            "tickSize": 4,
            "labelPadding": 5,
        },
        "header": {"labelColor": ink, "titleColor": soft, "labelFontSize": 12, "labelFontWeight": "bold"},
        "legend": {
            "labelColor": ink,
            "titleColor": soft,
            "labelFontSize": 12,
            "orient": "top",
            "title": None,
            "symbolSize": 90,
            "symbolStrokeWidth": 2,
            "padding": 0,
            "offset": 6,
            "labelLimit": 220,
        },
        "text": {"font": FONT, "fontSize": 12, "color": ink},
    }
