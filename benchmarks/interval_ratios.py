"""Do 95 % intervals of ratios and of effects at equal length cover? By simulation; the design came first.

Three kinds, as the product uses them:

    carried     share of the lost margin that called latents carry: two means over the same prompts. The
                lost margin of a prompt is exponential; of 30 % or all of the prompts the latents carry a
                uniform share of it, or they carry .4 of it with a Gaussian error of .5.
    rows        the published steering table: the mean over rows, where a prompt has 1 to 3 of them; 58 %,
                10 % or 2 % of the rows change, by an exponential.
    sizes       how far edits move a target, over how far they move the rest: two sets of prompts apart.
                29 % of the target move by an exponential of mean 1, and of the rest 7 % or 20 %.

`n` is 50 and 200 prompts (400 on the side of the rest), which are judged, and 20 for information.

Methods, the simplest first: "linear t" and "linear" for two means over the same prompts, Student's t or
the package's interval of `ratio + (above - ratio below) / mean(below)`; "Fieller" (Student's t, closed
form); "MOVER" for two sets, from the package's intervals of both means; "percentile", the bootstrap that
was used before. No interval is given where the package's interval of a mean gives none, or where fewer than
5 prompts have a numerator other than 0. Bar: coverage >= .93 in each judged case among the runs with an
interval, where these are 2 % of all or more. The simplest that meets the bar is used; where none does, the
one whose lowest coverage is highest. A pilot of 500 runs came between this design and the runs; in it both
Fieller's and MOVER met the bar on sizes. MOVER is used there all the same: it is open above exactly where the
interval of the rest, which stands beside it, holds 0.

Effects at equal length (`discovery.effects.equal_length`, least squares with HC3 errors) stand beside
them: sparse one-sided columns (10 % and 20 %), sparse two-sided, lognormal, and a column that grows with
length, on a Gaussian difference of log lengths of mean .3 and SD .5. "before" are HC3 errors with
Student's t, as they were. A pilot of 2,000 runs gave their least number of prompts apart from the median,
8: .92 there in the worst judged case, lognormal at n = 50; a limit on the skewness, as for means, made
coverage worse.

Runs: 4,000 a case; 999 resamples, the same for 500 runs.

    python benchmarks/interval_ratios.py [--runs 4000] [--json benchmarks/results/intervals.json]
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from intervals import BAR, BLOCK, DRAWS, SEEN, write
from scipy import special
from scipy.sparse import csc_array

from sarm_control.discovery.effects.equal_length import equal_length_effects
from sarm_control.statistics.intervals import Interval
from sarm_control.statistics.ratios import ratio_interval, size_ratio
from sarm_control.study.provenance import processor

Array = np.ndarray
JUDGED, INFORMATION = (50, 200), (20,)
REST = 400
Draw = Callable[[np.random.Generator, int, int], tuple[Array, Array]]


class Case(NamedTuple):
    """A law of two columns: [n, runs] of above and [n or REST, runs] of below, and their true ratio."""

    ratio: float
    draw: Draw
    paired: bool = True


def carried(share: float) -> Case:
    """The latents carry a uniform share of the lost margin, in a share of the prompts."""

    def draw(rng: np.random.Generator, n: int, runs: int) -> tuple[Array, Array]:
        below = -rng.exponential(size=(n, runs))
        return below * (rng.random(below.shape) < share) * rng.random(below.shape), below

    return Case(share / 2, draw)


def carried_with_error(rng: np.random.Generator, n: int, runs: int) -> tuple[Array, Array]:
    """The latents carry .4 of it, and something of their own."""
    below = -rng.exponential(size=(n, runs))
    return 0.4 * below + rng.normal(0, 0.5, below.shape), below


def rows(rate: float) -> Case:
    """Sums over 1 to 3 rows of a prompt, over their number."""

    def draw(rng: np.random.Generator, n: int, runs: int) -> tuple[Array, Array]:
        below = rng.choice([1, 2, 3], p=[0.8, 0.15, 0.05], size=(n, runs)).astype(float)
        above = np.zeros(below.shape)
        for row in (1, 2, 3):
            above += (rng.random(below.shape) < rate) * rng.exponential(size=below.shape) * (below >= row)
        return above, below

    return Case(rate, draw)


def sizes(rate: float) -> Case:
    """Two sets of prompts that move apart."""

    def draw(rng: np.random.Generator, n: int, runs: int) -> tuple[Array, Array]:
        above = (rng.random((n, runs)) < 0.29) * rng.exponential(size=(n, runs))
        below = (rng.random((REST, runs)) < rate) * rng.exponential(size=(REST, runs))
        return above, below

    return Case(0.29 / rate, draw, paired=False)


CASES = {
    "carried, 30 % of prompts": carried(0.3),
    "carried, all prompts": carried(1.0),
    "carried, with an error": Case(0.4, carried_with_error),
    "rows, 58 % change": rows(0.58),
    "rows, 10 % change": rows(0.10),
    "rows, 2 % change": rows(0.02),
    "sizes, 7 % of the rest": sizes(0.07),
    "sizes, 20 % of the rest": sizes(0.20),
}


def linearised(above: Array, below: Array) -> Array:
    """[n, runs] columns whose mean is the ratio."""
    ratio = above.sum(axis=0) / below.sum(axis=0)
    return np.asarray(ratio + (above - ratio * below) / below.mean(axis=0))


def student(columns: Array) -> tuple[Array, Array]:
    """Student's t of columns [n, runs]."""
    half = special.stdtrit(len(columns) - 1, 0.975) * columns.std(axis=0, ddof=1) / np.sqrt(len(columns))
    return columns.mean(axis=0) - half, columns.mean(axis=0) + half


