"""What the label tests call where nothing is true, and what they find where something is.

Made with `python benchmarks/discovery.py --nulls --json benchmarks/results/discovery.json`.

Nulls. In every data set the answers of a prompt are exchangeable: which of them are the chosen ones is
decided by nothing. A prompt's answers share half of what fires. 30 latents, of which *rare* ones fire in
2 to 8 % of the answers and *dense* ones in 50 to 100 %, with exponential values. Cases:

    sides     1v1, 1v3, 1v7, 3v3, and mixed (1v1, 1v3, 3v1, 2v5, 1v7 in turn)
    prompts   50, 150, 400
    latents   rare, dense

and RM-Bench's form, where a prompt's k chosen and k rejected answers have k styles, k = 1, 2, 3, that is one,
four or nine comparisons that hang together: a style moves what fires in both its answers. There a
prompt's two sides are exchangeable, single answers are not; 50 and 400 prompts, both kinds.

300 data sets a case. For each, with 4,000 redraws:

    any selected   data sets in which Benjamini-Hochberg at 5 % selects a latent; the same by max-T
                   (500 redraws). Where nothing is true, 5 % are meant; with few firings the p-values are
                   coarse and fewer are right too.
    type I         share of latents with p <= .01 and p <= .002, over the nominal share
    t              the same for a plain t-test on the prompts' mean contributions, which assumes more

Calls. `margin_effects` and `replicated_effects` (two halves) as users call them, on 150 null data sets of
200 prompts, at 1v3 and mixed sides, rare latents: how often a latent is called.

Power. 100 prompts, 30 latents of one kind, each fires more on chosen, or on rejected answers: rare ones
at .20 for .05, dense ones (.6 to .9) less by .15 on the other side. Share with p <= .01, over 30 data
sets, beside the t-test. A test that calls too much where nothing is true finds more, too: the t-test's
type I stands above.

What counts as passed, decided before the run:

    any selected   at most 3 cases of 42 have a 95 % interval (Clopper-Pearson) that lies above 5 %, and the
                   interval of all cases together does not lie above 5 %
    type I         at .01 and .002, all latents of a case: the ratio is at most 2, or its interval holds 2
    calls          the interval does not lie above 5 %
    power          none; a figure
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.sparse import csr_array

from sarm_control.discovery.effects.effects import margin_effects, replicated_effects
from sarm_control.discovery.effects.kinds import direction
from sarm_control.discovery.pairs.margins import PairLatents, margin_contributions, pair_latents
from sarm_control.discovery.permutation.label_tests import label_max_t_test, label_test
from sarm_control.statistics.multiplicity import benjamini_hochberg
from sarm_control.study.provenance import processor

RUNS, LATENTS, DRAWS = 300, 30, 4000
PROMPTS = (50, 150, 400)
SIDES = {
    "1v1": [(1, 1)],
    "1v3": [(1, 3)],
    "1v7": [(1, 7)],
    "3v3": [(3, 3)],
    "mixed": [(1, 1), (1, 3), (3, 1), (2, 5), (1, 7)],
}
RATES = {"rare": (0.02, 0.08), "dense": (0.5, 1.0)}


class Case(NamedTuple):
    """One kind of null data set; `styles` is 0 where single answers are exchangeable."""

    sides: str
    prompts: int
    kind: str
    styles: int = 0


def cases() -> Iterator[Case]:
    """All of the docstring's."""
    for kind in RATES:
        for prompts in PROMPTS:
            yield from (Case(sides, prompts, kind) for sides in SIDES)
        for prompts in (PROMPTS[0], PROMPTS[-1]):
            yield from (Case(f"{k}v{k}", prompts, kind, k) for k in (1, 2, 3))


def data_set(
    sides: Sequence[tuple[int, int]],
    rates: tuple[np.ndarray, np.ndarray],
    generator: np.random.Generator,
    styles: int = 0,
) -> PairLatents:
    """Answers that fire at rates [M] of the chosen and of the rejected ones; equal rates are a null."""
    sizes = [good + bad for good, bad in sides]
    prompt = np.repeat(np.arange(len(sides)), sizes)
    chosen = np.concatenate([np.arange(good + bad) < good for good, bad in sides])
    shape = (len(prompt), len(rates[0]))
    shared = generator.random((len(sides), shape[1]))[prompt]
    if styles:
        # answers of one style share what fires, chosen and rejected alike
        style = np.concatenate([np.concatenate([np.arange(good), np.arange(bad)]) for good, bad in sides])
        shared = generator.random((len(sides) * styles, shape[1]))[prompt * styles + style]
    uniform = np.where(generator.random(shape) < 0.5, shared, generator.random(shape))
    fires = uniform < np.where(chosen[:, None], *rates)
    values = csr_array(np.where(fires, generator.exponential(1.0, shape) + 0.1, 0.0))
    head = generator.normal(0, 0.01, shape[1])
    return pair_latents(values[chosen], values[~chosen], prompt[chosen], prompt[~chosen], head)


