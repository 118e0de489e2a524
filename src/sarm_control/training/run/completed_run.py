"""Runs that are finished, and whether their trained policy is still there."""

from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.errors import TrainingError
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.run import checkpoint
from sarm_control.training.run.run_folder import check_same_config, finished_step

POLICY, ADAPTER = "policy", "adapter"


class FinishedRun(NamedTuple):
    """A run without a step left to do, whose trained policy is there.

    Args:
        step: steps done.
        saved: the folders of the trained policy.
        missing: what is wrong with its last checkpoint, in words; None when it is good.
    """

    step: int
    saved: tuple[str, ...]
    missing: str | None

    def summary(self) -> dict[str, Any]:
        """The summary of `run_training` for a run that did no step."""
        return {
            "step": self.step,
            "steps_now": 0,
            "metrics": {},
            "saved": list(self.saved),
            "stopped": None,
        }


def finished_run(path: Path, config: RunConfig) -> FinishedRun | None:
    """The run, if no step is left; None also where the policy is gone but can be saved from a checkpoint.

    Args:
        path: the run folder.
        config: the settings given now.

    Raises:
        ConfigError: they are not the run's.
        TrainingError: the run is marked as finished, but its policy and its last checkpoint are gone.
    """
    step = finished_step(path)
    if step is None:
        return None
    check_same_config(path, config)
    # `training.steps` may grow on resume: the run has then steps left
    if step < config.training.steps:
        return None
    missing = _newest_missing(path, step)
    if _is_policy(path / POLICY):
        saved = tuple(name for name in (POLICY, ADAPTER) if (path / name).is_dir())
        return FinishedRun(step, saved, missing)
    if missing is None:
        return None
    raise TrainingError(
        f"{path} says that all {step} steps are done, but {path / POLICY} is missing and {missing}",
        hint="put one of them back, or start over with --overwrite",
    )


def _newest_missing(path: Path, step: int) -> str | None:
    found = checkpoint.list_checkpoints(path)
    if not found:
        return f"{path / checkpoint.FOLDER} holds no checkpoint"
    newest = found[-1]
    if checkpoint.step_of(newest) != step:
        return f"its newest checkpoint is {newest}"
    reason = checkpoint.damage(newest)
    return None if reason is None else f"{newest} is damaged: {reason}"


def _is_policy(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
