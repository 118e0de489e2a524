"""Writes the table of forms into docs/data.md, from the code that reads them.

    python scripts/forms.py [--check]

`--check` says whether the table in the page is that of today (a test asks the same).
"""

import argparse
import sys
from pathlib import Path

from sarm_control.data import forms_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "data.md"
BEGIN, END = "<!-- forms: python scripts/forms.py writes this table -->\n", "<!-- end of forms -->\n"


def page_of_today() -> str:
    """The page with the table of today between its marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{forms_table()}\n{END}{after}"


def main() -> int:
    """Writes the page, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 when it is old")
    if not parser.parse_args().check:
        PAGE.write_text(page_of_today(), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(PAGE.parents[1])}")
        return 0
    return int(page_of_today() != PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
