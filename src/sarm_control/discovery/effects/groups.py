"""The same latents on every kind of prompt apart: what holds on average may turn on one of them.

Of RM-Bench's safety prompts a third should be answered, not refused: a latent that promotes refusing
harms there.

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
    """What one latent does on one kind of prompt.

    Args:
        part: "selection" or "confirmation": the prompts it is measured on. Those of the selection
            chose the latent, which makes its effects there look larger than they are.
        latent: its number.
        group: the column's value.
        effect: mean margin contribution, reward units, with its 95 % interval.
        turned: the effect has the other sign than over all prompts, and its interval leaves out 0.
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
    """The prompts of each value of a column, values in order; prompts without the column are in none."""
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
        part: what these prompts are called.
        pairs: the prompts.
        column: of the data; None makes no groups.
        features: the called latents.
    """
    latents = np.array([one.latent for one in features], dtype=np.int64)
    columns = margin_contributions(pairs.latents)[:, latents]
    found = []
    for value, members in group_members(pairs, column).items():
        if len(members) < 2 or not len(latents):
            continue
        for one, effect in zip(features, mean_intervals(columns[np.asarray(members)]), strict=True):
            turned = (effect.high if one.effect > 0 else -effect.low) < 0
            found.append(GroupEffect(part, one.latent, value, effect, turned))
    return tuple(found)
