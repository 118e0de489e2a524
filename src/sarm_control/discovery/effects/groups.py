"""The effects of called latents on each group of prompts; an average effect may be reversed in one.

For example, a third of RM-Bench's safety prompts should be answered, not refused. A latent that promotes
refusals harms there.

Shapes: `P` prompts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sarm_control.discovery.features import Feature
from sarm_control.discovery.pairs.margins import margin_contributions
from sarm_control.discovery.pairs.prompt_pairs import PromptPairs
from sarm_control.statistics import Interval, mean_intervals


class GroupEffect(NamedTuple):
    """The effect of one latent on one group of prompts.

    Args:
        part: "selection" or "confirmation", the prompts on which it is measured. Effects on the selection
            prompts look larger than they are, because the latent was chosen on them.
        latent: its number.
        group: the column's value.
        effect: mean margin contribution, reward units, with its 95 % interval.
        turned: the sign is opposite to that over all prompts, and the interval excludes 0.
    """

    part: str
    latent: int
    group: str
    effect: Interval
    turned: bool

    def as_json(self) -> dict[str, object]:
        """The same as a JSON object."""
        return {**self._asdict(), "effect": self.effect.as_json()}


def group_members(pairs: PromptPairs, column: str | None) -> dict[str, list[int]]:
    """The prompts of each value of a column, values in order; prompts without the column are left out."""
    members: dict[str, list[int]] = {}
    for p, row in enumerate(pairs.rows):
        if column in row.raw:
            members.setdefault(str(row.raw[column]), []).append(p)
    return {value: members[value] for value in sorted(members)}


def group_effects(
    part: str, pairs: PromptPairs, column: str | None, features: Sequence[Feature]
) -> tuple[GroupEffect, ...]:
    """Effects of called latents on each group of at least two prompts.

    Args:
        part: the name of this part of the prompts.
        pairs: the prompts.
        column: of the data; None means no groups.
        features: the called latents.
    """
    latents = np.array([one.latent for one in features], dtype=np.int64)
    columns = margin_contributions(pairs.latents)[:, latents]
    effects = []
    for value, members in group_members(pairs, column).items():
        # one prompt has no interval, and its sign alone says nothing
        if len(members) < 2 or not len(latents):
            continue
        for feature, effect in zip(features, mean_intervals(columns[np.asarray(members)]), strict=True):
            # the whole interval is on the other side of 0
            turned = (effect.high if feature.effect > 0 else -effect.low) < 0
            effects.append(GroupEffect(part, feature.latent, value, effect, turned))
    return tuple(effects)
