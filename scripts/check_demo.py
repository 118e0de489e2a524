"""Whether a demo kept its promises: its time, and controls that end with more gold than no control.

python scripts/check_demo.py runs/demo/demo.json
"""

import json
import sys
from pathlib import Path
from typing import Any

SECONDS = 240
"""Of `sarm demo` on two cores."""


def problems(found: dict[str, Any]) -> list[str]:
    """What of a demo's JSON is not as promised, a line each."""
    none, controls = (found["arms"][name]["gold_end"] for name in ("none", "controls"))
    said = []
    if found["seconds"] > SECONDS:
        said.append(f"took {found['seconds']} s, more than {SECONDS}")
    if controls <= none:
        said.append(f"gold ends at {controls:+.3f} with controls and {none:+.3f} without")
    return said


def main() -> None:
    """Exits with 1 and the problems, or says the figures."""
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    said = problems(found)
    if said:
        sys.exit("\n".join(f"demo: {one}" for one in said))
    none, controls = (found["arms"][name]["gold_end"] for name in ("none", "controls"))
    print(f"demo: {found['seconds']} s, gold {controls:+.3f} with controls, {none:+.3f} without")


if __name__ == "__main__":
    main()
