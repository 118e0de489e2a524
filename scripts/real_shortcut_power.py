"""How many seeds the second round needs: power of its primary outcome, from what the first round recorded.

    python scripts/real_shortcut_power.py

The difference of two rates at 1 nat is drawn as in the model of `sarm_control.study.crossed_interval`: a
mean, a part of each seed, a part of each prompt, and a remainder. The mean and the spread over seeds are
those of `controls - none` in the first round, read at 1 nat on straight lines through the start, the stopped
run and the end. The spread over prompts is the one that its interval of `controls - none, stopped` implies;
half of it is taken to be of the prompts themselves. Power is the share of draws whose 95 % interval is below
0.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "real_shortcut.json"
LEVEL, PROMPTS, DRAWS = 1.0, 128, 1000
SEEDS = (3, 4, 5)


class Spread(NamedTuple):
    """What the first round says of a difference of rates at one KL.

    Args:
        by_seed: [S] the difference of each seed.
        prompts: variance of the prompts' means over its three seeds.
    """

    by_seed: tuple[float, ...]
    prompts: float


def recorded(found: dict[str, Any], level: float) -> Spread:
    """`controls - none` at a KL, from the study of the first round."""
    done = [cell for cell in found["cells"] if cell["status"] == "done"]
    cells = {(cell["arm"], cell["seed"]): cell["measures"] for cell in done}
    seeds = sorted({seed for arm, seed in cells if arm == "none"})

    def rate(arms: Sequence[str], seed: int) -> float:
        ends = [(cells[arm, seed]["kl"]["end"], cells[arm, seed]["rate"]["end"]) for arm in arms]
        way = sorted([(0.0, cells[arms[0], seed]["rate"]["start"]), *ends])
        kl, rates = zip(*way, strict=True)
        return float(np.interp(level, kl, rates))

    differences = [rate(["controls"], seed) - rate(["none", "none, stopped"], seed) for seed in seeds]
    against = found["worlds"]["closing"]["measures"]["rate"]
    interval = against["against"]["controls - none, stopped"]
    ends = [against["arms"][arm]["end_by_seed"] for arm in ("controls", "none, stopped")]
    of_seeds = np.subtract(*ends).var(ddof=1) / len(seeds)
    half = (interval["high"] - interval["low"]) / 2
    squares = [float(student.ppf(0.975, count - 1)) ** 2 for count in (len(seeds), interval["prompts"])]
    of_prompts = (half**2 - squares[0] * of_seeds) / squares[1]
    return Spread(tuple(differences), max(of_prompts, 0.0) * interval["prompts"])


def power(
    mean: float, seed_sd: float, prompts: float, seeds: int, *, stuck: float = 0.0, draws: int = DRAWS
) -> float:
    """The share of draws whose interval over seeds and prompts lies below 0.

    Args:
        mean: of the difference.
        seed_sd: SD of its part of a seed.
        prompts: variance of the prompts' means over three seeds.
        seeds: of the study.
        stuck: chance that the other arm of a seed never moves, so that the difference there is 0.
        draws: of whole studies.
    """
    from sarm_control.study import crossed_interval

    rng = np.random.default_rng(0)
    # of the prompts' means over three seeds half is the prompts' own part, half a third of the remainder
    own, rest = np.sqrt(prompts / 2), np.sqrt(3 * prompts / 2)
    hits = 0
    for _ in range(draws):
        level = (mean + seed_sd * rng.standard_normal(seeds)) * (rng.random(seeds) >= stuck)
        table: NDArray[np.float64] = (
            level[:, None] + own * rng.standard_normal(PROMPTS) + rest * rng.standard_normal((seeds, PROMPTS))
        )
        hits += crossed_interval(table).below_zero
    return hits / draws


def power_text(spread: Spread) -> str:
    """Markdown: a row for each supposition, a column for each number of seeds."""
    mean, sd = float(np.mean(spread.by_seed)), float(np.std(spread.by_seed, ddof=1))
    rows = [
        ("as in the first round", mean, sd, 0.0),
        ("half the difference", mean / 2, sd, 0.0),
        ("twice the spread over seeds", mean, 2 * sd, 0.0),
        ("half the difference, twice the spread", mean / 2, 2 * sd, 0.0),
        ("in one seed of five no difference", mean, sd, 0.2),
        ("no difference at all", 0.0, sd, 0.0),
    ]
    lines = [
        f"At {LEVEL:g} nat, controls - none by seed: "
        + ", ".join(f"{one:+.2f}" for one in spread.by_seed)
        + f"; mean {mean:+.2f}, SD {sd:.2f}; SD over prompts {np.sqrt(spread.prompts):.2f}.",
        "",
        "| supposed | " + " | ".join(f"{count} seeds" for count in SEEDS) + " |",
        "| --- " * (len(SEEDS) + 1) + "|",
    ]
    for name, level, over, stuck in rows:
        cells = [f"{power(level, over, spread.prompts, count, stuck=stuck):.2f}" for count in SEEDS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    study = json.loads(RESULTS.read_text(encoding="utf-8"))["study"]
    print(power_text(recorded(study, LEVEL)))
