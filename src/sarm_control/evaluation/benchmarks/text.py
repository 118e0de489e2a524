"""Benchmark results as text for people."""

from collections.abc import Iterator, Sequence

from sarm_control.console import aligned
from sarm_control.control import Edit
from sarm_control.evaluation.benchmarks.benchmark import Benchmark
from sarm_control.evaluation.benchmarks.report import SubsetResult
from sarm_control.evaluation.benchmarks.steering import GroupShift, Steering
from sarm_control.statistics import AmongSets, counted, interval, number, percent

_CLEAR = 0.05
_CHANGED = ("", "n", "before", "after", "change, 95 % interval", "gain", "lose", "p", "q")
_SHIFT = ("", "answers", "active", "changed", "before", "after", "change, 95 % interval", "SDs")


def benchmark_text(benchmark: Benchmark, results: Sequence[SubsetResult]) -> str:
    """The figures of every subset, with those of chance and of choosing by length."""
    figures = benchmark.figures
    header = ("", "n", f"{figures[0]}, 95 % interval", *figures[1:], "chance", "shortest", "longest", "q")
    lines = [f"{benchmark.name}: {counted(len(benchmark.units), 'item')}", ""]
    lines += aligned([header, *(_cells(one, figures) for one in results)], left=1)
    lines += ["", "shortest, longest: always picking by length; q: the model against the better of the two"]
    missing = benchmark.missing()
    if missing:
        lines.append(f"no total: it is the mean of all subsets, and these rows lack {', '.join(missing)}")
    return "\n".join(lines) + "\n"


def edits_text(results: Sequence[SubsetResult], found: Steering, edits: Sequence[Edit]) -> str:
    """The effect of edits as text: figures, rewards of target and complement, and matched random latents."""
    lines = [f"{counted(len(edits), 'edit')}: {', '.join(map(str, edits))}", ""]
    changed = [cells for one in results if (cells := _changed_cells(one))]
    lines += aligned([_CHANGED, *changed], left=1)
    lines += ["", f"rewards (SD {found.reward_sd:.4g} over all answers)"]
    lines += aligned([_SHIFT, *(_shift_cells(group) for group in found.groups)], left=1)
    lines += ["", _selectivity_line(found), *_matched_lines(found)]
    return "\n".join(lines) + "\n"


def _cells(one: SubsetResult, figures: Sequence[str]) -> tuple[str, ...]:
    return (
        one.name,
        f"{one.units:,}",
        interval(one.figures[figures[0]], ".3f"),
        *(number(one.figures[name].mean, ".3f") for name in figures[1:]),
        number(one.chance, ".3f"),
        "" if one.baselines is None else number(one.baselines.shortest, ".3f"),
        "" if one.baselines is None else number(one.baselines.longest, ".3f"),
        _against_length(one, figures[0]),
    )


def _against_length(one: SubsetResult, figure: str) -> str:
    """The q, which is two-sided, with a remark where the model is the worse one."""
    if one.baselines is None:
        return ""
    best = max(one.baselines.shortest, one.baselines.longest)
    # a small q alone would be read as praise
    below = one.baselines.q <= _CLEAR and one.figures[figure].mean < best
    return f"{one.baselines.q:.2g}{' (worse)' if below else ''}"


def _changed_cells(one: SubsetResult) -> tuple[str, ...] | None:
    if one.changed is None:
        return None
    before = next(iter(one.figures.values()))
    return (
        one.name,
        f"{one.units:,}",
        number(before.mean, ".3f"),
        number(one.changed.after.mean, ".3f"),
        interval(one.changed.change, "+.3f"),
        f"{one.changed.flips.gained:,}",
        f"{one.changed.flips.lost:,}",
        f"{one.changed.flips.p:.2g}",
        f"{one.changed.q:.2g}",
    )


def _shift_cells(group: GroupShift) -> tuple[str, ...]:
    return (
        group.name,
        f"{group.answers:,}",
        percent(group.active),
        percent(group.changed),
        number(group.before),
        number(group.after),
        interval(group.change, "+.3g"),
        number(group.change_sd, "+.3f"),
    )


def _selectivity_line(found: Steering) -> str:
    complement = next((group.change for group in found.groups if group.name == "complement"), None)
    ratio = "|change of the target| / |change of the complement|"
    if complement is None:
        return "no selectivity: every answer is in the target; name a --subset, or give --complement FILE"
    if found.selectivity is None:
        return "no selectivity: the complement does not move"
    # divided by something that may be 0 the ratio has no upper end: only its lower one is told
    if found.selectivity.given and complement.low <= 0 <= complement.high:
        return (
            f"no selectivity: the complement's change may be 0, so that {ratio} is only known to be at "
            f"least {found.selectivity.low:.2g} (95 %)"
        )
    return f"selectivity {interval(found.selectivity, '.2f')}: {ratio}"


def _matched_lines(found: Steering) -> Iterator[str]:
    if found.unmatched is not None:
        yield f"not compared with random latents: {found.unmatched}"
    for what, among in found.matched.items():
        yield f"{_MATCHED[what]}: {_percentile(among)}"
    widened = max((among.widened for among in found.matched.values()), default=0)
    if widened:
        yield f"for {counted(widened, 'latent')} fewer than 5 others match exactly, so near ones are used too"


_MATCHED = {"margin": "change of the target's margin", "accuracy": "change of the target's figure"}


def _percentile(among: AmongSets) -> str:
    return (
        f"percentile {among.percentile:.1f} among the same edits on {among.sets:,} sets of matched random "
        f"latents (theirs: mean {among.mean:+.3g}, SD {among.sd:.3g})"
    )
