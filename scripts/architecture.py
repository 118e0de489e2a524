"""Draws docs/architecture.svg: the rooms of the package in the order in which data flows, and their imports.

    python scripts/architecture.py [--check]

Read from the source files, so that the picture cannot grow old: `--check` says whether the file in docs/ is
what the imports of today give (a test asks the same).
"""

import argparse
import ast
import html
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sarm_control"
PICTURE = ROOT / "docs" / "architecture.svg"

_ORDER = (
    "data", "conversation", "reward_model", "latents", "statistics", "charts", "pages", "control",
    "discovery", "training", "evaluation", "comparison", "auditing", "build",
    "attaching", "lab", "study", "planning", "report", "engines", "server", "explorer", "publishing", "cli",
)  # fmt: skip
"""In the order in which data flows, without the ground (errors, files, seeds, ...) that all stand on."""

ROOMS = tuple(room for room in _ORDER if (PACKAGE / room / "__init__.py").exists())

ROW, TOP, BOX, WIDTH = 46, 20, 430, 760

STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328; }
  .what { font-size: 12px; fill: #57606a; }
  rect { fill: #f6f8fa; stroke: #d0d7de; }
  path { fill: none; stroke: #0969da; stroke-opacity: .45; }
  .head { fill: #0969da; fill-opacity: .7; stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .what { fill: #9198a1; }
    rect { fill: #161b22; stroke: #30363d; }
    path { stroke: #58a6ff; } .head { fill: #58a6ff; }
  }
"""


def imports() -> Counter[tuple[str, str]]:
    """(importing room, imported room) and how many import statements say so."""
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sarm_control."):
                other = str(node.module).split(".")[1]
                if own != other and own in ROOMS and other in ROOMS:
                    found[own, other] += 1
    return found


def purpose(room: str) -> str:
    """The first line of the room's docstring."""
    source = (PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0].replace("`", "")


def drawing() -> str:
    """The picture as SVG text."""
    place = {room: TOP + ROW * n for n, room in enumerate(ROOMS)}
    parts = []
    for (own, other), count in sorted(imports().items()):
        start, end = place[own] + 14, place[other] + 26
        bend = BOX + 24 + 0.44 * (start - end)
        stroke = min(4.0, 0.8 + 0.25 * count)
        parts.append(
            f'<path d="M{BOX} {start} C{bend:.0f} {start} {bend:.0f} {end} {BOX + 7} {end}" '
            f'stroke-width="{stroke:.1f}"><title>{own} imports {other} ({count})</title></path>'
            f'<path class="head" d="M{BOX} {end} l8 -4 v8 z"/>'
        )
    for room in ROOMS:
        top = place[room]
        parts.append(
            f'<rect x="10" y="{top}" width="{BOX - 10}" height="{ROW - 6}" rx="5"/>'
            f'<text x="22" y="{top + 17}" font-weight="600">{room}</text>'
            f'<text x="22" y="{top + 33}" class="what">{html.escape(purpose(room))}</text>'
        )
    height = TOP + ROW * len(ROOMS) + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The rooms of the package; arrows point from a room to what it imports">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def main() -> None:
    """Writes the picture, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when docs/architecture.svg is another")
    if parser.parse_args().check:
        sys.exit(0 if PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == drawing() else 1)
    PICTURE.write_text(drawing(), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