def fieller(above: Array, below: Array, *, paired: bool) -> tuple[Array, Array]:
    """Fieller's interval; everything where the denominator may be 0."""
    a, b = above.mean(axis=0), below.mean(axis=0)
    va, vb = (side.var(axis=0, ddof=1) / len(side) for side in (above, below))
    both = ((above - a) * (below - b)).sum(axis=0) / (len(above) - 1) / len(above) if paired else 0.0
    t = special.stdtrit(min(len(above), len(below)) - 1, 0.975)
    lead, middle, last = b**2 - t**2 * vb, a * b - t**2 * both, a**2 - t**2 * va
    root = np.sqrt(np.maximum(middle**2 - lead * last, 0))
    open_ = lead <= 0
    safe = np.where(open_, 1, lead)
    low, high = (middle - root) / safe, (middle + root) / safe
    return np.where(open_, -np.inf, low), np.where(open_, np.inf, high)


def percentile(above: Array, below: Array, rng: np.random.Generator, *, paired: bool) -> tuple[Array, Array]:
    """The percentile bootstrap; the two sides are resampled together or apart."""
    ends = []
    for start in range(0, above.shape[1], BLOCK):
        some = slice(start, start + BLOCK)
        first = weights(len(above), rng)
        second = first if paired else weights(len(below), rng)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = (above[:, some].T @ first) / (below[:, some].T @ second)
        ends.append(np.nanquantile(drawn, (0.025, 0.975), axis=1, method="nearest"))
    low, high = np.concatenate(ends, axis=1)
    return low, high


def weights(count: int, rng: np.random.Generator) -> Array:
    """[count, draws] how often each prompt is drawn, over count."""
    return np.asarray(rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).T / count)


def methods(
    case: Case, above: Array, below: Array, rng: np.random.Generator
) -> dict[str, tuple[Array, Array]]:
    """[runs] ends by method; the package's own come from its functions, run by run."""
    if case.paired:
        own = [ratio_interval(above[:, r], below[:, r]) for r in range(above.shape[1])]
        found = {"linear t": student(linearised(above, below)), "linear": ends_of(own)}
    else:
        own = [size_ratio(above[:, r], below[:, r]) for r in range(above.shape[1])]
        found = {"MOVER": ends_of(own)}
    return {
        **found,
        "Fieller": fieller(above, below, paired=case.paired),
        "percentile": percentile(above, below, rng, paired=case.paired),
    }


def ends_of(own: Sequence[Interval]) -> tuple[Array, Array]:
    """[runs] ends of intervals."""
    return np.array([one.low for one in own]), np.array([one.high for one in own])


