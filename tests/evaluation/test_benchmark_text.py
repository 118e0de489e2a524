"""Benchmark results as text: golden, from results made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sarm_control.control import Edit
from sarm_control.evaluation.benchmarks.report import Baselines, Changed, SubsetResult
from sarm_control.evaluation.benchmarks.rm_bench import rm_bench
from sarm_control.evaluation.benchmarks.steering import GroupShift, Steering
from sarm_control.evaluation.benchmarks.text import benchmark_text, edits_text
from sarm_control.statistics.intervals import Interval
from sarm_control.statistics.matched_sets import AmongSets
from sarm_control.statistics.mcnemar import Flips
from tests.evaluation.benchmark_rows import parsed, rm_bench_rows

BENCHMARK = rm_bench(parsed(rm_bench_rows()))
FIGURES = {
    "average": Interval(0.6, 0.5, 0.7, 1200),
    "easy": Interval(0.9, 0.8, 1.0, 1200),
    "normal": Interval(0.625, 0.5, 0.75, 1200),
    "hard": Interval(0.3, 0.2, 0.4, 1200),
}
HEADER = (
    "",
    "n",
    "average, 95 % interval",
    "easy",
    "normal",
    "hard",
    "chance",
    "shortest",
    "longest",
    "q",
)
RATIO = "|change of the target| / |change of the complement|"


def laid_out(rows: Sequence[Sequence[str]]) -> str:
    """The first column at the left, numbers at the right, two spaces between and before."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [
                f"{name:<{widths[0]}}",
                *(f"{one:>{width}}" for one, width in zip(cells, widths[1:], strict=True)),
            ]
        )
        for name, *cells in rows
    ]
    return "".join(f"  {line}".rstrip() + "\n" for line in lines)


def result(name: str, units: int, baselines: Baselines | None) -> SubsetResult:
    return SubsetResult(name, units, FIGURES, None if baselines is None else 0.5, baselines, None)


def test_golden_the_table_of_a_benchmark() -> None:
    """A mark stands where the model is clearly below the better of both lengths, and nowhere else."""
    results = [
        result("chat", 1200, Baselines(0.25, 0.75, 0.001, 0.002)),
        # below length, but for all that is known by chance
        result("code", 7, Baselines(0.75, 0.25, 0.5, 0.5)),
        # clearly above length
        result("math", 30, Baselines(0.25, 0.5, 0.001, 0.004)),
        # at the limit, and below the shorter ones
        result("safety", 6, Baselines(0.75, 0.25, 0.05, 0.05)),
        result("total", 1243, None),
    ]
    same = ("0.600 [0.500, 0.700]", "0.900", "0.625", "0.300")
    table = laid_out(
        [
            HEADER,
            ("chat", "1,200", *same, "0.500", "0.250", "0.750", "0.002 (worse)"),
            ("code", "7", *same, "0.500", "0.750", "0.250", "0.5"),
            ("math", "30", *same, "0.500", "0.250", "0.500", "0.004"),
            ("safety", "6", *same, "0.500", "0.750", "0.250", "0.05 (worse)"),
            ("total", "1,243", *same, "-", "", "", ""),
        ]
    )
    assert benchmark_text(BENCHMARK, results) == (
        f"rm-bench: 12 items\n\n{table}\n"
        "shortest, longest: always picking by length; q: the model against the better of the two\n"
        "no total: it is the mean of all subsets, and these rows lack code, math\n"
    )


def test_a_benchmark_with_all_its_subsets_lacks_none() -> None:
    whole = rm_bench(parsed(rm_bench_rows(domains=("chat", "code", "math", "safety"))))
    assert "no total" not in benchmark_text(whole, [result("total", 24, None)])


def shift(name: str, low: float, high: float, **changes: Any) -> GroupShift:
    middle = (low + high) / 2
    group = GroupShift(name, 1200, 0.25, 0.125, 1.5, 1.0, Interval(middle, low, high, 10), -0.25)
    return group._replace(**changes)


