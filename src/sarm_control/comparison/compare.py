"""Comparing runs: base and trained policies answer the same prompts, and the answers are measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sarm_control.comparison.generation import Sampling, answer_prompts, kl_to_base, scored_answers
from sarm_control.comparison.measures import Columns, PolicyAnswers
from sarm_control.comparison.report_data import Arm, Comparison, compare_policies
from sarm_control.comparison.trained_run import RunControls, TrainedRun
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.control import Floats
from sarm_control.data import Row
from sarm_control.embedded import LAB
from sarm_control.errors import ConfigError, DataError
from sarm_control.reward_model import RewardModel
from sarm_control.training import NO_CONTROL, Policy, encode_prompts, training_rows

Gold: TypeAlias = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]
"""Gold rewards [N] of prompts and responses; nothing is trained on them."""


class ComparisonResult(NamedTuple):
    """A comparison, and every answer as a row for `answers.jsonl`."""

    comparison: Comparison
    answers: list[dict[str, Any]]


class _Answered(NamedTuple):
    """Every policy's answers, and the [P, M] rewards of each run's own reference answers, if it has any."""

    base: PolicyAnswers
    trained: list[PolicyAnswers]
    references: list[Floats | None]


def compare_runs(
    runs: Sequence[TrainedRun],
    rows: Sequence[Row],
    rm: RewardModel,
    sampling: Sampling,
    *,
    gold: Gold | None = None,
    device: str | None = None,
    progress: ProgressFactory = no_progress,
) -> ComparisonResult:
    """Answers every row's prompt with the base and each trained policy, and measures the answers.

    Args:
        runs: at least one; all start from the same base policy, which answers once. Their order does not
            matter: see `in_order`.
        rows: one per prompt.
        rm: scores every answer of every arm (an arm is a run in the comparison).
        sampling: how answers are sampled; the same for all.
        gold: judges every answer, in addition to the reward model.
        device: of the policies.
        progress: see `sarm_control.console.progress`.

    Raises:
        ConfigError: the runs have different base policies.
        ModelError: a run was trained with another head than `rm`'s.
    """
    check_same_base(runs)
    runs = in_order(runs)
    names = run_names([run.path for run in runs])
    # all before the first answer: a run of another head is refused at once
    controls = [run.open_controls(rm) for run in runs]
    answered = _answer(runs, names, controls, rows, rm, sampling, device, progress)
    texts = [row.prompt_text for row in rows]
    if gold is not None:
        answered = _with_gold(answered, texts, gold)
    each = zip(names, runs, controls, answered.trained, answered.references, strict=True)
    arms = [_arm(*parts, answered.base) for parts in each]
    # where runs penalise one latent from different thresholds, the first run's counts
    thresholds = {latent: tau for own in reversed(controls) for latent, tau in own.thresholds.items()}
    comparison = compare_policies(answered.base, arms, texts, thresholds=thresholds, seed=sampling.seed)
    table = _answer_rows("base", answered.base, texts)
    for arm in arms:
        table += _answer_rows(arm.name, arm.answers, texts)
    return ComparisonResult(comparison, table)


def _with_gold(answered: _Answered, texts: Sequence[str], gold: Gold) -> _Answered:
    def judged(answers: PolicyAnswers) -> PolicyAnswers:
        prompts = [texts[p] for p in answers.prompts]
        return replace(answers, gold=gold(prompts, answers.responses))

    return answered._replace(
        base=judged(answered.base), trained=[judged(answers) for answers in answered.trained]
    )


def unique_prompts(rows: Sequence[Row]) -> list[Row]:
    """The first row of each distinct prompt, in order."""
    # a later entry of a dict replaces an earlier one: from behind, so that the first row stays
    return list({row.prompt_key: row for row in reversed(rows)}.values())[::-1]


def trained_on(runs: Sequence[TrainedRun], rows: Sequence[Row]) -> int | None:
    """How many of the prompts some run was trained on; None when a run's data is missing."""
    seen: set[str] = set()
    try:
        for run in runs:
            seen |= {row.prompt_key for row in training_rows(run.config.data).kept}
    # a run may have been copied here without its data: that is unknown then, and no reason to stop
    except DataError:
        return None
    return sum(row.prompt_key in seen for row in rows)


