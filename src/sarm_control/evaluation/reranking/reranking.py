"""What edits do to a choice among candidates: who wins, and what the winner is like.

Shapes: `P` prompts, `C` candidates of all of them, `m` candidates of one.

Which of N candidates wins: exact shares over all sets of N of the candidates given.

A set of N candidates is drawn from the m given, without replacement, each set as likely as any
other; the highest reward wins, ties share the win. For the k-th smallest of m different rewards

    P(wins) = C(k - 1, N - 1) / C(m, N)

which needs no simulation (the best-of-n estimator of arXiv 2112.09332).

Shapes: `m` candidates of one prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, edited_rewards
from sarm_control.evaluation.answer_places import Floats
from sarm_control.evaluation.reranking.candidates import CandidateSets
from sarm_control.reward_model import Scored
from sarm_control.statistics import Interval, mean_interval


def win_shares(rewards: Floats, n: int) -> Floats:
    """[m] the share of all sets of n candidates that each one wins; they sum to 1.

    Args:
        rewards: [m] what each candidate is paid.
        n: size of a set, 1..m; with n = m the best candidate wins alone, with n = 1 each wins as often.
    """
    ordered = np.sort(rewards)
    lower, not_higher = (np.searchsorted(ordered, rewards, side=side) for side in ("left", "right"))
    within = _share_within(len(rewards), n)
    shares: Floats = (within[not_higher] - within[lower]) / (not_higher - lower)
    return shares


@lru_cache(maxsize=256)
def _share_within(m: int, n: int) -> NDArray[np.float64]:
    """[m + 1] C(k, n) / C(m, n) for k = 0..m: how many sets lie within k of the candidates."""
    k, i = np.arange(m + 1)[:, None], np.arange(n)[None, :]
    return np.asarray(np.prod(np.maximum(k - i, 0) / (m - i), axis=1))


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
