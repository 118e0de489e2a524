"""The steps of a run: each is observed and recorded, and checkpoints are saved."""

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
    """Takes a trainer through the steps of a run folder.

    Args:
        trainer: does the steps; of several processes only the main one writes.
        observer: runs the monitors and evaluations.
        folder: where the steps are recorded.
        steps: how many there are in all.
        save_every: steps between checkpoints.
        report: gets the lines of evaluations and warnings.

    Attributes:
        stopped: the warning that stopped the run before its last step, if one did.
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
        """Loads the checkpoint, or calibrates the reward and saves the untrained policy."""
        if start.checkpoint is None:
            self.trainer.calibrate()
            if isinstance(self.trainer.reward, PolicyReward) and self.is_main:
                write_reference(self.folder.path / REFERENCE, self.trainer.reward)
                head = self.trainer.reward.model.head.weight
                for line in self.trainer.reward.rule.controls.shortfalls(head):
                    self.report(f"warning: {line}")
            # a checkpoint before the first step: a run that is killed early goes on with the same reference
            self.save()
        else:
            saved = load_checkpoint(start.checkpoint)
            self.trainer.load_state(saved.tensors, saved.state)
            self.observer.load_state(saved.state.get("observer"))
        # rows of steps that an earlier process did after the checkpoint come again
        if self.is_main:
            cut_ledger(self.folder.path / LEDGER, self.trainer.done)

    def go(self, progress: ProgressFactory) -> dict[str, float]:
        """Does the steps that are left or stops on a warning; returns the metrics of the last step done."""
        last: dict[str, float] = {}
        with progress("Training", self.steps, self.trainer.done) as advance:
            while self.trainer.done < self.steps and self.stopped is None:
                last = self._step()
                advance(1, note=f"reward {last['reward/total']:.4f}, KL {last['objective/kl']:.3f}")
        return last

    def save(self) -> None:
        """Writes a checkpoint."""
        # in every process: gathering a sharded weight needs all of them
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
        # after the last step there is nothing to stop, and the run is finished as usual
        self.stopped = seen.stop if report.step < self.steps else None
        if report.step == self.steps or report.step % self.save_every == 0 or self.stopped:
            self.save()
        return metrics

    def _record(self, report: StepReport, metrics: dict[str, float], seen: Observed) -> None:
        if seen.entries:
            append_ledger(self.folder.path / LEDGER, report.step, seen.entries)
        evaluated = {} if seen.seconds is None else {"seconds/evaluation": seen.seconds}
        self.folder.record(
            report.step,
            metrics,
            timing={**report.timing, **evaluated},
            samples=report.samples,
            evaluation=seen.evaluation,
            warnings=seen.warnings,
        )
        for line in seen.lines:
            self.report(line)


def write_reference(path: Path, reward: PolicyReward) -> None:
    """Writes the reference policy's statistics, and the number that every symbolic amount stands for.

    Training reads the copy in the checkpoint; this file is for readers and for `ReferenceStatistics.load`.
    """
    assert reward.statistics is not None
    rule = reward.rule
    controls = rule.controls.to_dict()
    compared = reward.learner.discriminator
    if compared is not None:
        # a run file need not name the latents: the buffer then chose those that move the reward most
        controls["human_kl"]["latents"] = list(compared.human.latents)
    amounts = {"controls": controls, "missing_end": rule.missing_end}
    write_json(path, {**reward.statistics.to_dict(), **amounts})
