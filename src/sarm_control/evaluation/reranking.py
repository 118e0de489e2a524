"""What edits do to a choice among candidates: who wins, and what the winner is like.

Shapes: `P` prompts, `C` candidates of all of them, `m` candidates of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sarm_control.control.edits import Edit, edited_rewards
from sarm_control.discovery.statistics import Interval, mean_interval
from sarm_control.evaluation.answer_table import Floats
from sarm_control.evaluation.best_of_n import win_shares
from sarm_control.evaluation.candidates import CandidateSets
from sarm_control.sarm.scored import Scored

REWARD = "reward"
"""The unedited reward, which is an attribute of a winner too."""


class Expected(NamedTuple):
    """What the winner is like, without and with the edits.

    Args:
        attribute: its name.
        n: candidates of a set; None for all that a prompt has.
        before: mean over prompts of the winner's attribute without the edits.
        after: the same with them.
        change: their difference.
        rises: prompts where the attribute of the winner rises.
        falls: prompts where it falls.
    """

    attribute: str
    n: int | None
    before: Interval
    after: Interval
    change: Interval
    rises: int
    falls: int

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        means = {name: getattr(self, name).as_json() for name in ("before", "after", "change")}
        return {"attribute": self.attribute, "n": self.n, **means, "rises": self.rises, "falls": self.falls}


@dataclass(frozen=True)
class Reranking:
    """Edits tried on the choice among candidates.

    Args:
        before: [C] rewards without the edits.
        after: [C] rewards with them.
        changed: share of prompts whose winner changes; where several candidates tie for the win, the
            share of the win that goes elsewhere.
        winners: the winner among all candidates of a prompt, by attribute.
        curve: the same for each N asked for, over the prompts that have N candidates.
        too_large: Ns that no prompt has candidates for.
    """

    before: Floats
    after: Floats
    changed: Interval
    winners: tuple[Expected, ...]
    curve: tuple[Expected, ...]
    too_large: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """The summary, without the candidates."""
        return {
            "changed": self.changed.as_json(),
            "winners": [one.as_json() for one in self.winners],
            "curve": [one.as_json() for one in self.curve],
            "too_large": list(self.too_large),
        }


def rerank(sets: CandidateSets, scored: Scored, edits: Sequence[Edit], *, n: Sequence[int] = ()) -> Reranking:
    """Chooses among the candidates without and with the edits.

    Args:
        sets: the candidates of every prompt.
        scored: the scores they were made from.
        edits: at most one for a latent; none leaves every winner as it is.
        n: sizes of set for the best-of-N curve, at least 1.
    """
    before = scored.rewards.astype(np.float64)[sets.answers]
    after = edited_rewards(scored, edits)[sets.answers]
    attributes = {REWARD: before, **sets.attributes}
    shares = (winners(sets, before), winners(sets, after))
    moved = np.abs(shares[1] - shares[0])
    changed = mean_interval(np.add.reduceat(moved, sets.starts[:-1]) / 2)
    usable = [size for size in dict.fromkeys(n) if size <= sets.sizes.max()]
    curve = [
        one
        for size in usable
        for one in _expected(sets, attributes, (before, after), size, sets.sizes >= size)
    ]
    return Reranking(
        before,
        after,
        changed,
        tuple(_expected(sets, attributes, (before, after), None, sets.sizes > 0)),
        tuple(curve),
        tuple(size for size in dict.fromkeys(n) if size not in usable),
    )


def winners(sets: CandidateSets, rewards: Floats, n: int | None = None) -> Floats:
    """[C] the share of its prompt's sets of n (all candidates when None) that each candidate wins.

    A prompt with fewer than n candidates gets zeros.
    """
    shares = np.zeros(len(rewards))
    for span in sets.spans():
        size = span.stop - span.start
        if n is None or size >= n:
            shares[span] = win_shares(rewards[span], n or size)
    return shares


def _expected(
    sets: CandidateSets,
    attributes: Mapping[str, Floats],
    rewards: tuple[Floats, Floats],
    n: int | None,
    prompts: Any,
) -> list[Expected]:
    shares = [winners(sets, side, n) for side in rewards]
    found = []
    for name, values in attributes.items():
        before, after = (np.add.reduceat(share * values, sets.starts[:-1])[prompts] for share in shares)
        change = np.where(np.isclose(after, before, rtol=1e-12, atol=0), 0.0, after - before)
        means = [mean_interval(column) for column in (before, after, change)]
        found.append(
            Expected(name, n, means[0], means[1], means[2], int((change > 0).sum()), int((change < 0).sum()))
        )
    return found
