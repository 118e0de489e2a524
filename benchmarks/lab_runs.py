"""What `lab_study.py` runs beside the package: arms of one kind of control, fresh audit sets, rows and means.

Shapes: `R` runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sarm_control.control import Controls, HumanKL, Penalty
from sarm_control.data import read_rows
from sarm_control.discovery import Feature, suggested
from sarm_control.files import write_jsonl
from sarm_control.lab.datasets import audit_rows
from sarm_control.lab.study.trial import Trial
from sarm_control.lab.world import World
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel

BETA = "0.1sd"
"""Weight of the human-KL arm: SDs of the reward for a nat."""
TARGET_RATE = 0.05


def variants(harms: Sequence[Feature]) -> dict[str, Controls]:
    """Each kind of control alone, and together.

    - `controls`: what discovery suggests, edits and penalties.
    - `edits`, `penalties`: these two apart.
    - `target rates`: the penalties hold the firing rate at 5 % instead of taking a fixed amount off.
    - `human KL`: knows nothing of the discovery.
    - `together`: suggested edits and penalties, and the human KL.
    """
    both, human = suggested(harms), HumanKL(beta=BETA)
    targets = [replace(penalty, alpha=None, target_rate=TARGET_RATE) for penalty in both.penalties]
    return {
        "controls": both,
        "edits": Controls(edits=both.edits),
        "penalties": Controls(penalties=both.penalties),
        "target rates": Controls(penalties=targets),
        "human KL": Controls(human_kl=human),
        "together": replace(both, human_kl=human),
    }


def with_residual(controls: Controls) -> Controls:
    """The same controls and a penalty on the residual, for a reward model with an attached dictionary."""
    penalty = Penalty("residual", tau="q0.95", alpha="1sd", form="hinge")
    return replace(controls, penalties=(*controls.penalties, penalty))


def reward_model_of(world: World, *, attached: bool) -> RewardModel:
    """The world's SARM, or its classifier with a dictionary."""
    return RewardModel.from_pretrained(str(world.attached if attached else world.sarm), device="cpu")


def fresh_audit(world: World, model: RewardModel, number: int, folder: Path) -> ScoredRows:
    """Another audit set of the same size, disjoint from every file of the world, scored.

    Args:
        world: where the pairs are from.
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
        "residual_start": float(start.residual.mean()),
        "residual_end": float(end.residual.mean()),
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


def mean_of_runs(values: Sequence[float]) -> Estimate:
    """[R] values, one for each run, as their mean; runs are the unit."""
    from scipy import stats

    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, None, None, count)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Estimate(mean, mean - half, mean + half, count)