MOVED = Steering(
    groups=(shift("target", -0.6, -0.4), shift("complement", -0.3, -0.1, answers=6, change_sd=None)),
    selectivity=Interval(2.5, 1.5, 4.5, 10),
    reward_sd=2.0,
    matched={
        "margin": AmongSets(97.5, 0.01, 0.002, 1000, 0),
        "accuracy": AmongSets(12.0, -0.25, 0.125, 1000, 0),
    },
    unmatched=None,
)
EDITS = [Edit(3, set=0.0), Edit(5, scale=0.5)]


def test_golden_the_text_of_edits() -> None:
    changed = Changed(
        Interval(0.5, 0.4, 0.6, 1200),
        Interval(-0.1, -0.15, -0.05, 1200),
        Flips(1200, 1001, 1121, 0.0125),
        0.025,
    )
    results = [replace(result("chat", 1200, None), changed=changed), result("math", 7, None)]
    figures = laid_out(
        [
            ("", "n", "before", "after", "change, 95 % interval", "gain", "lose", "p", "q"),
            (
                "chat",
                "1,200",
                "0.600",
                "0.500",
                "-0.100 [-0.150, -0.050]",
                "1,001",
                "1,121",
                "0.013",
                "0.025",
            ),
        ]
    )
    rewards = laid_out(
        [
            ("", "answers", "active", "changed", "before", "after", "change, 95 % interval", "SDs"),
            ("target", "1,200", "25.0 %", "12.5 %", "+1.5", "+1", "-0.5 [-0.6, -0.4]", "-0.250"),
            ("complement", "6", "25.0 %", "12.5 %", "+1.5", "+1", "-0.2 [-0.3, -0.1]", "-"),
        ]
    )
    among = "among the same edits on 1,000 sets of matched random latents"
    assert edits_text(results, MOVED, EDITS) == (
        f"2 edits: 3:set=0.0, 5:scale=0.5\n\n{figures}\n"
        f"rewards (SD 2 over all answers)\n{rewards}\n"
        f"selectivity 2.50 [1.50, 4.50]: {RATIO}\n"
        f"change of the target's margin: percentile 97.5 {among} (theirs: mean +0.01, SD 0.002)\n"
        f"change of the target's figure: percentile 12.0 {among} (theirs: mean -0.25, SD 0.125)\n"
    )


@pytest.mark.parametrize(
    ("low", "high", "quoted"),
    [
        (-1.2, -0.8, True),
        (0.8, 1.2, True),
        (-0.5, 0.5, False),
        # an end at 0 does not leave 0 out
        (0.0, 0.5, False),
        (-0.5, 0.0, False),
    ],
)
def test_a_ratio_is_quoted_where_the_complement_changes_for_sure(
    low: float, high: float, quoted: bool
) -> None:
    found = replace(MOVED, groups=(shift("complement", low, high),))
    text = edits_text([], found, EDITS)
    bound = f"the complement's change may be 0, so that {RATIO} is only known to be at least 1.5 (95 %)"
    assert (f"\nselectivity 2.50 [1.50, 4.50]: {RATIO}\n" in text) is quoted
    assert (f"\nno selectivity: {bound}\n" in text) is not quoted


def test_why_there_is_no_ratio_and_no_comparison_is_said() -> None:
    found = replace(MOVED, selectivity=None, matched={}, unmatched="no edited latent is active")
    ends = "\nnot compared with random latents: no edited latent is active\n"
    assert edits_text([], found, EDITS).endswith(f"\nno selectivity: the complement does not move{ends}")
    alone = replace(found, groups=found.groups[:1])
    assert edits_text([], alone, EDITS).endswith(
        f"\nno selectivity: every answer is in the target; name a --subset, or give --complement FILE{ends}"
    )


@pytest.mark.parametrize(("widened", "latents"), [(1, "1 latent"), (3, "3 latents")])
def test_latents_that_are_matched_by_near_ones_are_counted(widened: int, latents: str) -> None:
    matched = {name: among._replace(widened=widened) for name, among in MOVED.matched.items()}
    assert edits_text([], replace(MOVED, matched=matched), EDITS).endswith(
        f"\nfor {latents} fewer than 5 others match exactly, so near ones are used too\n"
    )
