"""Controls for the harming latents, with sizes that are chosen for all of them together.

- paid-for-bad (w > 0, fires on rejected answers): latents that fire together are *similar*. They reward one
  behaviour and get at most two controls: a cap on one and an indicator penalty on one, or penalties on two
  where the objective (`suggested_controls.programme`) is lower. The penalties take what the caps leave of the
  harmful reward (`suggested_controls.harmful_reward`), and a deterrent.
- charged-for-good (w < 0, fires on chosen answers): an edit that removes what the latent subtracts from good
  answers and keeps what it subtracts beyond that from worse ones. A penalty on its firing would increase the
  harm. Every latent has its own edit, which gives back no more than the latent subtracts, so these do not add
  up to too much.

Sizes chosen latent by latent would each cancel the whole of a shortcut to which twenty latents contribute.

Shapes: `Nc` chosen and `Nr` rejected answers, `P` penalties.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, Penalty
from sarm_control.discovery.effects.effects import reward_sd
from sarm_control.discovery.pairs.margins import PairLatents, Values, latent_values
from sarm_control.discovery.suggested_controls.harmful_reward import (
    Fires,
    cap,
    harmful_reward,
    rounded,
    threshold,
    typical_reward,
    without_penalty,
)
from sarm_control.discovery.suggested_controls.programme import (
    CLEAN,
    Objective,
    PenaltyProblem,
    gains,
    least_penalties,
    objective,
)
from sarm_control.discovery.suggested_controls.similar_latents import group_similar
from sarm_control.reward_model import RESIDUAL

Control = Edit | Penalty
PAID_FOR_BAD, CHARGED_FOR_GOOD = "paid-for-bad", "charged-for-good"

DETERRENT = 1.0
"""The deterrent: the penalty on a shortcut beyond the shortcut's own reward, in SDs of the reward."""
MOST = 2.0
"""The largest sum of the deterrents of all shortcuts of an answer, in SDs of the reward."""
_LEAST = 0.005
"""A smaller penalty, in SDs, is left out."""


@dataclass(frozen=True)
class Suggestion:
    """The controls of one group of similar latents, or of one charged-for-good latent.

    Args:
        kind: "paid-for-bad" or "charged-for-good".
        latents: the similar latents; not all of them need a control.
        controls: of the group, at most two.
        caps: a cap for each of the latents, at its value in a typical chosen answer; none for
            charged-for-good.
        above: an answer has the shortcut when its harmful reward from these latents is above this, reward
            units.
    """

    kind: str
    latents: tuple[int, ...]
    controls: tuple[Control, ...]
    caps: tuple[Edit, ...] = ()
    above: float = 0.0

    def of(self, latent: int) -> tuple[Control, ...]:
        """The controls on this latent itself."""
        return tuple(control for control in self.controls if control.latent == latent)

    @property
    def carriers(self) -> tuple[int, ...]:
        """The latents that carry a control, ascending."""
        return tuple(sorted({one.latent for one in self.controls if one.latent != RESIDUAL}))


@dataclass(frozen=True)
class JointControls:
    """Controls chosen together; a subset of them does not have the right sizes.

    Args:
        suggestions: one for each group.
        unit: one SD of the reward over the answers on which the sizes were chosen, reward units.
        before: the objective without penalties and caps; None where there is nothing to cancel.
        objective: the objective with them.
    """

    suggestions: tuple[Suggestion, ...]
    unit: float
    before: Objective | None = None
    objective: Objective | None = None

    @property
    def controls(self) -> tuple[Control, ...]:
        """The controls of all suggestions."""
        return tuple(control for one in self.suggestions for control in one.controls)

    def suggestion(self, latent: int) -> Suggestion | None:
        """The suggestion to which this latent belongs; None for a latent without one."""
        return next((one for one in self.suggestions if latent in one.latents), None)


