"""Markdown in an answer, counted by a CommonMark parser.

A regular expression would count `*` in `2 * 3` as emphasis and a dash in a code block as a bullet.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from sarm_control.extras import import_extra


class Structure(NamedTuple):
    """How many of each an answer has.

    Args:
        headers: headings of any level.
        bullets: items of bulleted lists.
        numbered: items of numbered lists.
        bold: bold spans.
        tables: tables.
        code_blocks: fenced or indented blocks of code.
        quotes: block quotes.
        links: links written as Markdown; bare addresses are not among them.
    """

    headers: int = 0
    bullets: int = 0
    numbered: int = 0
    bold: int = 0
    tables: int = 0
    code_blocks: int = 0
    quotes: int = 0
    links: int = 0


_OPENINGS = {
    "heading_open": "headers",
    "strong_open": "bold",
    "table_open": "tables",
    "fence": "code_blocks",
    "code_block": "code_blocks",
    "blockquote_open": "quotes",
    "link_open": "links",
}


@lru_cache(maxsize=4096)  # eight attributes read the same answer one after the other
def structure(answer: str) -> Structure:
    """The Markdown of an answer.

    Raises:
        MissingExtraError: markdown-it-py is not installed.
    """
    counts = dict.fromkeys(Structure._fields, 0)
    # the lists that are open, the innermost last: an item belongs to that one
    lists: list[str] = []
    for token in _tokens(answer):
        name = _OPENINGS.get(token.type)
        if name is not None:
            counts[name] += 1
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            lists.append("bullets" if token.type == "bullet_list_open" else "numbered")
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            lists.pop()
        elif token.type == "list_item_open":
            counts[lists[-1]] += 1
    return Structure(**counts)


def plain(answer: str) -> str:
    """The words of an answer without the marks of headings, lists, emphasis and links."""
    parts = []
    for token in _tokens(answer):
        if token.type in ("text", "code_inline", "fence", "code_block"):
            parts.append(token.content)
        elif token.type in (
            "softbreak",
            "hardbreak",
            "paragraph_close",
            "heading_close",
            "td_close",
            "th_close",
        ):
            # or the last word of one block and the first of the next would be one
            parts.append("\n")
    return "".join(parts).strip()


@lru_cache(maxsize=1)
def _parser() -> Any:
    markdown_it = import_extra("markdown_it", "audit", needed="counting Markdown needs markdown-it-py")
    # CommonMark itself has no tables; what nests deeper than any answer does is read as text
    return markdown_it.MarkdownIt("commonmark", {"maxNesting": 40}).enable("table")


@lru_cache(maxsize=512)
def _tokens(answer: str) -> list[Any]:
    """The parser's tokens, those inside of lines included, in the order of the text."""
    flat = []
    for token in _parser().parse(answer):
        flat.append(token)
        flat.extend(token.children or ())
    return flat