def ratios(runs: int) -> list[dict[str, Any]]:
    """A row for each case, n and method."""
    found: list[dict[str, Any]] = []
    for name, case in CASES.items():
        for n in (*JUDGED, *INFORMATION):
            rng = np.random.default_rng([len(found), 2027])
            above, below = case.draw(rng, n, runs)
            below = np.where(below.sum(axis=0) == 0, 1e-300, below)
            ends = methods(case, above, below, rng)
            given = ~np.isnan(ends["linear" if case.paired else "MOVER"][0])
            for method, (low, high) in ends.items():
                inside = (low <= case.ratio) & (case.ratio <= high)
                seen = given.mean() >= SEEN
                found.append(
                    {
                        "case": name,
                        "n": n,
                        "method": method,
                        "all": float(inside.mean())
                        if method in ("Fieller", "percentile", "linear t")
                        else None,
                        "given": float(given.mean()),
                        "coverage": float(inside[given].mean()) if seen else None,
                        "width": float(np.median((high - low)[given])) if seen else None,
                    }
                )
    return found


def lengths(runs: int) -> Iterator[dict[str, Any]]:
    """Coverage of the effects at equal length: (name, truth, column) by case."""

    def sparse(rng: np.random.Generator, x: Array, rate: float, positive: float) -> Array:
        shape = (len(x), runs)
        sign = np.where(rng.random(shape) < positive, 1.0, -1.0)
        return (rng.random(shape) < rate) * rng.exponential(size=shape) * sign

    laws: dict[str, tuple[float, Callable[[np.random.Generator, Array], Array]]] = {
        "one-sided, 10 %": (0.1, lambda rng, x: sparse(rng, x, 0.1, 1.0)),
        "one-sided, 20 %": (0.2, lambda rng, x: sparse(rng, x, 0.2, 1.0)),
        "two-sided, 10 %": (0.0, lambda rng, x: sparse(rng, x, 0.1, 0.5)),
        "lognormal": (float(np.exp(0.5)), lambda rng, x: rng.lognormal(size=(len(x), runs))),
        "grows with length": (
            1.0,
            lambda rng, x: 2 * x[:, None] + rng.exponential(size=(len(x), runs)),
        ),
    }
    for number, (name, (truth, draw)) in enumerate(laws.items()):
        for n in (*JUDGED, *INFORMATION):
            rng = np.random.default_rng([number, n, 2028])
            x = rng.normal(0.3, 0.5, n)
            columns = csc_array(draw(rng, x))
            found = equal_length_effects(columns, x)
            inside = (found.low <= truth) & (truth <= found.high)
            given = ~np.isnan(found.low)
            share = float(given.mean())
            yield {
                "case": name,
                "n": n,
                "before": plain_hc3(columns.toarray(), x, truth),
                "given": share,
                "coverage": float(inside[given].mean()) if share >= SEEN else None,
            }


def plain_hc3(columns: Array, x: Array, truth: float) -> float:
    """Coverage of least squares with HC3 errors and Student's t, whatever the column."""
    design = np.column_stack([np.ones(len(x)), x])
    pseudo = np.linalg.pinv(design)
    residual = columns - design @ (pseudo @ columns)
    free = 1 - np.einsum("ij,ji->i", design, pseudo)
    error = np.sqrt(((pseudo[0] / free)[:, None] ** 2 * residual**2).sum(axis=0))
    off = np.abs(pseudo[0] @ columns - truth)
    return float((off <= special.stdtrit(len(x) - 2, 0.975) * error).mean())


def main() -> None:
    """Runs the simulation and writes its figures beside those of the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started = time.process_time()
    found, equal = ratios(options.runs), list(lengths(options.runs))
    for row in [*found, *equal]:
        print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}))
    lowest: dict[str, float] = {}
    for row in found:
        if row["n"] in JUDGED and row["coverage"] is not None:
            kind = f"{row['case'].split(',')[0]}: {row['method']}"
            lowest[kind] = min(lowest.get(kind, 1.0), row["coverage"])
    print(json.dumps({"bar": BAR, "lowest": lowest}, indent=1))
    if options.json:
        old = json.loads(options.json.read_text()) if options.json.exists() else {}
        result = {
            "runs": options.runs,
            "lowest": lowest,
            "ratios": found,
            "equal length": equal,
            "machine": processor(),
            "processor seconds": round(time.process_time() - started),
        }
        write(options.json, {**old, "ratios": result})


if __name__ == "__main__":
    main()