def suggested_controls(pairs: PairLatents, latent: int, kind: str) -> tuple[Control, ...]:
    """Controls for one latent alone; none for a latent that does not harm.

    For several latents use `joint_controls`: sizes that are chosen one by one add up to too much.

    Args:
        pairs: the answers on which the sizes are chosen.
        latent: its number.
        kind: of `discovery.effects.kinds`.
    """
    return joint_controls(pairs, {latent: kind}).controls


def stand_in(pairs: PairLatents, latent: int, control: Control) -> Control:
    """A control like that of another latent on this one: the same size, with this latent's own limits.

    Args:
        pairs: the answers from which the limits are computed.
        latent: the latent that replaces the control's own.
        control: a suggested control.
    """
    if isinstance(control, Edit):
        return cap(pairs, latent) if control.max is not None else without_penalty(pairs, latent)
    tau = threshold(latent_values(pairs, latent))
    pays = rounded(typical_reward(pairs, latent, tau))
    return replace(control, latent=latent, tau=tau, pays=pays)


def joint_controls(pairs: PairLatents, kinds: Mapping[int, str]) -> JointControls:
    """Controls for all of these latents, with sizes that are right together.

    1. Latents that fire together are grouped (`suggested_controls.similar_latents`).
    2. In each group one latent is capped, the one whose cap leaves least of the group's harmful reward
       (`suggested_controls.harmful_reward`), and one is penalised, the one whose firing best matches what
       then remains. Where the objective is lower, two are penalised instead.
    3. One optimisation (`suggested_controls.programme`) chooses all penalties. They should take what the caps
       leave, and `DETERRENT` where an answer has a shortcut, and change good answers least.

    Penalties are written in SDs of the reward, rounded up. In a run, an SD is that of its own reference
    policy's reward, which may be smaller than that of the pairs. So each penalty records the reward that its
    latent `pays`, and that of similar latents there, and the run warns when the penalty is smaller.

    Args:
        pairs: the answers on which the sizes are chosen.
        kinds: the kind of each latent (`discovery.effects.kinds`); only those that harm get controls.
    """
    unit = reward_sd(pairs)
    paid_for_bad = [latent for latent, kind in kinds.items() if kind == PAID_FOR_BAD]
    freed = [
        Suggestion(CHARGED_FOR_GOOD, (latent,), (without_penalty(pairs, latent),))
        for latent, kind in kinds.items()
        if kind == CHARGED_FOR_GOOD
    ]
    if not paid_for_bad or not unit:
        return JointControls(tuple(freed), unit)
    shortcuts = _shortcuts(pairs, paid_for_bad, unit)
    problem = _problem(shortcuts)
    # rounded before the objective is taken, since these are the sizes that files will hold
    amounts = np.array([_rounded_up(amount) for amount in least_penalties(problem)])
    penalised = _with_penalties(pairs, shortcuts, amounts.tolist(), unit)
    bare = _problem([one._replace(removed=_nothing(one.harmful), watched=()) for one in shortcuts])
    before, after = objective(bare, np.zeros(0)), objective(problem, amounts)
    return JointControls((*penalised, *freed), unit, before, after)


class _Shortcut(NamedTuple):
    """A group of similar latents with its cap and penalties; amounts in SDs.

    Args:
        caps: of all its latents; their limits define its harmful reward.
        kin: the number of its wider group, see `LatentGroups`.
        harmful: [Nc] and [Nr] the harmful reward of all its latents.
        removed: [Nc] and [Nr] the part of it that the suggested cap removes.
        above: an answer has the shortcut when its harmful reward is above this.
        cap: the suggested one, if any.
        watched: the latents to be penalised.
    """

    caps: tuple[Edit, ...]
    kin: int
    harmful: Values
    removed: Values
    above: float
    cap: Edit | None
    watched: tuple["_Watched", ...]

    @property
    def left(self) -> Values:
        return Values(
            *(harmful - removed for harmful, removed in zip(self.harmful, self.removed, strict=True))
        )

    def suggestion(self, unit: float, penalties: Sequence[Penalty] = ()) -> Suggestion:
        latents = tuple(cap.latent for cap in self.caps)
        controls: tuple[Control, ...] = (*penalties, *([self.cap] if self.cap else []))
        return Suggestion(PAID_FOR_BAD, latents, controls, self.caps, self.above * unit)


