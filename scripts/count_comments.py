"""Counts the words of comments in each room of the package, beside the tokens of its code.

    python scripts/count_comments.py [FOLDER] [--files]

A word is a piece of a `#` comment between spaces that holds a letter or a digit. Marks for tools (`noqa`,
`type:`, `fmt:`, `pragma`, `mypy:`, `ruff:`, `pyright:`, `isort:`) are no comments; a reason behind a second
`#` of the same line is one. Lines that only separate (`# ----`) have no words. A token is what the standard
library's `tokenize` gives, without comments, docstrings (of modules, classes, functions and attributes),
line ends and indents; an f-string is one token on every version of Python. A room is a top-level folder, and
the files beside the folders are `(ground)`. `--files` has a line for each file.
"""

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from sarm_control.console import aligned

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "sarm_control"
GROUND = "(ground)"
_MARK = re.compile(r"^#+\s*(noqa|type:|fmt:|pragma|mypy:|ruff:|pyright:|isort:)[^#]*")
_LAYOUT = {
    *(tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}
_FSTRING_START = getattr(tokenize, "FSTRING_START", -1)
_FSTRING_END = getattr(tokenize, "FSTRING_END", -1)


class Counts(NamedTuple):
    """Words in comments and tokens of code."""

    words: int
    tokens: int

    @property
    def share(self) -> float:
        """Words per 100 tokens; 0 without tokens."""
        return 100 * self.words / self.tokens if self.tokens else 0.0


def of_source(source: str) -> Counts:
    """The counts of one file's text.

    Raises:
        SyntaxError: when it is no Python.
    """
    docstrings = {
        (node.lineno, node.col_offset)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    words = tokens = inside = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = _MARK.sub("", token.string)
            words += sum(any(map(str.isalnum, piece)) for piece in text.split())
        elif token.type not in _LAYOUT and token.start not in docstrings:
            # since Python 3.12 an f-string comes in pieces, and may hold others
            tokens += not inside
            inside += (token.type == _FSTRING_START) - (token.type == _FSTRING_END)
    return Counts(words, tokens)


def table(counts: dict[str, Counts], what: str) -> list[str]:
    """Lines of the table, the thinnest share first, the total last."""
    total = Counts(sum(c.words for c in counts.values()), sum(c.tokens for c in counts.values()))
    ranked = sorted(counts.items(), key=lambda item: item[1].share)
    rows = [
        (name, f"{c.words:,}", f"{c.tokens:,}", f"{c.share:.2f}") for name, c in [*ranked, ("total", total)]
    ]
    return list(aligned([(what, "words", "tokens", "words per 100 tokens"), *rows], left=1))


def main() -> None:
    """Prints the table of a package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE, help="by default, the package")
    parser.add_argument("--files", action="store_true", help="a line for each file, not for each room")
    options = parser.parse_args()
    words: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for path in sorted(options.folder.rglob("*.py")):
        place = path.relative_to(options.folder)
        room = place.parts[0] if len(place.parts) > 1 else GROUND
        name = place.as_posix() if options.files else room
        counts = of_source(path.read_text(encoding="utf-8"))
        words[name] += counts.words
        tokens[name] += counts.tokens
    what = "file" if options.files else "room"
    print("\n".join(table({name: Counts(words[name], tokens[name]) for name in tokens}, what)))


if __name__ == "__main__":
    main()
