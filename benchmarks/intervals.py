"""Which 95 % interval for a mean over prompts covers 95 %, by simulation; the design came before the runs.

A column holds one number per prompt; `n` independent prompts, true mean known in closed form.

Cases (`CASES`): sparse one-sided, firing in 4, 10 or 20 % of prompts with exponential sizes; sparse
two-sided, firing in 10 % with a random sign, and with one sign four times as frequent; skewed, exponential
and lognormal (sigma 1); heavy-tailed, Student with 3 degrees of freedom; dense Gaussian; an accuracy of
.5, .8, .9 and .97 (0 or 1); changes of right and wrong (-1, 0, 1) with 10 % up and 2 % down, and 4 % up
and none down; nearly constant, 1 in 95 % of prompts and 1 + N(.5, 1) in the others. `n` is 50 and 200,
which are judged, and 20 and 1,000 for information.

Methods (`METHODS`, the simplest first):

    t          mean +- t s / sqrt n
    t wide     t with its quantile longer by z (z^4 + 2 z^2 - 3) / 18 skewness^2 / n, z = 1.96, the skewness
               term of the symmetric interval of second order (Hall 1988)
    t long     t, its end on the side of the long tail moved by Johnson's term, skewness s (1/6 + t^2/3) / n
    t long 1.5 the same, 1.5 times as far
    t half     "t wide" with half its term, and the long side of "t long"
    t both     "t wide" and the long side of "t long"
    johnson    Johnson's t (1978): the mean is moved by skewness s / (6 n) + skewness s t^2 / (3 n)
    hall       Hall's cubic transformation (1992), normal quantiles: closed form, monotone
    hall t     the same with Student's quantiles
    hall G1    the same with Student's quantiles and the unbiased skewness, sqrt(n (n - 1)) / (n - 2) as large
    hall 1.5   the same with 1.5 times the sample's skewness, which is too small on average in skewed data
    el         empirical likelihood (Owen 1988), limit of F(1, n - 1)
    ael        adjusted empirical likelihood (Chen, Variyath and Abraham 2008), a = max(1, log(n) / 2)
    bca        BCa bootstrap (Efron 1987), what was used before
    boot t sym studentised bootstrap, quantiles of |T|
    boot t     studentised bootstrap, equal tails

Rule. No method covers where two prompts of fifty are not 0, so an interval is given only where the data
holds enough: `K`, the number of prompts that differ from the column's median (in a sparse column those that
are not 0; of right and wrong the rarer), is at least K0, and the skewness of the mean as estimated,
|sum d^3| / (sum d^2)^1.5, is at most A0. K0 is one of 2, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30 and 40; A0 one of
.2, .3, .4, .5, .7 and none.

Bar: in every case at n = 50 and 200 the interval covers the mean in >= .93 of the runs in which it is
given. Cases where it is given in fewer than 2 % of the runs (200 of 10,000) have no figure and are passed.

Choice. For each method the pair (K0, A0) that meets the bar and gives intervals in the largest share of
the runs, averaged over the cases and both n (of equals the smaller K0, then the larger A0). A method
whose median width, where intervals are given and t's are finite, is above 1.6 times that of t in any case
is out: it covers by being wide. Of the methods left, those within .03 of the largest share; of these the
simplest. If nothing meets the bar, the file says so and nothing is chosen.

A pilot of 400 runs with other seeds came between this design and the runs. In it t failed on one-sided
columns, all forms of Hall's and Johnson's on two-sided and heavy-tailed ones (the sample's skewness is noise
there and shortens an end), and the symmetric bootstrap t was the best. So the five closed forms from
"t wide" to "t both", which only ever lengthen t, were added, with pilots of their own, and 6 and 7 to the
values of K0. Cases, bar and choice stayed as they were.

Runs: 10,000 a case and n, 2,000 at n = 1,000; 999 resamples, drawn anew for every 500 runs. ael is slow:
2,000 runs a case. Then ratios (`interval_ratios.py`) are simulated with the method that was chosen.

    python benchmarks/intervals.py [--runs 10000] [--json benchmarks/results/intervals.json]
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from sarm_control.study.provenance import processor

Array = np.ndarray
JUDGED, INFORMATION = (50, 200), (20, 1000)
LEAST = (2, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40)
MOST_SKEWED = (0.2, 0.3, 0.4, 0.5, 0.7, np.inf)
BAR, SEEN, WIDEST, AS_MANY = 0.93, 0.02, 1.6, 0.03
DRAWS, BLOCK, AEL_RUNS, WIDTH_RUNS = 999, 500, 2000, 200


class Case(NamedTuple):
    """A law of one number per prompt: its mean, and how [runs, n] are drawn."""

    mean: float
    draw: Callable[[np.random.Generator, tuple[int, int]], Array]


class Ends(NamedTuple):
    """[runs] each: whether the true mean is inside, and the widths (NaN where not computed)."""

    covers: Array
    width: Array


def sparse(rate: float, positive: float = 1.0) -> Case:
    """Fires at a rate with exponential sizes, positive at a probability."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        sign = np.where(rng.random(shape) < positive, 1.0, -1.0)
        return (rng.random(shape) < rate) * rng.exponential(size=shape) * sign

    return Case(rate * (2 * positive - 1), draw)