class _Watched(NamedTuple):
    """A latent to be penalised: threshold, whether it fires [Nc], [Nr], and its uncapped reward in SDs."""

    latent: int
    tau: float
    fires: Fires
    kept: Values


def _shortcuts(pairs: PairLatents, latents: Sequence[int], unit: float) -> list[_Shortcut]:
    caps = [cap(pairs, latent) for latent in latents]
    harmful = Values(*(side / unit for side in harmful_reward(pairs, caps)))
    groups = group_similar(np.concatenate(harmful) > 0)
    return [
        _shortcut(
            pairs, [caps[place] for place in members], Values(*(side[:, members] for side in harmful)), kin
        )
        for members, kin in zip(map(list, groups.similar), groups.kin, strict=True)
    ]


def _shortcut(pairs: PairLatents, caps: Sequence[Edit], own: Values, kin: int) -> _Shortcut:
    """The controls of one group; the sizes of its penalties are not chosen yet.

    Args:
        pairs: the answers.
        caps: [m] of its latents.
        own: [Nc, m] and [Nr, m] the harmful reward of each, in SDs.
        kin: the number of its wider group.
    """
    harmful = Values(*(side.sum(axis=1) for side in own))
    above = threshold(harmful)
    # the cap is chosen without penalties: by what it leaves, and what it takes from good answers
    left_wrong = ((harmful.rejected[:, None] - own.rejected) ** 2).mean(axis=0)
    capped = int((left_wrong + CLEAN * (own.chosen**2).mean(axis=0)).argmin())
    removed = Values(*(side[:, capped] for side in own))
    kept = [Values(*(side[:, place] for side in own)) for place in range(len(caps))]
    watched = [_watched(pairs, cap.latent, reward) for cap, reward in zip(caps, kept, strict=True)]
    none = _nothing(harmful)
    bare = _Shortcut(tuple(caps), kin, harmful, none, above, None, ())
    # the cap removes this latent's harmful reward, so a penalty on it finds none of it
    freed = watched[capped]._replace(kept=none)
    edited = bare._replace(removed=removed, cap=caps[capped])
    best = _most_useful(edited, [*watched[:capped], freed, *watched[capped + 1 :]])
    if len(caps) == 1:
        return best
    # a cap also lowers good answers above it; where there are many, two penalties may do better
    twice = _most_useful(_most_useful(bare, watched), watched)
    return twice if _least(twice) < _least(best) else best


def _watched(pairs: PairLatents, latent: int, kept: Values) -> _Watched:
    values = latent_values(pairs, latent)
    tau = threshold(values)
    return _Watched(latent, tau, Fires(values.chosen > tau, values.rejected > tau), kept)


def _most_useful(shortcut: _Shortcut, candidates: Sequence[_Watched]) -> _Shortcut:
    """The shortcut with one more penalty, on the latent that lowers the objective most, if one does."""
    taken = {watched.latent for watched in shortcut.watched}
    free = [candidate for candidate in candidates if candidate.latent not in taken]
    if not free:
        return shortcut
    if not shortcut.watched:
        # every candidate alone at its own best size, from one problem
        alone = gains(_problem([shortcut._replace(watched=tuple(free))]))
        best = int(alone.argmax())
        return shortcut._replace(watched=(free[best],)) if alone[best] > 0 else shortcut
    tried = [shortcut._replace(watched=(*shortcut.watched, one)) for one in free]
    return min(tried, key=_least)


def _least(shortcut: _Shortcut) -> float:
    problem = _problem([shortcut])
    return objective(problem, least_penalties(problem)).total


