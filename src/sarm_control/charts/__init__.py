"""Charts: from numbers to one Vega-Altair specification each, drawn offline as SVG, PDF or PNG.

In: rows of numbers with intervals. Out: a `Figure`, which pages embed as SVG, notebooks show interactively,
and papers take as files. This room knows nothing about reward models.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.charts.bin_chart import Bin, histogram
    from sarm_control.charts.colours import COLOURS, SERIES, Tone, series_name, tone_of
    from sarm_control.charts.figure import NARROW, WIDE, Figure, can_draw, save_figures, slug
    from sarm_control.charts.line_chart import LinePoint, lines
    from sarm_control.charts.pair_chart import Pair, before_after
    from sarm_control.charts.plane_charts import Place, Spot, plane, spots
    from sarm_control.charts.row_charts import Row, bars, forest
    from sarm_control.charts.waterfall_chart import Step, waterfall

_HOME_OF = {
    "Bin": "bin_chart",
    "COLOURS": "colours",
    "Figure": "figure",
    "LinePoint": "line_chart",
    "NARROW": "figure",
    "WIDE": "figure",
    "Pair": "pair_chart",
    "Place": "plane_charts",
    "Row": "row_charts",
    "SERIES": "colours",
    "Spot": "plane_charts",
    "Step": "waterfall_chart",
    "Tone": "colours",
    "bars": "row_charts",
    "before_after": "pair_chart",
    "can_draw": "figure",
    "forest": "row_charts",
    "histogram": "bin_chart",
    "lines": "line_chart",
    "plane": "plane_charts",
    "save_figures": "figure",
    "series_name": "colours",
    "slug": "figure",
    "spots": "plane_charts",
    "tone_of": "colours",
    "waterfall": "waterfall_chart",
}

__all__ = [
    "COLOURS",
    "NARROW",
    "SERIES",
    "WIDE",
    "Bin",
    "Figure",
    "LinePoint",
    "Pair",
    "Place",
    "Row",
    "Spot",
    "Step",
    "Tone",
    "bars",
    "before_after",
    "can_draw",
    "forest",
    "histogram",
    "lines",
    "plane",
    "save_figures",
    "series_name",
    "slug",
    "spots",
    "tone_of",
    "waterfall",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
