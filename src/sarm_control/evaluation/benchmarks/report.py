"""The results of a benchmark, with and without edits: figures, baselines, tests.

Shapes: `N` answers, `U` units, `C` figures of a unit, `G` subsets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.evaluation.answer_places import Floats
from sarm_control.evaluation.benchmarks.benchmark import Benchmark
from sarm_control.statistics import (
    Flips,
    Interval,
    benjamini_hochberg,
    change_of_shares,
    flips,
    mean_of_shares,
    share_interval,
    sign_flip_test,
)

TOTAL = "total"


class Baselines(NamedTuple):
    """The main figure of choosing by length alone.

    Args:
        shortest: credit of the rule "the shorter, the better", in tokens.
        longest: credit of "the longer, the better".
        p: two-sided sign-flip p of the model against the better of the two, paired by unit.
        q: Benjamini-Hochberg over the subsets and parts.
    """

    shortest: float
    longest: float
    p: float
    q: float


class Changed(NamedTuple):
    """The effect of edits on the main figure of one subset.

    Args:
        after: the figure with the edits.
        change: after - before, paired by unit.
        flips: units that gain and lose, with the exact McNemar test.
        q: Benjamini-Hochberg of the flips' p over the subsets and parts.
    """

    after: Interval
    change: Interval
    flips: Flips
    q: float


@dataclass(frozen=True)
class SubsetResult:
    """The figures of one subset, one part of a subset, or the total.

    Args:
        name: of the subset or part; "total".
        units: number of units.
        figures: name -> mean with interval, under the benchmark's own names.
        chance: the main figure of random scores; None where it is not known (Ties).
        baselines: choosing by length; None for the total.
        changed: the effect of edits; None without edits.
    """

    name: str
    units: int
    figures: Mapping[str, Interval]
    chance: float | None
    baselines: Baselines | None
    changed: Changed | None

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        baselines = None if self.baselines is None else self.baselines._asdict()
        changed = None
        if self.changed is not None:
            after, change, flipped, q = self.changed
            changed = {"after": after.as_json(), "change": change.as_json(), **flipped.as_json(), "q": q}
        figures = {name: value.as_json() for name, value in self.figures.items()}
        head = {"name": self.name, "units": self.units, "figures": figures, "chance": self.chance}
        return {**head, "length_baselines": baselines, "edits": changed}


def benchmark_results(
    benchmark: Benchmark, scores: Floats, lengths: Floats, edited: Floats | None = None, *, seed: int = 0
) -> list[SubsetResult]:
    """Every subset of the benchmark, and the total when no subset is missing.

    Args:
        benchmark: the units and their credit.
        scores: [N] rewards.
        lengths: [N] number of tokens of each answer.
        edited: [N] rewards with the edits; None without edits.
        seed: of the sign flips.
    """
    credit = benchmark.credit(scores)
    # the main figure alone: each further test would cost the others
    after = None if edited is None else benchmark.credit(edited)[:, 0]
    # length as a score: the benchmark's own credit then says how far length alone gets
    short, long = (benchmark.credit(sign * lengths)[:, 0] for sign in (-1.0, 1.0))
    groups = benchmark.groups()
    baselines = _baselines(credit[:, 0], short, long, groups, seed)
    changes = {} if after is None else _changes(credit[:, 0], after, groups)
    results = []
    for name, units in groups.items():
        chance = float(benchmark.chance[units].mean())
        figures = {
            figure: share_interval(credit[units, column]) for column, figure in enumerate(benchmark.figures)
        }
        known = None if np.isnan(chance) else chance
        results.append(
            SubsetResult(name, int(units.sum()), figures, known, baselines[name], changes.get(name))
        )
    if not benchmark.missing():
        results.append(_total(benchmark, credit, after))
    return results


def _baselines(
    credit: Floats, short: Floats, long: Floats, groups: Mapping[str, NDArray[np.bool_]], seed: int
) -> dict[str, Baselines]:
    means = {name: (float(short[units].mean()), float(long[units].mean())) for name, units in groups.items()}
    p = []
    for name, units in groups.items():
        # against the better of the two, which is the stricter test
        better = short if means[name][0] > means[name][1] else long
        p.append(float(sign_flip_test((credit - better)[units][:, None], seed=seed)[0]))
    q = benjamini_hochberg(np.array(p))
    return {name: Baselines(*means[name], p[i], float(q[i])) for i, name in enumerate(groups)}


def _changes(before: Floats, after: Floats, groups: Mapping[str, NDArray[np.bool_]]) -> dict[str, Changed]:
    flipped = {name: flips(before[units], after[units]) for name, units in groups.items()}
    q = benjamini_hochberg(np.array([test.p for test in flipped.values()]))
    return {
        name: Changed(
            share_interval(after[units]),
            change_of_shares(before[units], after[units]),
            flipped[name],
            float(q[i]),
        )
        for i, (name, units) in enumerate(groups.items())
    }


def _total(benchmark: Benchmark, credit: Floats, after: Floats | None) -> SubsetResult:
    # as the benchmarks have it, the subsets count alike however many rows they have
    strata = benchmark.subset
    figures = {
        name: mean_of_shares(credit[:, column], strata) for column, name in enumerate(benchmark.figures)
    }
    changed = None
    if after is not None:
        flipped = flips(credit[:, 0], after)
        changed = Changed(
            mean_of_shares(after, strata),
            change_of_shares(credit[:, 0], after, strata),
            flipped,
            # one test of the whole: there is nothing to correct for
            flipped.p,
        )
    return SubsetResult(TOTAL, len(benchmark.units), figures, None, None, changed)
