"""A figure: a chart with its words and its numbers, drawn offline by vl-convert.

A chart is built for a width in pixels, because a good chart for a telephone is another one than a good chart
for a sheet of paper, not the same one smaller.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sarm_control.charts.colours import theme
from sarm_control.errors import MissingExtraError
from sarm_control.extras import import_extra
from sarm_control.files import atomic_file, write_text

WIDE: Final = 720
"""Pixels: the text column of a page."""
NARROW: Final = 336
"""Pixels: the text column on a telephone of 390 pixels."""
PRINT_WIDTH: Final = 453
"""Points: the text width of a sheet of A4 with margins of 25 mm; one pixel is drawn as one point."""
PRINT_DPI: Final = 300

# Roles and labels inside a chart are for screen readers; the page labels the chart as one picture instead.
_FOR_READERS = re.compile(
    r' (?:aria-[a-z]+|role|pointer-events|xmlns:xlink|version|opacity)="(?:1|(?!\d)[^"]*|1\.1)"'
)
# Axes draw labels that would overlap invisibly, and frames around nothing.
_UNSEEN = re.compile(
    r'<text [^>]*opacity="0"[^>]*>[^<]*</text>'
    r'|<path class="(?:background|foreground)"[^>]*d="(?:M0,0h0v0h0Z)?"[^>]*/>'
)
_IDS = re.compile(r'(id="|url\(#|href="#)(clip|gradient)(\d+)')


@dataclass(frozen=True)
class Figure:
    """A chart that knows what it shows.

    Args:
        name: of its files, such as `proxy-and-gold`.
        title: what it shows, in one line.
        description: what a reader who cannot see it should know; also the text for screen readers.
        rows: its numbers, one mapping a mark, as the CSV file has them.
        build: from a width in pixels to an Altair chart without the theme.
    """

    name: str
    title: str
    description: str
    rows: tuple[Mapping[str, Any], ...]
    build: Callable[[int], Any]

    def chart(self, width: int = WIDE) -> Any:
        """The Altair chart, themed.

        Raises:
            MissingExtraError: Vega-Altair is not installed.
        """
        # `config` is allowed at the top level alone: a chart that has brought its own keeps it
        chart = self.build(width)
        return chart.properties(config=theme()) if _is_bare(chart) else chart

    def spec(self, width: int = WIDE) -> dict[str, Any]:
        """The Vega-Lite specification, with its data inside.

        Raises:
            MissingExtraError: Vega-Altair is not installed.
        """
        spec: dict[str, Any] = self.chart(width).to_dict()
        return spec

    def svg(self, width: int = WIDE) -> str:
        """The chart as an SVG element for a page: no script, no style, no address of anything outside.

        Raises:
            MissingExtraError: Vega-Altair or vl-convert is not installed.
        """
        # no base URL: nothing that a specification could name is fetched, so a page is the same
        # offline
        drawn = _converter().vegalite_to_svg(self.spec(width), allowed_base_urls=[])
        drawn = _FOR_READERS.sub("", _UNSEEN.sub("", drawn))
        # several charts stand in one page, where an id may occur once; vl-convert counts on and on
        places: dict[str, int] = {}

        def own(found: re.Match[str]) -> str:
            before, kind, count = found.groups()
            return f"{before}{self.name}-{width}-{kind}{places.setdefault(kind + count, len(places))}"

        return _IDS.sub(own, drawn)

    def csv(self) -> str:
        """The numbers as comma-separated values, with a header."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def save(self, folder: Path) -> list[Path]:
        """Writes SVG, PDF, PNG (300 dpi) at print size, and CSV, into a folder that exists.

        Returns:
            The files.

        Raises:
            MissingExtraError: Vega-Altair or vl-convert is not installed.
            OutputError: a file cannot be written.
        """
        # white, since the figure is transparent for pages and would be black in viewers with a dark
        # background
        convert, spec = _converter(), {**self.spec(PRINT_WIDTH), "background": "white"}
        drawings = {
            "svg": convert.vegalite_to_svg(spec, allowed_base_urls=[]).encode(),
            "pdf": convert.vegalite_to_pdf(spec, allowed_base_urls=[]),
            # a point is 1/72 inch: scaled so that the printed size is that of the PDF, in more
            # pixels
            "png": convert.vegalite_to_png(spec, scale=PRINT_DPI / 72, ppi=72, allowed_base_urls=[]),
        }
        written = []
        for form, content in drawings.items():
            place = folder / f"{self.name}.{form}"
            with atomic_file(place) as temporary:
                temporary.write_bytes(content)
            written.append(place)
        write_text(folder / f"{self.name}.csv", self.csv())
        return [*written, folder / f"{self.name}.csv"]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """How a notebook shows it: the interactive chart."""
        return self.chart(560)._repr_mimebundle_(include, exclude)


def slug(name: str) -> str:
    """A name as a part of a figure's name, and so of its files': letters and digits, others as `-`."""
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower() or "run"


def save_figures(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Every figure's files in one folder, which is made; see `Figure.save`.

    Raises:
        MissingExtraError: Vega-Altair or vl-convert is not installed.
        OutputError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [path for figure in figures for path in figure.save(folder)]


def can_draw() -> bool:
    """Whether the packages that draw are installed; pages without them have tables alone."""
    try:
        altair()
        _converter()
    except MissingExtraError:
        return False
    return True


def altair() -> Any:
    """Vega-Altair.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra("altair", "report", needed="charts need Vega-Altair")


def inline(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as data inside the specification."""
    return altair().InlineData(values=[dict(row) for row in rows])


def _converter() -> Any:
    return import_extra("vl_convert", "report", needed="drawings of charts need vl-convert")


def _is_bare(chart: Any) -> bool:
    from importlib import import_module

    undefined = import_module("altair").Undefined
    return getattr(chart, "config", undefined) is undefined
