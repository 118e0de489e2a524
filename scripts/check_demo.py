"""Whether a demo kept its promise: controls that end with more gold than no control.

python scripts/check_demo.py runs/demo/demo.json
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Says the figures, and exits with 1 where the promise is broken."""
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    none, controls = (found["arms"][name]["gold_end"] for name in ("none", "controls"))
    print(f"demo: {found['seconds']} s, gold {controls:+.3f} with controls, {none:+.3f} without")
    if controls <= none:
        sys.exit("demo: the controls did not hold the reward hacking")


if __name__ == "__main__":
    main()
