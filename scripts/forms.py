"""Writes the tables of forms into docs/data.md, from the code that reads them.

    python scripts/forms.py [--check]

`--check` says whether the tables in the page are those of today (a test asks the same).
"""

import argparse
import sys
from pathlib import Path

from sarm_control.data import files_table, forms_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "data.md"
_BEGIN = "<!-- {}: python scripts/forms.py writes this table -->\n"
_END = "<!-- end of {} -->\n"
TABLES = {"files": files_table, "forms": forms_table}


def page_of_today() -> str:
    """The page with the tables of today between their marks."""
    page = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        begin, end = _BEGIN.format(name), _END.format(name)
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{table()}\n{end}{after}"
    return page


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