def three_valued(up: float, down: float) -> Case:
    """1 at one rate, -1 at another, else 0."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        u = rng.random(shape)
        return (u < up).astype(float) - (u > 1 - down)

    return Case(up - down, draw)


CASES: dict[str, Case] = {
    "one-sided, 4 %": sparse(0.04),
    "one-sided, 10 %": sparse(0.10),
    "one-sided, 20 %": sparse(0.20),
    "two-sided, 10 %": sparse(0.10, 0.5),
    "two-sided 4:1, 10 %": sparse(0.10, 0.8),
    "exponential": Case(1.0, lambda rng, shape: rng.exponential(size=shape)),
    "lognormal": Case(float(np.exp(0.5)), lambda rng, shape: rng.lognormal(size=shape)),
    "Student 3": Case(0.0, lambda rng, shape: rng.standard_t(3, size=shape)),
    "Gaussian": Case(0.0, lambda rng, shape: rng.normal(size=shape)),
    "accuracy .5": three_valued(0.5, 0.0),
    "accuracy .8": three_valued(0.8, 0.0),
    "accuracy .9": three_valued(0.9, 0.0),
    "accuracy .97": three_valued(0.97, 0.0),
    "changes 10 %, -2 %": three_valued(0.10, 0.02),
    "changes 4 %": three_valued(0.04, 0.0),
    "nearly constant": Case(
        1.025, lambda rng, shape: 1 + (rng.random(shape) < 0.05) * rng.normal(0.5, 1, shape)
    ),
}


class Moments(NamedTuple):
    """[runs] each: mean, its standard error, skewness of a value; and n."""

    mean: Array
    error: Array
    skewness: Array
    n: int


def moments(x: Array) -> Moments:
    """Of the rows of x [runs, n]."""
    n = x.shape[1]
    d = x - x.mean(axis=1, keepdims=True)
    second = (d**2).mean(axis=1)
    used = second > 1e-20
    skewness = np.where(used, (d**3).mean(axis=1) / np.where(used, second, 1) ** 1.5, 0)
    return Moments(x.mean(axis=1), np.sqrt(second / (n - 1)), skewness, n)


def between(low: Array, high: Array, mean: float) -> Ends:
    """The intervals as what is judged; a little slack for rounding."""
    return Ends((low <= mean + 1e-12) & (mean - 1e-12 <= high), high - low)


def student(m: Moments, mean: float) -> Ends:
    """Student's t."""
    half = special.stdtrit(m.n - 1, 0.975) * m.error
    return between(m.mean - half, m.mean + half, mean)


def lengthened(m: Moments, mean: float, wide: float, long: float) -> Ends:
    """Student's t made longer on both sides, and once more on the side of the long tail."""
    t = special.stdtrit(m.n - 1, 0.975)
    a = m.skewness / np.sqrt(m.n)
    z = special.ndtri(0.975)
    half = t + wide * z * (z**4 + 2 * z**2 - 3) / 18 * a**2
    tail = long * a * (1 / 6 + t**2 / 3)
    low, high = half - np.minimum(tail, 0), half + np.maximum(tail, 0)
    return between(m.mean - low * m.error, m.mean + high * m.error, mean)


def johnson(m: Moments, mean: float) -> Ends:
    """Johnson's modified t, its ends to first order in the skewness."""
    t = special.stdtrit(m.n - 1, 0.975)
    centre = m.mean + m.skewness * m.error * (1 / 6 + t**2 / 3) / np.sqrt(m.n)
    return between(centre - t * m.error, centre + t * m.error, mean)


