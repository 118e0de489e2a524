"""From a page's data to HTML, by templates that escape every value."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarm_control.charts import NARROW, Figure, can_draw
from sarm_control.extras import install
from sarm_control.files import write_text
from sarm_control.pages.blocks import Block, Drawing, More, Page, Panels, Section
from sarm_control.pages.style import security_policy, style_sheet

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_DRAWN = re.compile(r"<svg .*?</svg>", re.DOTALL)
_ID = re.compile(r'\bid="([^"]+)"')


def render_page(page: Page) -> str:
    """The whole page as HTML.

    Charts need the extra `report`; without it their numbers stand in tables, and the page says so.
    """
    style = style_sheet()
    html = (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            style=style,
            policy=security_policy(style),
            drawn=can_draw(),
            install=install("report"),
        )
    )
    return _own_ids(html) + "\n"


def write_page(page: Page, path: Path) -> None:
    """Writes the page, as a whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, render_page(page))


def render_block(block: Block) -> "Markup":
    """One block as HTML, for a notebook or a page of another kind."""
    from markupsafe import Markup

    name = type(block).__name__.lower()
    return Markup(_environment().get_template(f"{name}.html").render(block=block, drawn=can_draw()))


def figures_of(page: Page) -> list[Figure]:
    """Every figure of a page, in order, each with a name of its own.

    A chart that stands on the first screen and in a part too is given once. Others of the same name get
    numbers in their order, from 2.
    """
    blocks: list[Block] = [page.hero] if page.hero else []
    blocks += [block for section in page.sections for block in section.blocks]
    found: dict[str, Figure] = {}
    for figure in (drawing.figure for drawing in _drawings(blocks)):
        names = (figure.name if count == 1 else f"{figure.name}-{count}" for count in itertools.count(1))
        # by what they show and not by identity: a chart is drawn anew for the first screen and for its part
        name = next(name for name in names if name not in found or _same(figure, found[name]))
        found.setdefault(name, replace(figure, name=name))
    return list(found.values())


def with_suffix(section: Section, suffix: str) -> Section:
    """A part whose figures are named `NAME-SUFFIX`, where a page has several parts of one kind."""
    return section._replace(blocks=[_suffixed(block, suffix) for block in section.blocks])


def _same(one: Figure, other: Figure) -> bool:
    return (one.title, one.rows) == (other.title, other.rows)


def _suffixed(block: Block, suffix: str) -> Block:
    if isinstance(block, Drawing):
        return block._replace(figure=replace(block.figure, name=f"{block.figure.name}-{suffix}"))
    if isinstance(block, Panels):
        drawn = [
            one._replace(figure=replace(one.figure, name=f"{one.figure.name}-{suffix}"))
            for one in block.drawings
        ]
        return Panels(drawn)
    if isinstance(block, More):
        return block._replace(blocks=[_suffixed(inner, suffix) for inner in block.blocks])
    return block


def _drawings(blocks: Sequence[Block]) -> Iterator[Drawing]:
    for block in blocks:
        if isinstance(block, Drawing):
            yield block
        elif isinstance(block, Panels):
            yield from block.drawings
        elif isinstance(block, More):
            yield from _drawings(block.blocks)


def _own_ids(html: str) -> str:
    """The page with ids that occur once: a chart that stands in two places has them twice."""
    seen: set[str] = set()

    def own(drawn: re.Match[str]) -> str:
        text = drawn.group()
        for one in dict.fromkeys(_ID.findall(text)):
            names = (one if count == 1 else f"{one}-{count}" for count in itertools.count(1))
            name = next(name for name in names if name not in seen)
            seen.add(name)
            # what points to an id, such as the use of a clip path, has to follow it
            for before, after in (('id="', '"'), ("url(#", ")"), ('href="#', '"')):
                text = text.replace(f"{before}{one}{after}", f"{before}{name}{after}")
        return text

    return _DRAWN.sub(own, html)


def _svg(figure: Figure, width: int) -> "Markup":
    from markupsafe import Markup

    # made by vl-convert, which escapes what labels hold
    return Markup(figure.svg(width))


def _shown(value: Any) -> str:
    """A number of a figure's table: six digits are more than any chart shows."""
    if value is None:
        return "\u2013"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sarm_control.pages"),
        autoescape=True,
        # a name that a template mistypes is an error, and no empty cell in somebody's report
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(draw=render_block, svg=_svg, narrow=NARROW)
    environment.filters["shown"] = _shown
    return environment