def _problem(shortcuts: Sequence[_Shortcut]) -> PenaltyProblem:
    """The optimisation over the penalties of all groups; groups that are kin share one deterrent."""
    numbers = sorted({one.kin for one in shortcuts})
    kin = [[one for one in shortcuts if one.kin == number] for number in numbers]
    has = np.stack([_has(group) for group in kin], axis=1)
    left = np.stack([_total([one.left.rejected for one in group]) for group in kin], axis=1)
    watched = [(numbers.index(one.kin), its) for one in shortcuts for its in one.watched]
    good, bad = (
        # a column of zeros, dropped again, so that no penalty at all can be stacked too
        np.stack([np.zeros(size, dtype=bool), *(its.fires[side] for _, its in watched)], axis=1)[:, 1:]
        for side, size in enumerate((len(shortcuts[0].harmful.chosen), len(has)))
    )
    # the deterrents of an answer with many shortcuts are scaled down to `MOST` in all
    together = DETERRENT * has.sum(axis=1, keepdims=True)
    share = MOST / np.maximum(together, MOST)
    return PenaltyProblem(
        due=left + DETERRENT * share * has,
        has=has,
        shortcut=np.array([number for number, _ in watched], dtype=np.int64),
        fires=bad,
        good_fires=good,
        good_edited=_total([one.removed.chosen for one in shortcuts]),
    )


def _has(kin: Sequence[_Shortcut]) -> NDArray[np.bool_]:
    """[Nr] whether each rejected answer has the shortcut of these groups."""
    harmful = Values(
        _total([one.harmful.chosen for one in kin]), _total([one.harmful.rejected for one in kin])
    )
    return np.asarray(harmful.rejected > threshold(harmful))


def _nothing(like: Values) -> Values:
    return Values(*(np.zeros_like(side) for side in like))


def _total(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(np.sum(np.stack(parts), axis=0))


def _with_penalties(
    pairs: PairLatents, shortcuts: Sequence[_Shortcut], amounts: Sequence[float], unit: float
) -> list[Suggestion]:
    """The controls of each group; `amounts` are in the order of the groups and their watched latents."""
    amount = iter(amounts)
    with_amounts = [(shortcut, [next(amount) for _ in shortcut.watched]) for shortcut in shortcuts]
    suggestions = []
    for shortcut, own in with_amounts:
        kin = [(other, alphas) for other, alphas in with_amounts if other.kin == shortcut.kin]
        watched_amounts = zip(shortcut.watched, own, strict=True)
        penalties = [_penalty(pairs, latent, alpha, kin, unit) for latent, alpha in watched_amounts if alpha]
        suggestions.append(shortcut.suggestion(unit, penalties))
    return suggestions


def _penalty(
    pairs: PairLatents,
    watched: _Watched,
    alpha: float,
    kin: Sequence[tuple[_Shortcut, Sequence[float]]],
    unit: float,
) -> Penalty:
    own = rounded(typical_reward(pairs, watched.latent, watched.tau))
    others = _others(watched, kin, unit)
    return Penalty(
        watched.latent,
        tau=watched.tau,
        alpha=f"{alpha:g}sd",
        pays=(own, others) if others > 0 else own,
    )


def _others(watched: _Watched, kin: Sequence[tuple[_Shortcut, Sequence[float]]], unit: float) -> float:
    """The reward of similar latents where this penalty fires, minus their other penalties there.

    It is the median over answers on which the penalty fires, after the caps, in reward units.
    """
    if sum(len(other.caps) for other, _ in kin) < 2:
        return 0.0
    amounts = []
    for side, kept in enumerate(watched.kept):
        penalised = [
            alpha * penalty.fires[side]
            for other, alphas in kin
            for penalty, alpha in zip(other.watched, alphas, strict=True)
            if penalty.latent != watched.latent
        ]
        left = _total([other.left[side] for other, _ in kin])
        amounts.append((left - kept - sum(penalised))[watched.fires[side]])
    rest = np.concatenate(amounts)
    return rounded(float(np.median(rest)) * unit) if len(rest) else 0.0


def _rounded_up(amount: float) -> float:
    """Rounded up to hundredths of an SD, but not by a rounding error; amounts below `_LEAST` become 0."""
    return math.ceil(100 * amount - 1e-6) / 100 if amount >= _LEAST else 0.0