def hall(m: Moments, mean: float, *, quantile: float | None = None, factor: float = 1.0) -> Ends:
    """Hall's transformation g(T) = T + a T^2 / 3 + a^2 T^3 / 27 + a / 6, a = skewness / sqrt n, inverted."""
    q = special.stdtrit(m.n - 1, 0.975) if quantile is None else quantile
    a = factor * m.skewness / np.sqrt(m.n)
    a = np.where(np.abs(a) < 1e-6, 1e-6, a)
    turned = [3 / a * (np.cbrt(1 + a * (side * q - a / 6)) - 1) for side in (1, -1)]
    return between(m.mean - turned[0] * m.error, m.mean - turned[1] * m.error, mean)


def empirical(x: Array, mean: float) -> Ends:
    """Empirical likelihood: weights 1 / (n (1 + t d)) renormalised run through all means as t does."""
    n = x.shape[1]
    limit = stats.f.ppf(0.95, 1, n - 1)
    d = x - x.mean(axis=1, keepdims=True)
    ends = []
    for side in (-1.0, 1.0):
        reach = np.maximum((side * -1 * d).max(axis=1), 1e-300)  # 1 - side t d stays positive below 1 / max
        low, high = np.zeros(len(x)), np.ones(len(x))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            for _ in range(40):
                share = (low + high) / 2
                weight = 1 / (1 + (share / reach)[:, None] * side * d)
                weight /= weight.sum(axis=1, keepdims=True)
                far = ~(-2 * np.log(n * weight).sum(axis=1) < limit)
                low, high = np.where(far, low, share), np.where(far, share, high)
        weight = 1 / (1 + (low / reach)[:, None] * side * d)
        ends.append(x.mean(axis=1) + (weight * d).sum(axis=1) / weight.sum(axis=1))
    return between(np.minimum(*ends), np.maximum(*ends), mean)


def adjusted_ratio(x: Array, mean: Array) -> Array:
    """[runs] -2 log of the adjusted empirical likelihood ratio at means [runs]."""
    n = x.shape[1]
    d = x - mean[:, None]
    d = np.hstack([d, -max(1.0, np.log(n) / 2) * d.mean(axis=1, keepdims=True)])
    low = -1 / np.maximum(d.max(axis=1), 1e-300)
    high = -1 / np.minimum(d.min(axis=1), -1e-300)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for _ in range(50):
            t = (low + high) / 2
            positive = (d / (1 + t[:, None] * d)).sum(axis=1) > 0
            low, high = np.where(positive, t, low), np.where(positive, high, t)
        found = 2 * np.log1p(low[:, None] * d).sum(axis=1)
    return np.where((d == 0).all(axis=1), 0, np.nan_to_num(found, nan=np.inf))


def adjusted(x: Array, mean: float) -> Ends:
    """Adjusted empirical likelihood; widths of the first runs only, the others are NaN."""
    limit = stats.f.ppf(0.95, 1, x.shape[1] - 1)
    covers, width = np.full(len(x), np.nan), np.full(len(x), np.nan)
    tested = x[:AEL_RUNS]
    covers[: len(tested)] = adjusted_ratio(tested, np.full(len(tested), mean)) <= limit
    few = x[:WIDTH_RUNS]
    m = moments(few)
    ends = []
    for side in (-1.0, 1.0):
        low, high = np.zeros(len(few)), np.full(len(few), 12.0)
        for _ in range(25):
            middle = (low + high) / 2
            far = adjusted_ratio(few, m.mean + side * middle * m.error) > limit
            low, high = np.where(far, low, middle), np.where(far, middle, high)
        ends.append(side * low * m.error)
    width[: len(few)] = ends[1] - ends[0]
    return Ends(covers, width)


