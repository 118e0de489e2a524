"""A measure of a study as a Markdown table: a row for each world, and one over worlds.

    python benchmarks/study_table.py benchmarks/results/lab_ten.json [--measure gold]

The columns are every arm's change from the start, then every comparison of two arms. In a world intervals are
over seeds and prompts; the last row has those over worlds, each world one value.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sarm_control.study.tables import bracket


def table(found: Mapping[str, Any], measure: str) -> str:
    """Markdown.

    Args:
        found: a `study.json` of worlds that are pooled.
        measure: such as `gold`.

    Raises:
        SystemExit: the study has no such measure, or no row over worlds.
    """
    worlds = {
        name: world["measures"][measure]
        for name, world in found["worlds"].items()
        if measure in world["measures"]
    }
    over = (found["over_worlds"] or {}).get(measure)
    if not worlds or over is None:
        raise SystemExit(f"the study has no {measure} over worlds")
    arms = [arm for arm, change in over["change"].items() if change is not None]
    pairs = [pair for pair, change in over["against"].items() if change is not None]
    lines = [f"| world | {' | '.join([*arms, *pairs])} |", "| --- " * (1 + len(arms) + len(pairs)) + "|"]
    for name, one in worlds.items():
        changes = [one["arms"].get(arm, {}).get("change") for arm in arms]
        lines.append(_row(name, [*changes, *(one["against"].get(pair) for pair in pairs)]))
    whole = [*(over["change"][arm] for arm in arms), *(over["against"][pair] for pair in pairs)]
    return "\n".join([*lines, _row(f"over {len(worlds)} worlds", whole)])


def _row(name: str, values: list[Mapping[str, Any] | None]) -> str:
    return f"| {name} | {' | '.join(map(bracket, values))} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--measure", default="gold")
    given = parser.parse_args()
    print(table(json.loads(given.study.read_text(encoding="utf-8")), given.measure))


if __name__ == "__main__":
    main()