def sampling_of(
    runs: Sequence[TrainedRun], answers_per_prompt: int, max_new_tokens: int | None, seed: int, batch: int
) -> Sampling:
    """How runs that are compared sample: at their own temperature, up to the longest answers of any.

    Args:
        runs: at least one.
        answers_per_prompt: of each policy.
        max_new_tokens: longest answer; the longest of the runs where None.
        seed: of the answers.
        batch: answers decoded together; changes no result.

    Raises:
        ConfigError: the runs have different temperatures.
    """
    training = runs[0].config.training
    longest = max_new_tokens or max(run.config.training.max_new_tokens for run in runs)
    for run in runs[1:]:
        if run.config.training.temperature != training.temperature:
            raise ConfigError(
                f"{run.path} sampled at temperature {run.config.training.temperature:g}, "
                f"{runs[0].path} at {training.temperature:g}",
                hint="compare runs of one temperature: KL depends on it",
            )
    return Sampling(answers_per_prompt, longest, training.temperature, seed, batch)


def check_same_base(runs: Sequence[TrainedRun]) -> None:
    """Refuses runs that cannot share the base policy's answers.

    Raises:
        ConfigError: two runs that differ, or a run that is given twice; the message names them.
    """
    first = runs[0]
    for position, run in enumerate(runs[1:], start=1):
        if run.path.resolve() in {other.path.resolve() for other in runs[:position]}:
            raise ConfigError(f"{run.path} is given twice", hint="give each run once")
        # changes are paired with one base by prompt: with two bases they would
        # be changes from different things
        if _place(run.config.policy.model) != _place(first.config.policy.model):
            raise ConfigError(
                f"{run.path} trained {run.config.policy.model}, "
                f"{first.path} trained {first.config.policy.model}",
                hint="compare runs that start from one base policy",
            )


def in_order(runs: Sequence[TrainedRun]) -> list[TrainedRun]:
    """The runs in the order of the report, which does not depend on the order given.

    Runs without controls come first; otherwise they are sorted by the names of their folders.
    """

    def place(run: TrainedRun) -> tuple[bool, str, str]:
        return run.role != NO_CONTROL, run.path.resolve().name, str(run.path.resolve())

    return sorted(runs, key=place)


def run_names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parent folders as make them unique and none of them `base`."""
    parts = [path.resolve().parts for path in paths]
    # `base` is the name of the base policy in tables of answers
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names) and "base" not in names:
            break
    return names


def _answer(
    runs: Sequence[TrainedRun],
    names: Sequence[str],
    controls: Sequence[RunControls],
    rows: Sequence[Row],
    rm: RewardModel,
    sampling: Sampling,
    device: str | None,
    progress: ProgressFactory,
) -> _Answered:
    """Answers with one policy in memory at a time; the first one's reference is the base policy."""
    base: PolicyAnswers | None = None
    trained, references = [], []
    for run, name, own in zip(runs, names, controls, strict=True):
        # the name is taken over by the next run's policy, and the memory of this one is freed
        policy: Policy = run.load_policy(device=device)
        prompts = encode_prompts(
            policy, [row.prompt for row in rows], [row.where for row in rows], sampling.max_new_tokens
        )
        # every run has the same base, so it answers once
        if base is None:
            rollout = answer_prompts(
                policy, prompts, sampling, reference=True, label="Base policy answers", progress=progress
            )
            base = scored_answers(rollout, rm, sampling, progress=progress)
        rollout = answer_prompts(policy, prompts, sampling, label=f"{name} answers", progress=progress)
        divergence = kl_to_base(policy, rollout, sampling)
        trained.append(scored_answers(rollout, rm, sampling, divergence=divergence, progress=progress))
        references.append(run.reference_rewards(policy, rows, rm, own))
    assert base is not None
    return _Answered(base, trained, references)


def _arm(
    name: str,
    run: TrainedRun,
    controls: RunControls,
    answers: PolicyAnswers,
    references: Floats | None,
    base: PolicyAnswers,
) -> Arm:
    def parts(of: PolicyAnswers) -> Columns:
        return controls.parts(of.scored, None if references is None else references[of.prompts], of.responses)

    return Arm(
        name=name,
        role=run.role,
        answers=answers,
        parts=parts(answers),
        base_parts=parts(base),
        controlled=controls.controlled,
        controls=controls.in_words(),
        steps=run.checkpoint.step,
        kl_coef=run.config.training.kl_coef,
        kl_price=run.kl_price,
        curves=run.curves(),
    )


def _answer_rows(name: str, answers: PolicyAnswers, texts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "policy": name,
            "prompt": texts[answers.prompts[j]],
            "response": answers.responses[j],
            "reward": float(answers.scored.rewards[j]),
            **({} if answers.gold is None else {"gold": float(answers.gold[j])}),
            "kl": None if answers.kl is None else float(answers.kl[j]),
            "length": int(answers.lengths[j]),
            "ended": bool(answers.scored.ended[j]),
        }
        for j in range(len(answers.responses))
    ]


def _place(model: str) -> str:
    return str(Path(model).resolve()) if model != LAB and Path(model).is_dir() else model
