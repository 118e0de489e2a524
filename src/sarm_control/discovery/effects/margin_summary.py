"""What the reward model makes of a set of pairs, before any latent is named.

Shapes: `P` prompts.

How many latents make a share of the margin: few, and it can be read; many, and no short list tells it.

Shapes: `P` prompts, `L` latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array

from sarm_control.discovery.effects.effects import reward_sd
from sarm_control.discovery.effects.equal_length import EqualLength, equal_length_effects, length_difference
from sarm_control.discovery.pairs.margins import (
    PairLatents,
    firing_rates,
    margin_contributions,
    pair_accuracy,
)
from sarm_control.errors import DataError
from sarm_control.statistics import (
    SETS,
    AmongSets,
    Interval,
    among_matched_sets,
    mean_interval,
    ratio_interval,
)


@dataclass(frozen=True)
class Summary:
    """What the reward model makes of a set of pairs.

    Args:
        prompts: distinct prompts.
        answers: distinct answers.
        margin: mean over prompts of mean chosen minus mean rejected reward.
        equal_length: the same between answers of equal length; None where lengths leave it undefined.
        accuracy: mean over prompts of the share of pairs in which chosen is paid strictly more.
        reward_sd: SD of the reward over answers.
    """

    prompts: int
    answers: int
    margin: Interval
    equal_length: EqualLength | None
    accuracy: Interval
    reward_sd: float

    def as_json(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return {
            "prompts": self.prompts,
            "answers": self.answers,
            "mean_margin": self.margin.as_json(),
            "mean_margin_at_equal_length": None if self.equal_length is None else self.equal_length.as_json(),
            "pair_accuracy": self.accuracy.as_json(),
            "reward_sd": self.reward_sd,
        }


@dataclass(frozen=True)
class LostMargin:
    """Where the reward model is wrong, and how much of that the called latents carry.

    Args:
        prompts: prompts on which rejected answers are paid more than chosen ones.
        margin: what rejected is paid above chosen there, mean over these prompts, reward units.
        carried: share of it that the called latents make; may exceed 1, as others pull back.
        among: where that share lies among those of matched random sets, which carry some of it as well;
            None where none could be drawn.
    """

    prompts: int
    margin: float
    carried: Interval
    among: AmongSets | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "prompts": self.prompts,
            "mean_lost_margin": self.margin,
            "share_of_called_latents": self.carried.as_json(),
            "share_among_matched_sets": None if self.among is None else self.among.as_json(),
        }


def summarise(pairs: PairLatents) -> Summary:
    """Mean margin and pair accuracy with intervals clustered by prompt."""
    margins = np.asarray(margin_contributions(pairs).sum(axis=1)).ravel()
    difference = length_difference(pairs)
    return Summary(
        prompts=pairs.prompts,
        answers=len(pairs.chosen_prompt) + len(pairs.rejected_prompt),
        margin=mean_interval(margins),
        equal_length=None
        if difference is None
        else equal_length_effects(csc_array(margins[:, None]), difference),
        accuracy=mean_interval(pair_accuracy(pairs)),
        reward_sd=reward_sd(pairs),
    )


def lost_margin(
    pairs: PairLatents,
    latents: Sequence[int],
    seed: int = 0,
    sets: int = SETS,
    tested: ArrayLike | None = None,
) -> LostMargin | None:
    """How much of the reward that goes to worse answers the called latents carry.

    An exact decomposition: on the prompts with a negative margin, the called latents' part of it.

    Args:
        pairs: prompts on which the latents were not selected.
        latents: those called harming.
        seed: of the random sets.
        sets: random sets matched on firing rate and |w| over these prompts.
        tested: what they are drawn from, the latents among them; all that fire when None.

    Returns:
        None where every prompt's margin is 0 or above.
    """
    contributions = margin_contributions(pairs)
    margins = np.asarray(contributions.sum(axis=1)).ravel()
    lost = np.flatnonzero(margins < 0)
    if not len(lost):
        return None
    wanted = np.asarray(latents, dtype=np.int64)
    carried = np.asarray(contributions[lost][:, wanted].sum(axis=1)).ravel()
    shares = np.asarray(contributions[lost].sum(axis=0)).ravel() / margins[lost].sum()
    return LostMargin(
        len(lost),
        float(-margins[lost].mean()),
        ratio_interval(carried, margins[lost]),
        _among(pairs, shares, wanted, tested, sets, seed),
    )


def _among(
    pairs: PairLatents,
    shares: NDArray[np.float64],
    latents: NDArray[np.int64],
    tested: ArrayLike | None,
    sets: int,
    seed: int,
) -> AmongSets | None:
    rates, value = firing_rates(pairs), float(shares[latents].sum())
    rate = (rates.chosen + rates.rejected) / 2
    if tested is not None:
        rate[np.setdiff1d(np.arange(len(rate)), tested)] = 0
    try:
        return among_matched_sets(value, shares, latents, rate, np.abs(pairs.head), sets=sets, seed=seed)
    except DataError:
        return None


SHARES = (0.5, 0.9)
_POINTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


class Cumulative(NamedTuple):
    """The share of the margin that the largest latents make, ordered on prompts not counted here.

    Args:
        needed: by share of the margin, the fewest latents that reach it.
        curve: (latents, share of the margin) at 1, 2, 5, 10, ... latents and at all of them.
    """

    needed: dict[float, int]
    curve: tuple[tuple[int, float], ...]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; shares in percent name the counts."""
        needed = {f"{100 * share:.0f}": count for share, count in self.needed.items()}
        return {"latents_for_percent_of_margin": needed, "curve": [list(point) for point in self.curve]}


def cumulative_margin(selection: PairLatents, confirmation: PairLatents) -> Cumulative | None:
    """Adds up the margin latent by latent, the largest effects of the selection prompts first.

    Harming latents take away from the sum, so the curve may pass 100 % and come back.

    Args:
        selection: the prompts that put the latents in order.
        confirmation: the prompts whose margin is added up.

    Returns:
        None where the mean margin is 0 or below: there is nothing to make a share of.
    """
    order = np.argsort(-np.abs(_effects(selection)), kind="stable")
    effects = _effects(confirmation)
    total = effects.sum()
    if not total > 0:
        return None
    last = 1 + int(np.flatnonzero(effects[order])[-1])
    share = np.cumsum(effects[order]) / total
    points = [n for n in _POINTS if n < last]
    needed = {level: int(np.argmax(share >= level - 1e-12)) + 1 for level in SHARES}
    curve = tuple((n, float(share[n - 1])) for n in points)
    return Cumulative(needed, (*curve, (last, 1.0)))


def _effects(pairs: PairLatents) -> Any:
    return np.asarray(margin_contributions(pairs).sum(axis=0)).ravel() / pairs.prompts
