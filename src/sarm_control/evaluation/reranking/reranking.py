"""The effect of edits on a choice among candidates: which one wins, and the winner's attributes.

For the best of N, a set of N candidates is drawn from the m given ones, without replacement, and all sets are
equally likely. The highest reward wins, and ties share the win. The k-th smallest of m different rewards has

    P(wins) = C(k - 1, N - 1) / C(m, N)

so no simulation is needed (the best-of-n estimator of arXiv 2112.09332).

Shapes: `P` prompts, `C` candidates of all of them, `m` candidates of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, edited_rewards
from sarm_control.evaluation.answer_places import Floats
from sarm_control.evaluation.reranking.candidates import CHOSEN, CandidateSets
from sarm_control.notebooks import data_frame, ends_of
from sarm_control.reward_model import Scored
from sarm_control.statistics import Interval, change_of_shares, mean_interval, share_interval


def win_shares(rewards: Floats, n: int) -> Floats:
    """[m] the share of all sets of n candidates that each one wins; they sum to 1.

    Args:
        rewards: [m] of the candidates.
        n: size of a set, 1..m. With n = m only the best candidate wins; with n = 1 all win equally often.
    """
    ordered = np.sort(rewards)
    lower, not_higher = (np.searchsorted(ordered, rewards, side=side) for side in ("left", "right"))
    within = _share_within(len(rewards), n)
    # a set is won at a reward level when all its members are at or below it and not all are below it
    shares: Floats = (within[not_higher] - within[lower]) / (not_higher - lower)
    return shares


@lru_cache(maxsize=256)
def _share_within(m: int, n: int) -> NDArray[np.float64]:
    """[m + 1] C(k, n) / C(m, n) for k = 0..m: the share of sets that lie within k given candidates."""
    # a product of ratios, since binomials of many candidates overflow
    k, i = np.arange(m + 1)[:, None], np.arange(n)[None, :]
    return np.asarray(np.prod(np.maximum(k - i, 0) / (m - i), axis=1))


REWARD = "reward"
"""The unedited reward as an attribute of the winner."""


class Expected(NamedTuple):
    """The expected attribute of the winner, without and with the edits.

    Args:
        attribute: its name.
        n: number of candidates of a set; None for all candidates of a prompt.
        before: mean over prompts of the winner's attribute without the edits.
        after: the same with them.
        change: their difference.
        rises: number of prompts where the attribute of the winner rises.
        falls: number of prompts where it falls.
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
    """The effect of edits on the choice among candidates.

    Args:
        before: [C] rewards without the edits.
        after: [C] rewards with them.
        changed: share of prompts whose winner changes; where several candidates tie, the share of the win
            that goes to others.
        winners: the winner among all candidates of a prompt, by attribute.
        curve: the same for each requested N, over the prompts that have N candidates.
        too_large: the requested Ns for which no prompt has enough candidates.
    """

    before: Floats
    after: Floats
    changed: Interval
    winners: tuple[Expected, ...]
    curve: tuple[Expected, ...]
    too_large: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """The summary as a JSON object, without the candidates."""
        return {
            "changed": self.changed.as_json(),
            "winners": [one.as_json() for one in self.winners],
            "curve": [one.as_json() for one in self.curve],
            "too_large": list(self.too_large),
        }

    def to_pandas(self) -> Any:
        """A pandas frame with a row for each attribute of the winner and each N (missing: of all).

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            (
                {
                    "attribute": one.attribute,
                    "n": one.n,
                    "prompts": one.before.n,
                    **ends_of(before=one.before, after=one.after, change=one.change),
                    "rises": one.rises,
                    "falls": one.falls,
                }
                for one in (*self.winners, *self.curve)
            ),
            "attribute",
        )


def rerank(sets: CandidateSets, scored: Scored, edits: Sequence[Edit], *, n: Sequence[int] = ()) -> Reranking:
    """Chooses among the candidates without and with the edits.

    Args:
        sets: the candidates of every prompt.
        scored: the scores from which they were made.
        edits: at most one per latent; without edits no winner changes.
        n: set sizes for the best-of-N curve, at least 1.
    """
    before = scored.rewards.astype(np.float64)[sets.answers]
    after = edited_rewards(scored, edits)[sets.answers]
    attributes = {REWARD: before, **sets.attributes}
    shares = (winners(sets, before), winners(sets, after))
    moved = np.abs(shares[1] - shares[0])
    # half of the absolute differences: what one candidate loses another one gains
    changed = share_interval(np.add.reduceat(moved, sets.starts[:-1]) / 2)
    usable = [size for size in dict.fromkeys(n) if size <= sets.sizes.max()]
    curve = [
        expected
        for size in usable
        # each N over the prompts that have so many: points of a curve may be of
        # different prompts, and n says so
        for expected in _expected(sets, attributes, (before, after), size, sets.sizes >= size)
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
    expected = []
    for name, values in attributes.items():
        before, after = (np.add.reduceat(share * values, sets.starts[:-1])[prompts] for share in shares)
        # differences of rounding size are no change, so that rises and falls count real ones
        change = np.where(np.isclose(after, before, rtol=1e-12, atol=0), 0.0, after - before)
        if name == CHOSEN:
            means = [share_interval(before), share_interval(after)]
            means.append(change_of_shares(np.zeros(len(change)), change))
        else:
            means = [mean_interval(column) for column in (before, after, change)]
        expected.append(
            Expected(name, n, means[0], means[1], means[2], int((change > 0).sum()), int((change < 0).sum()))
        )
    return expected
