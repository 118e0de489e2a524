"""The work of `sarm eval` on a benchmark, what it prints and writes, and the published steering table."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from sarm_control.cli._edits import GivenEdits
from sarm_control.cli._outputs import write_html
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._sources import ModelFlags, Source, prepare
from sarm_control.console import progress, say
from sarm_control.control import edited_rewards
from sarm_control.embedded import is_input_name
from sarm_control.errors import ConfigError
from sarm_control.evaluation import (
    REWARD_BENCH_2_FILES,
    RM_BENCH_FILES,
    Benchmark,
    SelfCheck,
    Steering,
    SubsetResult,
    benchmark_results,
    benchmark_text,
    edits_text,
    local_rows,
    reward_bench_2,
    rm_bench,
    self_check,
    steering,
)
from sarm_control.files import atomic_folder, manifest, write_json, write_jsonl
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import Scored

if TYPE_CHECKING:
    from sarm_control.control import Edit
    from sarm_control.data import Row
    from sarm_control.pages import Page

_BENCHMARKS = {
    "reward-bench-2": (reward_bench_2, REWARD_BENCH_2_FILES),
    "rm-bench": (rm_bench, RM_BENCH_FILES),
}


class Request(NamedTuple):
    """What was asked for: the benchmark and its rows, target, complement, random parts, how rows are read."""

    benchmark: str
    data: list[str]
    subset: list[str]
    complement: list[Path]
    sets: int
    seed: int
    rows: RowFlags = AS_THEY_ARE


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Args:
        model: what outputs call it.
        benchmark: the benchmark on its rows.
        data: the benchmark's rows and scores, then those of the complement.
        check: the self-check; None where latents were read and nothing was scored.
        results: of every subset.
        edits: those tried, none or some.
        steering: with edits.
    """

    model: str
    benchmark: Benchmark
    data: ScoredRows
    check: SelfCheck | None
    results: list[SubsetResult]
    edits: "list[Edit]"
    steering: Steering | None

    def as_json(self) -> dict[str, Any]:
        """The results, without the items."""
        return {
            "model": self.model,
            "head": self.data.scored.fingerprint,
            "benchmark": self.benchmark.name,
            "items": len(self.benchmark.units),
            "missing": list(self.benchmark.missing()),
            "self_check": None if self.check is None else self.check.as_json(),
            "subsets": [one.as_json() for one in self.results],
            "edits": [str(edit) for edit in self.edits],
            "steering": None if self.steering is None else self.steering.as_json(),
        }


def evaluate(
    request: Request, flags: ModelFlags, given: GivenEdits, skip_bad_rows: Path | None
) -> Evaluation:
    """Reads, checks, scores and measures."""
    build, patterns = _BENCHMARKS[request.benchmark]
    paths = [file for source in request.data for file in local_rows(source, patterns)]
    # filled by `check`, which is called between reading and scoring
    checks: list[SelfCheck] = []

    def check(rows: "Sequence[Row]") -> None:
        # not of the complement, which need not have the benchmark's form, nor of latents that were
        # kept
        to_score = [row for row in rows if row.path in paths]
        if to_score:
            build(to_score).units_of(request.subset)
            # before the scoring, which may take an hour: eight answers tell whether it would be for nothing
            checks.append(self_check(flags.load(), to_score))

    def of_subset(rows: "Sequence[Row]") -> list[bool]:
        benchmark = build(rows)
        # all answers of a row are of one unit, so the first one tells it
        first_answers = np.cumsum([0, *(len(row.answers) for row in rows)])[:-1]
        kept: list[bool] = _target(benchmark, request.subset)[
            benchmark.unit_of_answer[first_answers]
        ].tolist()
        return kept

    sources = prepare(
        [paths, *([request.complement] if request.complement else [])],
        flags,
        want={"pair", "answer", "candidates"},
        aside=lambda path: None if skip_bad_rows is None else skip_bad_rows / f"{path.stem}.bad.jsonl",
        check=check,
        # With edits the other subsets are the complement; without, nobody asked for them.
        keep=of_subset if request.subset and given.latents == [] else None,
        row_flags=request.rows,
        # edits of latents that the head lacks are refused before weights are read
        check_head=given.on,
    ).score()
    own, data = sources[0].scored_rows, _joined(sources)
    benchmark = build(own.rows)
    edits = given.on(own.scored.latents.size, own.scored.fingerprint)
    # the self-check is made before scoring, when nobody knows yet what will be cut
    found = checks[0].after_scoring(data.scored.truncated) if checks else None
    rewards = own.scored.rewards.astype(np.float64)
    edited = edited_rewards(own.scored, edits) if edits else None
    lengths = own.scored.lengths.astype(np.float64)
    results = benchmark_results(benchmark, rewards, lengths, edited, seed=request.seed)
    moved = None
    if edits:
        target = _target(benchmark, request.subset)
        moved = steering(data, benchmark, target, edits, sets=request.sets, seed=request.seed)
    return Evaluation(sources[0].model, benchmark, data, found, results, edits, moved)


def _target(benchmark: Benchmark, subset: Sequence[str]) -> NDArray[np.bool_]:
    """[U] the units that are asked for: all of them when no subset is named."""
    return benchmark.units_of(subset) if subset else np.ones(len(benchmark.units), dtype=bool)