def resampled(x: Array, mean: float, rng: np.random.Generator) -> dict[str, Ends]:
    """The three bootstrap methods, from the same resamples."""
    parts: dict[str, list[Ends]] = {"bca": [], "boot t sym": [], "boot t": []}
    n = x.shape[1]
    for start in range(0, len(x), BLOCK):
        own = x[start : start + BLOCK]
        weights = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS).T / n
        means, squares = own @ weights, own**2 @ weights
        m = moments(own)
        parts["bca"].append(bca(m, means, mean))
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.sqrt(np.maximum(squares - means**2, 0) / (n - 1))
            flat = spread <= 1e-9 * m.error[:, None]
            off = means - m.mean[:, None]
            far = np.where(np.abs(off) < 1e-12, 0.0, np.sign(off) * np.inf)
            t = np.where(flat, far, off / np.where(flat, 1, spread))
        size = np.sort(np.abs(t), axis=1)[:, int(0.95 * (DRAWS + 1)) - 1]
        ordered = np.sort(t, axis=1)
        low, high = ordered[:, int(0.975 * (DRAWS + 1)) - 1], ordered[:, int(0.025 * (DRAWS + 1)) - 1]
        with np.errstate(invalid="ignore"):
            left, right = np.nan_to_num([m.mean - size * m.error, m.mean + size * m.error], nan=0)
            parts["boot t sym"].append(between(left, right, mean))
            left, right = np.nan_to_num(
                [m.mean - low * m.error, m.mean - high * m.error], nan=0, posinf=np.inf, neginf=-np.inf
            )
            parts["boot t"].append(between(left, right, mean))
    return {name: Ends(*map(np.concatenate, zip(*of, strict=True))) for name, of in parts.items()}


def bca(m: Moments, means: Array, mean: float) -> Ends:
    """BCa from resampled means [runs, draws]."""
    ordered = np.sort(means, axis=1)
    slack = 1e-12 * np.abs(ordered[:, [0, -1]]).max(axis=1, keepdims=True)
    below = (ordered < m.mean[:, None] - slack).mean(axis=1)
    share = (below + (ordered <= m.mean[:, None] + slack).mean(axis=1)) / 2
    bias = special.ndtri(np.clip(share, 0.5 / DRAWS, 1 - 0.5 / DRAWS))
    acceleration = m.skewness / (6 * np.sqrt(m.n))
    ends = []
    for tail in (0.025, 0.975):
        shifted = bias + special.ndtri(tail)
        place = special.ndtr(bias + shifted / (1 - acceleration * shifted)) * (DRAWS - 1)
        ends.append(ordered[np.arange(len(ordered)), np.rint(place).astype(int)])
    return between(ends[0], ends[1], mean)


METHODS = (
    *("t", "t wide", "t long", "t long 1.5", "t half", "t both", "johnson", "hall", "hall t", "hall G1"),
    *("hall 1.5", "el", "ael", "bca", "boot t sym", "boot t"),
)


def all_methods(x: Array, mean: float, rng: np.random.Generator) -> dict[str, Ends]:
    """Every method on the rows of x [runs, n]."""
    m, n = moments(x), x.shape[1]
    found = {
        "t": student(m, mean),
        "t wide": lengthened(m, mean, 1, 0),
        "t long": lengthened(m, mean, 0, 1),
        "t long 1.5": lengthened(m, mean, 0, 1.5),
        "t half": lengthened(m, mean, 0.5, 1),
        "t both": lengthened(m, mean, 1, 1),
        "johnson": johnson(m, mean),
        "hall": hall(m, mean, quantile=float(special.ndtri(0.975))),
        "hall t": hall(m, mean),
        "hall G1": hall(m, mean, factor=np.sqrt(n * (n - 1)) / (n - 2)),
        "hall 1.5": hall(m, mean, factor=1.5),
        "el": empirical(x, mean),
        "ael": adjusted(x, mean),
        **resampled(x, mean, rng),
    }
    return {name: found[name] for name in METHODS}


class Simulated(NamedTuple):
    """One case at one n: what the rule looks at, [runs] each, and every method's intervals."""

    apart: Array
    skewed: Array
    ends: dict[str, Ends]


def simulate(case: Case, n: int, runs: int, rng: np.random.Generator) -> Simulated:
    """Draws the runs and computes all intervals."""
    x = case.draw(rng, (runs, n))
    apart = (x != np.median(x, axis=1, keepdims=True)).sum(axis=1)
    return Simulated(apart, np.abs(moments(x).skewness) / np.sqrt(n), all_methods(x, case.mean, rng))


