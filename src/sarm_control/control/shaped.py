"""The result of shaping: the reward that the policy sees, and each part of it.

Shapes: `N` answers, `P` penalties.
"""

from dataclasses import dataclass, field

import numpy as np

from sarm_control.control.density_ratio import Array
from sarm_control.control.penalties import Watched


@dataclass(frozen=True, eq=False)
class ShapedReward:
    """The reward of N answers under controls, in reward units; `total = edited - penalties - human_kl`.

    Args:
        total: [N] float64, what the policy is trained on.
        reward_model: [N] float64, the reward without controls.
        edited: [N] float64, the reward after the edits.
        penalties: [N, P] float64, >= 0; what each penalty subtracts.
        human_kl: [N] float64, `beta * l_j`, or `beta * KL` in batch mode; what the human-KL term subtracts
            (it raises the reward when negative).
        log_ratio: [N] float64 `l_j` in nats; None without a human-KL term.
        penalty_latents: the latent of each penalty, or `residual`; P of them.
        info: metrics by name: the mean of every column, `latent/<id>/rate` (share of answers with
            the unedited z above 0), `penalty/<id>/rate` and `penalty/<id>/variance_share` (of the
            variance of the total), `penalty/<id>/alpha` (reward units, where a target rate moves it), and
            the `human_kl/` metrics of `HumanDivergence`. Where a latent has two penalties, their names
            are `penalty/<id>/<form>/...`.
    """

    total: Array
    reward_model: Array
    edited: Array
    penalties: Array
    human_kl: Array
    log_ratio: Array | None
    penalty_latents: tuple[Watched, ...] = ()
    info: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.total)

    def columns(self) -> dict[str, Array]:
        """Every signed part by its metric name, each [N]; all but `reward/total` sum to `reward/total`.

        Two penalties of one latent share its column.
        """
        columns = {"reward/model": self.reward_model, "reward/edits": self.edited - self.reward_model}
        for latent, amount in zip(self.penalty_latents, self.penalties.T, strict=True):
            name = f"reward/penalty/{latent}"
            columns[name] = columns.get(name, np.zeros(len(self))) - amount
        return {**columns, "reward/human_kl": -self.human_kl, "reward/total": self.total}
