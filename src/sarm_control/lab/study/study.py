"""What a study over worlds and seeds measures: discovery against planted truth, and arms against each other.

Shapes: `R` runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sarm_control.data import read_rows
from sarm_control.discovery import Discovery, Feature, material_latents
from sarm_control.files import write_jsonl
from sarm_control.lab.datasets import audit_rows
from sarm_control.lab.judges.truth import Truth
from sarm_control.lab.study.trial import Trial
from sarm_control.lab.world import World
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel


class Called(NamedTuple):
    """Harming latents a discovery called, against the planted truth.

    Args:
        latents: called, largest effect first.
        found: of the latents with population d_z <= -0.2, how many were called.
        harming: how many of those there are.
        false: called ones whose population effect is not below zero by 2 standard errors.
    """

    latents: tuple[int, ...]
    found: int
    harming: int
    false: int

    @property
    def recall(self) -> float | None:
        """None when no latent harms."""
        return self.found / self.harming if self.harming else None

    @property
    def precision(self) -> float | None:
        """None when nothing was called."""
        return 1 - self.false / len(self.latents) if self.latents else None


def judge(latents: Sequence[int], truth: Truth) -> Called:
    """Called latents against the planted truth."""
    found = len(truth.harming & set(latents))
    false = len(set(latents) - truth.below_zero)
    return Called(tuple(latents), found, len(truth.harming), false)


def called(found: Discovery, truth: Truth, *, of_sd: float = 0.0) -> Called:
    """The latents of a discovery that harm by at least `of_sd` SDs of the reward, judged."""
    harms: tuple[Feature, ...] = material_latents(found.lists["harms"], of_sd=of_sd)
    return judge([one.latent for one in harms], truth)


def shipped_audit(world: World, model: RewardModel) -> ScoredRows:
    """The world's own audit set, scored."""
    rows = read_rows(world.file("audit"), want={"pair"})
    return ScoredRows(rows, score_rows(model, rows))


def fresh_audit(world: World, model: RewardModel, number: int, folder: Path) -> ScoredRows:
    """Another audit set of the same size, disjoint from every file of the world, scored.

    Args:
        world: where.
        model: its reward model.
        number: of the set; the same number gives the same pairs.
        folder: where the rows are written.
    """
    size = len(read_rows(world.file("audit"), want={"pair"}))
    pairs = world.fresh_writer().gold_pairs(size, f"audit set {number}")
    write_jsonl(folder / f"audit-{number}.jsonl", audit_rows(pairs))
    rows = read_rows(folder / f"audit-{number}.jsonl", want={"pair"})
    return ScoredRows(rows, score_rows(model, rows))


def run_row(trial: Trial) -> dict[str, float]:
    """One run's means at its start and end, SDs over the start's answers, KL and length at its end."""
    start, end = trial.start, trial.end
    return {
        "reward_start": float(start.reward.mean()),
        "reward_end": float(end.reward.mean()),
        "reward_sd": float(start.reward.std(ddof=1)),
        "gold_start": float(start.gold.mean()),
        "gold_end": float(end.gold.mean()),
        "gold_sd": float(start.gold.std(ddof=1)),
        "length_start": float(start.length.mean()),
        "length_end": float(end.length.mean()),
        "kl": float(trial.curve[-1]["objective/kl"]) if trial.curve else 0.0,
    }


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with a 95 % t interval; `low` and `high` are None for fewer than two runs."""

    mean: float
    low: float | None
    high: float | None
    runs: int

    def as_json(self) -> Mapping[str, float | int | None]:
        """The estimate as a JSON object."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "runs": self.runs}

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:+.2f}"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def mean_of_runs(values: Sequence[float]) -> Estimate:
    """[R] values, one for each run, as their mean; runs are the unit."""
    from scipy import stats

    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, None, None, count)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Estimate(mean, mean - half, mean + half, count)