def null_data(case: Case, seed: int) -> PairLatents:
    """One data set of a case."""
    generator = np.random.default_rng([seed, case.prompts, case.styles, len(case.sides)])
    low, high = np.log(RATES[case.kind])
    rate = np.exp(generator.uniform(low, high, LATENTS))
    sides = SIDES[case.sides] if not case.styles else [(case.styles, case.styles)]
    return data_set((sides * case.prompts)[: case.prompts], (rate, rate), generator, case.styles)


def t_test(pairs: PairLatents) -> np.ndarray:
    """[M] p of a plain t-test on the prompts' contributions; 1 for a latent that never fires."""
    columns = margin_contributions(pairs).toarray()
    spread = columns.std(axis=0, ddof=1) / np.sqrt(len(columns))
    t = np.divide(columns.mean(axis=0), spread, out=np.zeros(len(spread)), where=spread > 0)
    return np.asarray(2 * stats.t.sf(np.abs(t), len(columns) - 1))


def null_case(case: Case, runs: int = RUNS) -> dict[str, Any]:
    """Rates of one case."""
    p, by_t, max_t = np.empty((runs, LATENTS)), np.empty((runs, LATENTS)), np.empty(runs)
    for seed in range(runs):
        pairs = null_data(case, seed)
        p[seed] = label_test(pairs, range(LATENTS), draws=DRAWS, seed=seed)
        by_t[seed] = t_test(pairs)
        max_t[seed] = label_max_t_test(pairs, range(LATENTS), draws=500, seed=seed).min()
    return {
        **case._asdict(),
        "any_selected": share(selected(p)),
        "any_by_max_t": share(max_t <= 0.05),
        "any_selected_by_t": share(selected(by_t)),
        **{f"type_1_at_{level}": ratio(p, level) for level in (0.01, 0.002)},
        **{f"t_type_1_at_{level}": ratio(by_t, level) for level in (0.01, 0.002)},
    }


def selected(p: np.ndarray) -> np.ndarray:
    """[runs] whether Benjamini-Hochberg at 5 % selects anything."""
    return np.array([(benjamini_hochberg(own) <= 0.05).any() for own in p])


def share(happened: np.ndarray) -> dict[str, float]:
    """A share with its 95 % Clopper-Pearson interval."""
    found = stats.binomtest(int(happened.sum()), len(happened))
    ends = found.proportion_ci()
    return {"share": found.statistic, "low": float(ends.low), "high": float(ends.high), "n": len(happened)}


def ratio(p: np.ndarray, level: float) -> dict[str, float]:
    """The share of p-values at or below a level, over the level."""
    found = share(p.ravel() <= level)
    return {name: value if name == "n" else value / level for name, value in found.items()}


def calls(sides: str, runs: int = 150, prompts: int = 200) -> dict[str, Any]:
    """How often the two functions that users call name a latent where nothing is true."""
    plain, replicated = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    for seed in range(runs):
        pairs = null_data(Case(sides, prompts, "rare"), 10_000 + seed)
        table = margin_effects(
            pairs.chosen, pairs.rejected, pairs.chosen_prompt, pairs.rejected_prompt, pairs.head, seed=seed
        )
        halves = [pairs.take_prompts(np.arange(start, prompts, 2)) for start in (0, 1)]
        plain[seed] = any(direction(kind) is not None for kind in table["kind"])
        kinds = replicated_effects(*halves, min_prompts=5, seed=seed)["kind"]
        replicated[seed] = any(direction(kind) is not None for kind in kinds)
    return {
        "sides": sides,
        "prompts": prompts,
        "margin_effects": share(plain),
        "replicated_effects": share(replicated),
    }


