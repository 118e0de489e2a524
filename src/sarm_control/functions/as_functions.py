"""The commands `discover`, `compare` and `evaluate` as functions, with the same defaults.

`sarm_control.audit` stands beside them. They return objects that show themselves in a notebook, and write no
files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.embedded import AUDIT, HELD_OUT_PROMPTS, LAB
from sarm_control.errors import ConfigError
from sarm_control.notebooks import data_frame, ends_of, html_table, number, span

if TYPE_CHECKING:
    from sarm_control.comparison import Comparison
    from sarm_control.control import Edit
    from sarm_control.data import Source
    from sarm_control.discovery import Discovery
    from sarm_control.evaluation import Benchmark, SelfCheck, Steering, SubsetResult
    from sarm_control.latents import ScoredRows
    from sarm_control.reward_model import RewardModel

BenchmarkName = Literal["reward-bench-2", "rm-bench"]


def discover(
    model: "RewardModel | str | Path" = LAB,
    pairs: "Source | ScoredRows" = AUDIT,
    confirm: "Source | ScoredRows | None" = None,
    *,
    target: str | None = None,
    less: bool = False,
    by: str | None = None,
    alpha: float = 0.05,
    min_prompts: int = 10,
    random_sets: int = 1000,
    seed: int = 0,
    material: float = 0.01,
    material_sd: float = 0.0,
    batch_tokens: int | None = None,
    progress: ProgressFactory = no_progress,
) -> "Discovery":
    """Finds the latents that promote or harm what pairs prefer, as `sarm discover` with level 1 of evidence.

    Args:
        model: a reward model, or the id or folder of one.
        pairs: to select on: a file, rows in memory, a data frame; or rows that are scored already.
        confirm: other pairs, on which effects are measured; half of the prompts of `pairs` where None.
        target: an attribute of an answer in place of the preference, such as `length` or `regex:PATTERN`.
        less: the goal is less of the target.
        by: a column; margins and called latents are also reported for each of its values.
        alpha: false discovery rate of each step.
        min_prompts: latents active in fewer prompts are not tested.
        random_sets: matched random sets that selections are compared with.
        seed: of halves, redraws and sets.
        material: least |effect| of a latent that gets a control, as a share of the mean margin.
        material_sd: the same in SDs of the reward.
        batch_tokens: see `RewardModel.score`.
        progress: see `RewardModel.score`.

    Raises:
        SarmError: a model, rows or settings that cannot be used; too few prompts.
    """
    from sarm_control.discovery import DiscoverySettings, parse_target
    from sarm_control.discovery import discover as find

    # refused and not ignored: the lists would be those of the goal turned round
    if less and target is None:
        raise ConfigError("less wants a target", hint="a preference is turned by exchanging its sides")
    wanted = None if target is None else parse_target(target, less=less)
    settings = DiscoverySettings(alpha, min_prompts, seed, by, random_sets, wanted)
    rm = _model(model)
    how: dict[str, Any] = {"batch_tokens": batch_tokens, "progress": progress}
    selection = _scored(rm, pairs, **how)
    other = None if confirm is None else _scored(rm, confirm, **how)
    return find(selection, other, settings).with_suggestions(of_margin=material, of_sd=material_sd)


def compare(
    *runs: str | Path,
    prompts: "Source | None" = None,
    answers_per_prompt: int = 1,
    max_new_tokens: int | None = None,
    batch: int = 64,
    seed: int = 0,
    gold: "str | Callable[[Sequence[str], Sequence[str]], Any] | None" = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: ProgressFactory = no_progress,
) -> "Comparison":
    """Compares trained policies with their base, latent by latent, as `sarm compare`.

    Args:
        runs: run folders of `sarm train`, with one base policy.
        prompts: held-out prompts: a file, rows or a data frame; the lab's own for runs of the lab.
        answers_per_prompt: of each policy.
        max_new_tokens: longest answer; the longest of the runs where None.
        batch: answers decoded together; changes no result.
        seed: of the answers.
        gold: the folder of a world or `lab`, whose gold reward judges every answer; or a function from
            prompts and answers to [N] numbers.
        device: of the models.
        dtype: of the reward model.
        progress: see `RewardModel.score`.

    Raises:
        SarmError: runs, prompts or models that cannot be used.
    """
    from sarm_control.comparison import (
        check_same_base,
        compare_runs,
        in_order,
        open_run,
        sampling_of,
        unique_prompts,
    )
    from sarm_control.data import rows_of
    from sarm_control.lab import World
    from sarm_control.reward_model import RewardModel

    if not runs:
        raise ConfigError("no run folder was given", hint='compare("runs/NAME")')
    opened = [open_run(Path(path)) for path in runs]
    check_same_base(opened)
    opened = in_order(opened)
    first = opened[0].config
    # only the embedded world has prompts of its own that no run was trained on
    if prompts is None and first.policy.model != LAB:
        raise ConfigError("no held-out prompts were given", hint='compare(..., prompts="held_out.jsonl")')
    rows = unique_prompts(rows_of(HELD_OUT_PROMPTS if prompts is None else prompts, want={"prompt"}))
    sampling = sampling_of(opened, answers_per_prompt, max_new_tokens, seed, batch)
    rm = RewardModel.from_pretrained(
        first.reward.model, device=device, dtype=dtype, template_date=first.data.template_date
    )
    judge = World.open(gold).gold if isinstance(gold, str) else gold
    found = compare_runs(opened, rows, rm, sampling, gold=judge, device=device, progress=progress)
    return found.comparison


@dataclass(frozen=True)
class Evaluation:
    """A reward model on a benchmark.

    Args:
        benchmark: the benchmark on its rows.
        check: the self-check of the model.
        results: of every subset, and the total where no subset is missing.
        edits: those tried, none or some.
        steering: what the edits changed; None without edits.
    """

    benchmark: "Benchmark"
    check: "SelfCheck"
    results: "tuple[SubsetResult, ...]"
    edits: "tuple[Edit, ...]"
    steering: "Steering | None"

    def to_pandas(self) -> Any:
        """A pandas frame with a row for each subset.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            (
                {
                    "subset": one.name,
                    "units": one.units,
                    **ends_of(**one.figures),
                    "chance": one.chance,
                }
                for one in self.results
            ),
            "subset",
        )

    def _repr_html_(self) -> str:
        """The figures of every subset in a notebook."""
        head = ("", "n", *(f"{name}, 95 % interval" for name in self.benchmark.figures), "chance")
        rows = (
            (
                one.name,
                f"{one.units:,}",
                *(
                    f"{number(found.mean, '.3f')} {span(found.low, found.high, '.3f')}"
                    for found in (one.figures[name] for name in self.benchmark.figures)
                ),
                number(one.chance, ".3f"),
            )
            for one in self.results
        )
        return html_table(
            self.benchmark.name, head, rows, "; ".join([*self.check.problems, *self.check.remarks])
        )