def _joined(sources: Sequence[Source]) -> ScoredRows:
    if len(sources) == 1:
        return sources[0].scored_rows
    rows = [row for source in sources for row in source.scored_rows.rows]
    return ScoredRows(rows, Scored.concatenate([source.scored_rows.scored for source in sources]))


def print_evaluation(found: Evaluation, stream: TextIO) -> None:
    """The self-check, the figures, and what the edits change."""
    if found.check is None:
        stream.write("no self-check: latents were read, nothing was scored\n\n")
    else:
        stream.write(f"{found.check.line()}\n\n")
        for told in (*found.check.problems, *found.check.remarks):
            say(f"warning: {told}")
    stream.write(benchmark_text(found.benchmark, found.results))
    if found.steering is not None:
        stream.write("\n" + edits_text(found.results, found.steering, found.edits))


def write_evaluation(
    found: Evaluation,
    request: Request,
    flags: ModelFlags,
    given: GivenEdits,
    out: Path | None,
    json_file: Path | None,
    html: Path | None,
    *,
    overwrite: bool,
) -> None:
    """`results.json`, `items.jsonl` and `manifest.json` in the folder; the results for `--json`, `--html`."""
    results = found.as_json()
    if json_file is not None:
        write_json(json_file, results)
    write_html(html, lambda command: _page(results, command))
    if out is None:
        return
    config = {
        "model": found.model,
        "benchmark": request.benchmark,
        "data": [Path(source).name if Path(source).exists() else source for source in request.data],
        "subset": request.subset,
        "edits": results["edits"],
        "sets": request.sets,
        "dtype": flags.dtype,
        "max_length": flags.context,
        **flags.dated,
        **request.rows.recorded,
    }
    # ids of the hub stand in the settings: they have no file here whose hash could be taken
    files = [path for path in map(Path, request.data) if path.is_file() or is_input_name(path)]
    inputs = [*files, *(path for path in request.complement if path.is_file()), *given.inputs]
    with atomic_folder(out, overwrite=overwrite) as folder:
        write_json(folder / "results.json", results)
        write_jsonl(folder / "items.jsonl", _items(found))
        record = manifest("eval", inputs=inputs, config=config, seed=request.seed)
        write_json(folder / "manifest.json", record)


def _page(results: dict[str, Any], command: str) -> "Page":
    from sarm_control.report import evaluation_page

    return evaluation_page(results, sections=True, command=command)


def _items(found: Evaluation) -> list[dict[str, Any]]:
    """One row a unit: its scores and credit, before and after the edits."""
    benchmark, scored = found.benchmark, found.data.scored
    # the benchmark's answers come first, those of the complement behind them
    own = len(benchmark.unit_of_answer)
    before = scored.rewards.astype(np.float64)[:own]
    after = edited_rewards(scored, found.edits)[:own]
    credits = [benchmark.credit(values) for values in (before, after)]
    # the answers of a unit need not stand together: in Ties they are of two rows
    order = np.argsort(benchmark.unit_of_answer, kind="stable")
    ends = np.cumsum(np.bincount(benchmark.unit_of_answer, minlength=len(benchmark.units)))[:-1]
    items = []
    for unit, answers in enumerate(np.split(order, ends)):
        row = {
            "id": benchmark.units[unit],
            "subset": str(benchmark.subset[unit]),
            "part": str(benchmark.part[unit]),
            **dict(zip(benchmark.figures, credits[0][unit].tolist(), strict=True)),
            "scores": before[answers].tolist(),
        }
        if found.edits:
            row["edited"] = dict(zip(benchmark.figures, credits[1][unit].tolist(), strict=True))
            row["edited_scores"] = after[answers].tolist()
        items.append(row)
    return items


def reproduce(data: Sequence[str], flags: ModelFlags, json_file: Path | None) -> None:
    """Prints the published table, beside it what the recorded rewards and a model at hand say.

    Raises:
        ConfigError: several files, or a model without rows or without the published latents.
    """
    from sarm_control.evaluation import (
        PUBLISHED,
        PUBLISHED_STEERED_LATENTS,
        from_model,
        from_records,
        published_text,
        read_recorded,
    )
    from sarm_control.files import write_json

    if len(data) > 1 or (flags.model is not None and not data):
        raise ConfigError(
            "--reproduce-published-steering takes the one file of recorded scores",
            hint="sarm eval --reproduce-published-steering --data llama_sarm_4b_scores.jsonl",
        )
    recorded = read_recorded(Path(data[0])) if data else None
    from_file = None if recorded is None else from_records(recorded)
    exact = None
    if recorded is not None and flags.model is not None:
        from sarm_control.control import check_exists
        from sarm_control.latents import score_rows

        rm = flags.load()
        for latent in PUBLISHED_STEERED_LATENTS:
            check_exists(latent, rm.config.latents)
        scored = score_rows(rm, recorded.rows, batch_tokens=flags.batch_tokens, progress=progress)
        exact = from_model(recorded, scored)
    sys.stdout.write(published_text(from_file, exact))
    if json_file is not None:
        found = {"recorded": from_file, "exact": exact}
        results = {name: None if one is None else one.as_json() for name, one in found.items()}
        write_json(json_file, {"published": [one._asdict() for one in PUBLISHED], **results})
