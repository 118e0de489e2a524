"""Does the interval of a share cover 95 %, also for few prompts? By simulation; the design came first.

A column holds one number from 0 to 1 per prompt; the true mean is known.

Cases (`CASES`): right or wrong with probability .5, .8, .9, .97 and 1; the share of nine comparisons that are
right, whose probability differs from prompt to prompt (beta laws with means .5, .8 and .94); prompts that
are right but for one in twenty, which gets a uniform number. `n` is 3, 5, 10, 20, 50, 200.

Methods: `share_interval` (exact binomial at an effective number of prompts), and beside it `mean_interval`,
which other means have, with the part of its intervals that leaves 0..1.

Bar: in every case and for every n the interval of a share is inside 0..1 and covers in >= .94 of the runs.

    python benchmarks/share_intervals.py [--runs 10000] [--json benchmarks/results/share_intervals.json]
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sarm_control.statistics import mean_intervals, share_intervals

Array = np.ndarray
SIZES = (3, 5, 10, 20, 50, 200)
BAR = 0.94


class Case(NamedTuple):
    """A law of one number from 0 to 1: its mean, and how [n, runs] are drawn."""

    mean: float
    draw: Callable[[np.random.Generator, tuple[int, int]], Array]


def right(share: float) -> Case:
    """1 with a probability, else 0."""
    return Case(share, lambda rng, shape: (rng.random(shape) < share).astype(float))


def of_nine(a: float, b: float) -> Case:
    """The share of nine that are right, each with the prompt's own probability."""
    return Case(a / (a + b), lambda rng, shape: rng.binomial(9, rng.beta(a, b, shape)) / 9)


CASES = {
    **{f"right or wrong {share:g}": right(share) for share in (0.5, 0.8, 0.9, 0.97, 1.0)},
    "nine, .5, far apart": of_nine(0.5, 0.5),
    "nine, .5": of_nine(2, 2),
    "nine, .8": of_nine(8, 2),
    "nine, .94": of_nine(5, 0.3),
    "one in twenty lower": Case(0.975, lambda rng, shape: 1 - (rng.random(shape) < 0.05) * rng.random(shape)),
}


def measure(case: Case, n: int, runs: int, rng: np.random.Generator) -> dict[str, Any]:
    """Coverage, mean width and what leaves 0..1, of both methods on the same columns."""
    columns = case.draw(rng, (n, runs))
    found = {}
    for name, intervals in (("share", share_intervals(columns)), ("mean", mean_intervals(columns))):
        given = np.isfinite(intervals.low)
        low, high = intervals.low[given], intervals.high[given]
        inside = (low <= case.mean + 1e-12) & (case.mean - 1e-12 <= high)
        found[name] = {
            "given": float(given.mean()),
            "coverage": float(inside.mean()) if given.any() else None,
            "width": float((high - low).mean()) if given.any() else None,
            "leaves": float(((low < -1e-12) | (high > 1 + 1e-12)).mean()) if given.any() else None,
        }
    return found


def main() -> None:
    """Runs the simulation, prints its figures, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for place, (name, case) in enumerate(CASES.items()):
        for n in SIZES:
            found = measure(case, n, options.runs, np.random.default_rng([place, n]))
            rows.append({"case": name, "n": n, **found})
    print(f"{'case':<22}{'n':>5}   share: covers  width   mean: given  covers  width  leaves 0..1")
    for row in rows:
        cells = [row["share"]["coverage"], row["share"]["width"]]
        cells += [row["mean"][key] for key in ("given", "coverage", "width", "leaves")]
        shown = "".join(f"{'-' if one is None else format(one, '.3f'):>10}" for one in cells)
        print(f"{row['case']:<22}{row['n']:>5}   {shown}")
    lowest = min(row["share"]["coverage"] for row in rows if row["share"]["coverage"] is not None)
    met = lowest >= BAR and not any(row["share"]["leaves"] for row in rows)
    print(f"lowest coverage {lowest:.3f}: the bar of {BAR:g} is {'met' if met else 'missed'}")
    if options.json:
        result = {"runs": options.runs, "lowest coverage": lowest, "met": met, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
