"""Pages: one offline HTML file each, with one look, made of blocks.

In: a `Page` of plain data and figures. Out: HTML that loads nothing, runs nothing, and can be read on a
screen, on a telephone, in the dark, on paper, and by a screen reader.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.pages.blocks import (
        Answer,
        Block,
        Code,
        Drawing,
        Facts,
        Light,
        Lights,
        More,
        Page,
        Panels,
        Payment,
        Prose,
        Section,
        SideBySide,
        Tile,
        TokenLine,
        TokenValue,
    )
    from sarm_control.pages.rendering import figures_of, render_block, render_page, with_suffix, write_page
    from sarm_control.pages.style import security_policy, style_sheet
    from sarm_control.pages.tables import (
        Cell,
        Number,
        Table,
        TableRow,
        interval_cell,
        number,
        text_cell,
    )

_HOME_OF = {
    "Answer": "blocks",
    "Block": "blocks",
    "Cell": "tables",
    "Code": "blocks",
    "Drawing": "blocks",
    "Facts": "blocks",
    "Light": "blocks",
    "Lights": "blocks",
    "More": "blocks",
    "Number": "tables",
    "Page": "blocks",
    "Panels": "blocks",
    "Payment": "blocks",
    "Prose": "blocks",
    "Section": "blocks",
    "SideBySide": "blocks",
    "Table": "tables",
    "TableRow": "tables",
    "Tile": "blocks",
    "TokenLine": "blocks",
    "TokenValue": "blocks",
    "figures_of": "rendering",
    "interval_cell": "tables",
    "number": "tables",
    "render_block": "rendering",
    "render_page": "rendering",
    "security_policy": "style",
    "style_sheet": "style",
    "text_cell": "tables",
    "with_suffix": "rendering",
    "write_page": "rendering",
}

__all__ = [
    "Answer",
    "Block",
    "Cell",
    "Code",
    "Drawing",
    "Facts",
    "Light",
    "Lights",
    "More",
    "Number",
    "Page",
    "Panels",
    "Payment",
    "Prose",
    "Section",
    "SideBySide",
    "Table",
    "TableRow",
    "Tile",
    "TokenLine",
    "TokenValue",
    "figures_of",
    "interval_cell",
    "number",
    "render_block",
    "render_page",
    "security_policy",
    "style_sheet",
    "text_cell",
    "with_suffix",
    "write_page",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