def judged(one: Simulated, method: str, least: int, skewed: float) -> dict[str, float | None]:
    """Share of runs with an interval, its coverage there, its median width and that over t's."""
    ends, known = one.ends[method], np.isfinite(one.ends[method].covers)
    rule = (one.apart >= least) & (one.skewed <= skewed)
    given = rule & known
    share = float(rule.mean())
    if share < SEEN or not given.any():
        return {"given": share, "coverage": None, "width": None, "of t": None}
    measured = given & ~np.isnan(ends.width) & (one.ends["t"].width > 0)
    width = float(np.median(ends.width[measured])) if measured.any() else None
    ratio = ends.width[measured] / one.ends["t"].width[measured]
    return {
        "given": share,
        "coverage": float(ends.covers[given].mean()),
        "width": width,
        "of t": float(np.median(ratio)) if measured.any() else None,
    }


def choose(simulated: dict[tuple[str, int], Simulated]) -> dict[str, Any]:
    """Applies the rule of choice to the judged cases."""
    cases = {key: one for key, one in simulated.items() if key[1] in JUDGED}
    best: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        for least in LEAST:
            for skewed in MOST_SKEWED:
                rows = [judged(one, method, least, skewed) for one in cases.values()]
                lowest = min((row["coverage"] for row in rows if row["coverage"] is not None), default=0.0)
                given = float(np.mean([row["given"] for row in rows]))
                widest = max((row["of t"] for row in rows if row["of t"] is not None), default=np.inf)
                rank = (given, -least, skewed)
                if lowest >= BAR and (method not in best or rank > best[method]["rank"]):
                    best[method] = {
                        "rank": rank,
                        "least": least,
                        "most skewed": skewed,
                        "given": given,
                        "lowest": lowest,
                        "widest": widest,
                    }
    left = {name: one for name, one in best.items() if one["widest"] <= WIDEST}
    most = max((one["given"] for one in left.values()), default=0.0)
    chosen = next((name for name in METHODS if name in left and left[name]["given"] >= most - AS_MANY), None)
    for one in best.values():
        del one["rank"]
    return {"by method": best, "chosen": chosen, **(left[chosen] if chosen else {})}


def table(simulated: dict[tuple[str, int], Simulated], least: int, skewed: float) -> list[dict[str, Any]]:
    """All figures under one rule."""
    return [
        {"case": name, "n": n, "method": method, **judged(one, method, least, skewed)}
        for (name, n), one in simulated.items()
        for method in METHODS
    ]


def main() -> None:
    """Runs the simulation and writes its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started = time.process_time()
    simulated: dict[tuple[str, int], Simulated] = {}
    for name, case in CASES.items():
        for n in (*JUDGED, *INFORMATION):
            rng = np.random.default_rng([len(simulated), 2026])
            runs = options.runs if n < 1000 else min(options.runs, 2000)
            simulated[name, n] = simulate(case, n, runs, rng)
            print(f"{name}, n = {n}", flush=True)
    choice = choose(simulated)
    rule = (choice.get("least", 2), choice.get("most skewed", np.inf))
    result = {
        "runs": options.runs,
        "choice": choice,
        "without a rule": table(simulated, 0, np.inf),
        "with the rule": table(simulated, *rule),
        "machine": processor(),
        "processor seconds": round(time.process_time() - started),
    }
    show(result)
    if options.json:
        old = json.loads(options.json.read_text()) if options.json.exists() else {}
        write(options.json, {**old, "means": result})


def show(result: dict[str, Any]) -> None:
    """Coverage by case and method, without a rule and with it, then the choice."""
    for name in ("without a rule", "with the rule"):
        print(f"\n{name}: coverage (share of runs given)")
        rows = result[name]
        print(" " * 26 + "".join(f"{method:>12}" for method in METHODS))
        for i in range(0, len(rows), len(METHODS)):
            of = rows[i : i + len(METHODS)]
            cells = "".join(
                f"{'-' if row['coverage'] is None else format(row['coverage'], '.3f'):>12}" for row in of
            )
            print(f"{of[0]['case']:<20}{of[0]['n']:>5} {cells}  given {of[0]['given']:.3f}")
    print(json.dumps(result["choice"], indent=1))


def write(path: Path, result: dict[str, Any]) -> None:
    """As JSON, numbers to five digits, infinity as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items()}
        if isinstance(value, list):
            return [plain(one) for one in value]
        if isinstance(value, float):
            return round(value, 5) if np.isfinite(value) else str(value)
        return value

    path.write_text(json.dumps(plain(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
