"""The steps of a run, each recorded, looked at and saved when it is time."""

from pathlib import Path

from sarm_control.console import ProgressFactory
from sarm_control.files import write_json
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import StepReport, Trainer
from sarm_control.training.monitor.checks import Finding
from sarm_control.training.monitor.ledger_file import append_ledger, cut_ledger
from sarm_control.training.monitor.observer import Observed, Observer, Report
from sarm_control.training.run.checkpoint import load_checkpoint
from sarm_control.training.run.run_folder import RunFolder, Start

REFERENCE, LEDGER = "reference.json", "ledger.parquet"


class RunSteps:
    """A trainer on its way through a run folder.

    Args:
        trainer: does the steps; of several processes the first writes.
        observer: looks at them.
        folder: where they are recorded.
        steps: how many there are in all.
        save_every: steps between checkpoints.
        report: is given what evaluations and warnings say, a line at a time.

    Attributes:
        stopped: the warning the run stopped on before its last step, if it did.
    """

    def __init__(
        self,
        trainer: Trainer,
        observer: Observer,
        folder: RunFolder,
        *,
        steps: int,
        save_every: int,
        report: Report,
    ) -> None:
        self.trainer = trainer
        self.observer = observer
        self.folder = folder
        self.steps = steps
        self.save_every = save_every
        self.report = report
        self.stopped: Finding | None = None
        self.is_main = trainer.processes.is_main

    def begin(self, start: Start) -> None:
        """Takes up the checkpoint, or makes the first one of the untrained policy."""
        if start.checkpoint is None:
            self.trainer.calibrate()
            if isinstance(self.trainer.reward, PolicyReward) and self.is_main:
                write_reference(self.folder.path / REFERENCE, self.trainer.reward)
                head = self.trainer.reward.model.head.weight
                for line in self.trainer.reward.rule.controls.shortfalls(head):
                    self.report(f"warning: {line}")
            self.save()
        else:
            found = load_checkpoint(start.checkpoint)
            self.trainer.load_state(found.tensors, found.state)
            self.observer.load_state(found.state.get("observer"))
        if self.is_main:
            cut_ledger(self.folder.path / LEDGER, self.trainer.done)

    def go(self, progress: ProgressFactory) -> dict[str, float]:
        """Does what is left, up to the last step or a warning to stop on; the last step's metrics."""
        last: dict[str, float] = {}
        with progress("Training", self.steps) as advance:
            if self.trainer.done:
                advance(self.trainer.done)
            while self.trainer.done < self.steps and self.stopped is None:
                last = self._step()
                advance(1, note=f"reward {last['reward/total']:.4f}, KL {last['objective/kl']:.3f}")
        return last

    def save(self) -> None:
        """Writes a checkpoint."""
        state = self.trainer.state()
        values = {**state.values, "observer": self.observer.state()}
        if self.is_main:
            self.folder.save(self.trainer.done, state.tensors, values)

    def _step(self) -> dict[str, float]:
        report = self.trainer.step()
        seen = self.observer.after(report.step, report.metrics)
        metrics = {**report.metrics, **seen.metrics}
        if self.is_main:
            self._record(report, metrics, seen)
        self.stopped = seen.stop if report.step < self.steps else None
        if report.step == self.steps or report.step % self.save_every == 0 or self.stopped:
            self.save()
        return metrics

    def _record(self, report: StepReport, metrics: dict[str, float], seen: Observed) -> None:
        if seen.entries:
            append_ledger(self.folder.path / LEDGER, report.step, seen.entries)
        took = {} if seen.seconds is None else {"seconds/evaluation": seen.seconds}
        self.folder.record(
            report.step,
            metrics,
            timing={**report.timing, **took},
            samples=report.samples,
            evaluation=seen.evaluation,
            warnings=seen.warnings,
        )
        for line in seen.lines:
            self.report(line)


def write_reference(path: Path, reward: PolicyReward) -> None:
    """The reference policy's statistics, and what every symbolic amount of the controls came to.

    Training reads the copy in the checkpoint; this one is to look at, or for `ReferenceStatistics.load`.
    """
    assert reward.statistics is not None
    rule = reward.rule
    controls = rule.controls.to_dict()
    compared = reward.learner.discriminator
    if compared is not None:
        # a run file need not name them: the buffer then has the latents that move the reward most
        controls["human_kl"]["latents"] = list(compared.human.latents)
    amounts = {"controls": controls, "missing_end": rule.missing_end}
    write_json(path, {**reward.statistics.to_dict(), **amounts})
