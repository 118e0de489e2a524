"""From a page's data to HTML, by templates that escape every value."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarm_control.charts import NARROW, Figure, can_draw
from sarm_control.files import write_text
from sarm_control.pages.blocks import Block, Drawing, More, Page, Panels
from sarm_control.pages.style import security_policy, style_sheet

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render_page(page: Page) -> str:
    """The whole page as HTML.

    Charts need the extra `report`; without it their numbers stand in tables, and the page says so.
    """
    style = style_sheet()
    html = (
        _environment()
        .get_template("page.html")
        .render(page=page, style=style, policy=security_policy(style), drawn=can_draw())
    )
    return html + "\n"


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
    """Every figure of a page, in order."""
    blocks: list[Block] = [page.hero] if page.hero else []
    blocks += [block for section in page.sections for block in section.blocks]
    return [drawing.figure for drawing in _drawings(blocks)]


def _drawings(blocks: Sequence[Block]) -> Iterator[Drawing]:
    for block in blocks:
        if isinstance(block, Drawing):
            yield block
        elif isinstance(block, Panels):
            yield from block.drawings
        elif isinstance(block, More):
            yield from _drawings(block.blocks)


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
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(draw=render_block, svg=_svg, narrow=NARROW)
    environment.filters["shown"] = _shown
    return environment