def evaluate(
    model: "RewardModel | str | Path",
    benchmark: BenchmarkName,
    data: "Source",
    *,
    edits: "Sequence[Edit | str]" = (),
    subset: Sequence[str] = (),
    sets: int = 1000,
    seed: int = 0,
    batch_tokens: int | None = None,
    progress: ProgressFactory = no_progress,
) -> Evaluation:
    """Evaluates a reward model by the rules of a benchmark, as `sarm eval`.

    Args:
        model: a reward model, or the id or folder of one.
        benchmark: `reward-bench-2` or `rm-bench`.
        data: the benchmark's rows: a file, rows in memory or a data frame.
        edits: changes of latents, as `Edit` or as text such as `12345:max=2`.
        subset: with edits the subsets at which they aim, else those that are kept; all where empty.
        sets: random sets of matched latents that edits are compared with.
        seed: of the tests and random sets.
        batch_tokens: see `RewardModel.score`.
        progress: see `RewardModel.score`.

    Raises:
        SarmError: a model, rows, subset or edit that cannot be used.
    """
    from sarm_control.control import Controls, check_exists, edited_rewards, parse_edit
    from sarm_control.data import rows_of
    from sarm_control.evaluation import benchmark_results, reward_bench_2, rm_bench, self_check, steering
    from sarm_control.latents import ScoredRows, score_rows

    known = {"reward-bench-2": reward_bench_2, "rm-bench": rm_bench}
    if benchmark not in known:
        raise ConfigError(f"{benchmark!r} is no benchmark", hint=f"benchmarks: {', '.join(known)}")
    changes = [parse_edit(edit) if isinstance(edit, str) else edit for edit in edits]
    rows, build = rows_of(data, want={"pair"}), known[benchmark]
    # with edits the other subsets are the complement, which they are to leave alone
    if subset and not changes:
        whole = build(rows)
        kept = whole.units_of(subset)
        # the first answer of each row says whose unit the row is: a unit keeps or loses whole rows
        first = np.cumsum([0, *(len(row.answers) for row in rows)])[:-1]
        rows = [row for row, keep in zip(rows, kept[whole.unit_of_answer[first]], strict=True) if keep]
    found, rm = build(rows), _model(model)
    for edit in Controls(edits=changes).edits:
        check_exists(edit.latent, rm.config.latents)
    target = found.units_of(subset) if subset else np.ones(len(found.units), dtype=bool)
    # before the scoring, and not skipped for speed: a chat template or padding that is wrong moves
    # every figure and raises no error
    checked = self_check(rm, rows)
    scored = score_rows(rm, rows, batch_tokens=batch_tokens, progress=progress)
    rewards, lengths = scored.rewards.astype(np.float64), scored.lengths.astype(np.float64)
    edited = edited_rewards(scored, changes) if changes else None
    results = benchmark_results(found, rewards, lengths, edited, seed=seed)
    moved = None
    if changes:
        moved = steering(ScoredRows(rows, scored), found, target, changes, sets=sets, seed=seed)
    return Evaluation(found, checked.after_scoring(scored.truncated), tuple(results), tuple(changes), moved)


def _model(model: "RewardModel | str | Path") -> "RewardModel":
    from sarm_control.reward_model import RewardModel

    return model if isinstance(model, RewardModel) else RewardModel.from_pretrained(model)


def _scored(
    rm: "RewardModel",
    rows: "Source | ScoredRows",
    *,
    batch_tokens: int | None,
    progress: ProgressFactory,
) -> "ScoredRows":
    from sarm_control.data import WITH_ANSWERS, rows_of
    from sarm_control.latents import ScoredRows, score_rows

    # scored before, perhaps on a larger machine than the one that looks for latents
    if isinstance(rows, ScoredRows):
        return rows
    read = rows_of(rows, want=WITH_ANSWERS)
    return ScoredRows(read, score_rows(rm, read, batch_tokens=batch_tokens, progress=progress))
