"""The guard: how often a reward prefers the chosen answer, before a mend and after it.

Shapes: `Q` prompts with pairs, `N` answers.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.table import Floats
from sarm_control.errors import DataError
from sarm_control.evaluation import answer_table, pair_accuracy
from sarm_control.latents import ScoredRows
from sarm_control.statistics import Flips, Interval, change_of_shares, flips


class PairCredit(NamedTuple):
    """Share of each prompt's pairs in which the chosen answer has the higher reward.

    Args:
        prompt: [Q] numbers, as `answer_table` gives them.
        credit: [Q] 0..1.
    """

    prompt: NDArray[np.int64]
    credit: Floats

    def of(self, kept: NDArray[np.bool_]) -> "PairCredit":
        """The chosen ones of all prompts [P]."""
        chosen = kept[self.prompt]
        return PairCredit(self.prompt[chosen], self.credit[chosen])


class Guard(NamedTuple):
    """What a mend does to the accuracy on pairs.

    Args:
        before: share of pairs that are preferred rightly, prompts counting alike.
        after: the same of the mended reward.
        change: after less before, over prompts.
        flips: prompts that turned right and wrong, with McNemar's exact test.
    """

    before: float
    after: float
    change: Interval
    flips: Flips

    @property
    def cost(self) -> float:
        """Points of accuracy lost; below 0 where the mend gains."""
        return 100 * (self.before - self.after)


def pair_credit(data: ScoredRows, rewards: Floats) -> PairCredit:
    """The credit of every prompt that has pairs.

    Args:
        data: rows; those without chosen and rejected answers play no part.
        rewards: [N] of all their answers.

    Raises:
        DataError: there are no pairs.
    """
    places = answer_table(data.rows, len(rewards))
    pairs = np.array([bool(row.chosen) and bool(row.rejected) for row in data.rows])
    if not pairs.any():
        raise DataError("no pairs, so no guard", hint="give rows with chosen and rejected answers")
    sides = [places.by_row(rewards, role) for role in ("chosen", "rejected")]
    good, bad = ([side[i] for i in np.flatnonzero(pairs)] for side in sides)
    credit = pair_accuracy(good, bad)
    # several rows may be of one prompt, which counts once in every test below
    numbers, place, counts = np.unique(places.row_prompts()[pairs], return_inverse=True, return_counts=True)
    return PairCredit(numbers, np.bincount(place, weights=credit) / counts)


def guard(before: PairCredit, after: PairCredit) -> Guard:
    """Two rewards on the same prompts.

    Raises:
        DataError: there are no prompts.
    """
    if not len(before.prompt):
        raise DataError("no pairs, so no guard", hint="give rows with chosen and rejected answers")
    return Guard(
        float(before.credit.mean()),
        float(after.credit.mean()),
        change_of_shares(before.credit, after.credit),
        flips(before.credit, after.credit),
    )
