"""How a reward model scores a set of pairs, before any latent is named.

Also the part of the lost margin that called latents carry, and how many latents make a share of the margin:
a short list describes the reward model only if these are few.

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
    prompt_margins,
    residual_margins,
)
from sarm_control.errors import DataError
from sarm_control.statistics import (
    SETS,
    AmongSets,
    Interval,
    among_matched_sets,
    mean_interval,
    ratio_interval,
    share_interval,
)


@dataclass(frozen=True)
class Summary:
    """How the reward model scores a set of pairs.

    Args:
        prompts: number of distinct prompts.
        answers: number of distinct answers.
        margin: mean over prompts of mean chosen minus mean rejected reward.
        equal_length: the same between answers of equal length; None without lengths.
        accuracy: mean over prompts of the share of pairs in which chosen has the strictly higher reward.
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
    """Where the reward model is wrong, and how much of the error the called latents carry.

    Args:
        prompts: number of prompts on which rejected answers get a higher mean reward than chosen ones.
        margin: rejected minus chosen reward there, mean over these prompts, reward units.
        carried: the share of it that comes from the called latents; it may exceed 1 when other latents have
            the opposite sign.
        among: the place of that share among those of matched random sets, which carry some of it as well;
            None where none could be drawn.
        outside: the share that is residual, which no latent holds and no control on latents reaches; None
            for a SARM.
    """

    prompts: int
    margin: float
    carried: Interval
    among: AmongSets | None = None
    outside: Interval | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "prompts": self.prompts,
            "mean_lost_margin": self.margin,
            "share_of_called_latents": self.carried.as_json(),
            "share_among_matched_sets": None if self.among is None else self.among.as_json(),
            "share_of_residual": None if self.outside is None else self.outside.as_json(),
        }


def summarise(pairs: PairLatents) -> Summary:
    """Mean margin and pair accuracy with intervals clustered by prompt."""
    margins = prompt_margins(pairs)
    difference = length_difference(pairs)
    return Summary(
        prompts=pairs.prompts,
        answers=len(pairs.chosen_prompt) + len(pairs.rejected_prompt),
        margin=mean_interval(margins),
        equal_length=None
        if difference is None
        else equal_length_effects(csc_array(margins[:, None]), difference),
        accuracy=share_interval(pair_accuracy(pairs)),
        reward_sd=reward_sd(pairs),
    )


def lost_margin(
    pairs: PairLatents,
    latents: Sequence[int],
    seed: int = 0,
    sets: int = SETS,
    tested: ArrayLike | None = None,
) -> LostMargin | None:
    """The part of the excess reward of worse answers that the called latents carry.

    The decomposition is exact: it is the called latents' part of the margin on the prompts where that is
    negative.

    Args:
        pairs: prompts on which the latents were not selected.
        latents: the latents called harming.
        seed: of the random sets.
        sets: the number of random sets, matched on firing rate and |w| over these prompts.
        tested: the latents from which the sets are drawn, `latents` included; None means all that fire.

    Returns:
        None where every prompt's margin is 0 or above.
    """
    contributions = margin_contributions(pairs)
    margins = prompt_margins(pairs)
    lost = np.flatnonzero(margins < 0)
    if not len(lost):
        return None
    wanted = np.asarray(latents, dtype=np.int64)
    carried = np.asarray(contributions[lost][:, wanted].sum(axis=1)).ravel()
    # shares of all latents and of the residual sum to 1, so that simple sums compare sets of latents
    shares = np.asarray(contributions[lost].sum(axis=0)).ravel() / margins[lost].sum()
    return LostMargin(
        len(lost),
        float(-margins[lost].mean()),
        ratio_interval(carried, margins[lost]),
        _among(pairs, shares, wanted, tested, sets, seed),
        None
        if pairs.chosen_residual is None
        else ratio_interval(residual_margins(pairs)[lost], margins[lost]),
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
    """The share of the margin that the largest latents make; they are ordered by other prompts.

    Args:
        needed: by share of the margin, the smallest number of latents that reaches it; None where the rest
            of it is residual.
        curve: (latents, share of the margin) at 1, 2, 5, 10, ... latents and at all of them.
    """

    needed: dict[float, int | None]
    curve: tuple[tuple[int, float], ...]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; the keys of the counts are shares in percent."""
        needed = {f"{100 * share:.0f}": count for share, count in self.needed.items()}
        return {"latents_for_percent_of_margin": needed, "curve": [list(point) for point in self.curve]}


def cumulative_margin(selection: PairLatents, confirmation: PairLatents) -> Cumulative | None:
    """Sums the margin latent by latent, the largest effects of the selection prompts first.

    Harming latents lower the sum, so the curve may exceed 100 % and fall back.

    Args:
        selection: the prompts that order the latents.
        confirmation: the prompts whose margin is summed.

    Returns:
        None where the mean margin is 0 or below, so that shares of it have no meaning.
    """
    order = np.argsort(-np.abs(_effects(selection)), kind="stable")
    effects = _effects(confirmation)
    # the residual is part of the margin and of no latent
    total = effects.sum() + residual_margins(confirmation).mean()
    if not total > 0 or not effects.any():
        return None
    # latents behind the last nonzero effect add nothing, so the curve ends there (a SARM's at 100 %)
    last = 1 + int(np.flatnonzero(effects[order])[-1])
    share = np.cumsum(effects[order]) / total
    points = [n for n in _POINTS if n < last]
    # the last cumulated sum may lie a rounding below 1
    reached = {level: np.flatnonzero(share >= level - 1e-12) for level in SHARES}
    needed = {level: int(where[0]) + 1 if len(where) else None for level, where in reached.items()}
    curve = tuple((n, float(share[n - 1])) for n in points)
    end = 1.0 if confirmation.chosen_residual is None else float(share[last - 1])
    return Cumulative(needed, (*curve, (last, end)))


def _effects(pairs: PairLatents) -> Any:
    return np.asarray(margin_contributions(pairs).sum(axis=0)).ravel() / pairs.prompts
