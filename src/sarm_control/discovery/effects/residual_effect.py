"""The effect of the residual on a preference: what no latent of an attached dictionary holds.

The reward of a reward model with a head of its own is latents, constant and residual. The constant cancels
in a margin, so the effects of all latents and of the residual sum to the mean margin. The residual is tested
as if it were one latent of weight 1: selected on some prompts, confirmed on others.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sarm_control.discovery.effects.effects import replicated_effects, reward_sd
from sarm_control.discovery.effects.kinds import Direction, direction
from sarm_control.discovery.pairs.margins import PairLatents, prompt_margins, residual_alone, residual_margins
from sarm_control.statistics import Interval, mean_interval


@dataclass(frozen=True)
class ResidualEffect:
    """The residual's part of the margin, on the confirmation prompts.

    Args:
        effect: mean over prompts, reward units, with its 95 % interval.
        direction: "promotes" or "harms" where it was selected on the selection prompts and confirmed; else
            None.
        p: two-sided, on the selection prompts.
        p_confirm: on the confirmation prompts; None where it was not selected.
        share_of_margin: effect over mean margin; None where that is 0.
        sd_share: SD of the residual over SD of the reward, over answers; None where rewards do not vary.
    """

    effect: Interval
    direction: Direction | None
    p: float
    p_confirm: float | None
    share_of_margin: float | None
    sd_share: float | None

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**asdict(self), "effect": self.effect.as_json()}


def residual_effect(
    selection: PairLatents, confirmation: PairLatents, *, alpha: float = 0.05, seed: int = 0
) -> ResidualEffect | None:
    """Tests the residual on both parts; None for a SARM, whose latents make up its whole reward.

    Args:
        selection: the prompts that select.
        confirmation: other prompts, scored by the same head.
        alpha: the level of both tests. The residual is one, so nothing is corrected.
        seed: of the redraws of labels.
    """
    if confirmation.chosen_residual is None or confirmation.rejected_residual is None:
        return None
    # the same tests as of latents, so that its direction means the same as theirs
    parts = residual_alone(selection), residual_alone(confirmation)
    rows = list(replicated_effects(*parts, alpha=alpha, min_prompts=1, seed=seed).rows())
    margins, sd = residual_margins(confirmation), reward_sd(confirmation)
    mean, whole = float(margins.mean()), float(prompt_margins(confirmation).mean())
    answers = np.concatenate([confirmation.chosen_residual, confirmation.rejected_residual])
    return ResidualEffect(
        effect=mean_interval(margins),
        # a dictionary that holds everything leaves a residual of 0, which nothing tests
        direction=direction(rows[0]["kind"]) if rows else None,
        p=rows[0]["p"] if rows else 1.0,
        p_confirm=rows[0]["p_confirm"] if rows else None,
        share_of_margin=mean / whole if whole else None,
        sd_share=float(answers.std(ddof=1)) / sd if sd else None,
    )