def power(sides: str, kind: str, more_on: str, runs: int = 30, prompts: int = 100) -> dict[str, object]:
    """Share of planted latents with p <= .01, by the label test and by the t-test."""
    p, by_t = np.empty((runs, LATENTS)), np.empty((runs, LATENTS))
    for seed in range(runs):
        generator = np.random.default_rng([seed, prompts, len(sides), len(kind), len(more_on)])
        high = np.full(LATENTS, 0.2) if kind == "rare" else generator.uniform(0.6, 0.9, LATENTS)
        low = np.full(LATENTS, 0.05) if kind == "rare" else high - 0.15
        rates = (high, low) if more_on == "chosen" else (low, high)
        pairs = data_set((SIDES[sides] * prompts)[:prompts], rates, generator)
        p[seed], by_t[seed] = label_test(pairs, range(LATENTS), draws=DRAWS, seed=seed), t_test(pairs)
    found = {"power": share(p.ravel() <= 0.01), "power_of_t": share(by_t.ravel() <= 0.01)}
    return {"sides": sides, "prompts": prompts, "kind": kind, "more_on": more_on, **found}


def passed(
    nulls: Sequence[dict[str, Any]], called: Sequence[dict[str, Any]], together: dict[str, float]
) -> dict[str, object]:
    """The docstring's bars."""
    above = [one for one in nulls if one["any_selected"]["low"] > 0.05]
    twice = [one for one in nulls for level in (0.01, 0.002) if one[f"type_1_at_{level}"]["low"] > 2]
    named = [
        one for one in called for way in ("margin_effects", "replicated_effects") if one[way]["low"] > 0.05
    ]
    return {
        "cases": len(nulls),
        "cases_above_5_percent": len(above),
        "any_selected": len(above) <= 3 and together["low"] <= 0.05,
        "type_1": not twice,
        "calls": not named,
    }


def nulls() -> dict[str, object]:
    """Everything of the docstring."""
    start = time.process_time()
    found = [null_case(case) for case in cases()]
    called = [calls(sides) for sides in ("1v3", "mixed")]
    planted = [
        power(sides, kind, more_on)
        for sides in ("1v1", "1v3", "1v7", "mixed")
        for kind in RATES
        for more_on in ("chosen", "rejected")
    ]
    count = sum(one["any_selected"]["n"] for one in found)
    times = round(sum(one["any_selected"]["share"] * one["any_selected"]["n"] for one in found))
    together = share(np.arange(count) < times)
    return {
        "machine": processor(),
        "processor_seconds": time.process_time() - start,
        "passed": passed(found, called, together),
        "any_selected_of_all": together,
        "nulls": found,
        "calls": called,
        "power": planted,
    }


def tables(result: dict[str, Any]) -> str:
    """The result as tables for people."""
    lines = [
        "| sides | styles | prompts | latents | any selected | max-T | t | type I at .01 | .002 | t at .002 |"
    ]
    lines.append("|---|" + "---|" * 10)
    for one in result["nulls"]:
        shares = (percent(one[name]) for name in ("any_selected", "any_by_max_t", "any_selected_by_t"))
        names = [f"{test}type_1_at_{level}" for test in ("", "t_") for level in (0.01, 0.002)]
        ratios = (times(one[name]) for name in names)
        case = (one["sides"], one["styles"], one["prompts"], one["kind"])
        lines.append("| " + " | ".join(map(str, (*case, *shares, *ratios))) + " |")
    lines += ["", "| sides | margin_effects | replicated_effects |", "|---|---|---|"]
    for one in result["calls"]:
        lines.append(
            f"| {one['sides']} | {percent(one['margin_effects'])} | {percent(one['replicated_effects'])} |"
        )
    lines += ["", "| sides | latents | more on | power | of t |", "|---|---|---|---|---|"]
    for one in result["power"]:
        plain = f"| {one['sides']} | {one['kind']} | {one['more_on']} | "
        lines.append(f"{plain}{percent(one['power'])} | {percent(one['power_of_t'])} |")
    lines += [
        "",
        f"all cases together: any selected {percent(result['any_selected_of_all'])}",
        str(result["passed"]),
    ]
    return "\n".join(lines)


def percent(value: dict[str, float]) -> str:
    """A share with its interval."""
    return f"{100 * value['share']:.1f} % [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def times(value: dict[str, float]) -> str:
    """A ratio with its interval."""
    return f"{value['share']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
