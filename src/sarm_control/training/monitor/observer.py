"""Observes each step: the monitors of every step, and an evaluation when one is due."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.control import Penalty
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.config.run_config import EvaluationConfig, TrainingConfig
from sarm_control.training.data.usable_prompts import EvaluationPrompts
from sarm_control.training.monitor.checks import Check, Finding, Watch
from sarm_control.training.monitor.evaluation import Gold, PromptEvaluation
from sarm_control.training.monitor.ledger_file import Entry
from sarm_control.training.policy.policy import Policy

Report = Callable[[str], None]


def report_nothing(line: str) -> None:
    """A `Report` that drops its lines."""
    del line


class Observed(NamedTuple):
    """What is to be recorded and reported about a step.

    Args:
        metrics: of the monitors of every step, the same in equal runs.
        evaluation: metrics of an evaluation and its monitors; empty in steps without one.
        entries: the ledger of the evaluation; empty in steps without one.
        warnings: monitors that began to fire, as rows.
        lines: for the terminal.
        seconds: duration of the evaluation; None without one.
        stop: the first warning that stops the run.
    """

    metrics: dict[str, float]
    evaluation: dict[str, float]
    entries: list[Entry]
    warnings: list[dict[str, Any]]
    lines: list[str]
    seconds: float | None
    stop: Finding | None


class Observer:
    """Observes a run step by step; its state belongs in the checkpoint.

    Args:
        penalties: of the run.
        evaluation: None when evaluations are off.
        every: steps between evaluations.
        steps: of the run; the last one always has an evaluation.
        stop_on: monitors that stop the run when they begin to fire.
    """

    def __init__(
        self,
        penalties: Sequence[Penalty],
        evaluation: PromptEvaluation | None,
        *,
        every: int,
        steps: int,
        stop_on: Sequence[Check] = (),
    ) -> None:
        self.watch = Watch(penalties)
        self.evaluation = evaluation
        self.every = every
        self.steps = steps
        self.stop_on = frozenset(stop_on)

    def after(self, step: int, metrics: Mapping[str, float]) -> Observed:
        """Judges a step by its metrics and by the policy as it is; changes neither policy nor controls."""
        # judged apart from the evaluation's findings, which come more rarely: a monitor that was not looked
        # at keeps its state
        seen = self.watch.judge(self.watch.step(metrics))
        begun, lines, seconds = list(seen.begun), [], None
        numbers: dict[str, float] = {}
        entries: list[Entry] = []
        if self.evaluation is not None and (step == self.steps or step % self.every == 0):
            clock = time.perf_counter()
            # nats per answer over tokens per answer, as the monitor's limit is in nats per token
            result = self.evaluation.run(metrics["objective/kl"] / metrics["answers/length"])
            judged = self.watch.judge(result.findings)
            begun += judged.begun
            numbers, entries = {**result.metrics, **judged.metrics}, result.entries
            lines.append(f"evaluation after step {step}: {result.line()}")
            seconds = time.perf_counter() - clock
        lines += [f"warning: {finding.text}" for finding in begun]
        stop = next((finding for finding in begun if finding.check in self.stop_on), None)
        rows = [_row(finding) for finding in begun]
        return Observed(seen.metrics, numbers, entries, rows, lines, seconds, stop)

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return self.watch.state()

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Restores what `state` returned; a checkpoint of an older version has none."""
        if state is not None:
            self.watch.load_state(state)


def build_observer(
    evaluation: EvaluationConfig,
    training: TrainingConfig,
    prompts: EvaluationPrompts,
    policy: Policy,
    reward: PolicyReward,
    gold: Gold | None,
) -> Observer:
    """Builds the observer of a run.

    Args:
        evaluation: how often there is an evaluation, and which monitors stop the run.
        training: steps, lengths, temperature, seed.
        prompts: those of the evaluations.
        policy: the policy of the run.
        reward: its reward.
        gold: judges answers to the evaluation prompts, where a program can.
    """
    judge = None
    if prompts.rows:
        judge = PromptEvaluation(
            policy,
            reward,
            prompts.rows,
            training,
            should_respond=prompts.should_respond,
            gold=gold,
        )
    return Observer(
        reward.controls.penalties,
        judge,
        every=evaluation.every,
        steps=training.steps,
        stop_on=evaluation.stop_on,
    )


def _row(finding: Finding) -> dict[str, Any]:
    about = {} if finding.latent is None else {"latent": finding.latent}
    form = {} if finding.form is None else {"form": finding.form}
    return {"check": finding.check, **about, **form, "value": finding.value, "text": finding.text}
