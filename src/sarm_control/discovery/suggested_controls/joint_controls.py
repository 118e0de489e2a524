"""The controls that fit the harming latents, with doses chosen for all of them together.

- paid-for-bad (w > 0, fires on rejected answers): latents that fire together are *siblings*, paid for one
  behaviour, and get at most two controls: a cap on one and an indicator penalty on the firing of one, or,
  where the programme does better by it, penalties on two. The penalties charge what the caps leave of the
  harmful pay, and a deterrent.
- charged-for-good (w < 0, fires on chosen answers): an edit that removes the charge that good
  answers pay and keeps what worse ones pay on top of it. Penalising the firing would make the harm worse.
  Every latent has its own: it takes no more than its own charge, so these do not add up to too much.

Doses taken latent by latent would each cancel the whole of a shortcut that twenty latents pay a part of.

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

Control = Edit | Penalty
PAID_FOR_BAD, CHARGED_FOR_GOOD = "paid-for-bad", "charged-for-good"

DETERRENT = 1.0
"""What an answer with a shortcut is charged beyond what the shortcut pays, in SDs of the reward."""
MOST = 2.0
"""What all shortcuts of an answer together are deterred by, at most, in SDs of the reward."""
_LEAST = 0.005
"""A charge below this many SDs is none."""


@dataclass(frozen=True)
class Suggestion:
    """The controls of one group of siblings, or of one charged-for-good latent.

    Args:
        kind: "paid-for-bad" or "charged-for-good".
        latents: the siblings; not all of them need a control.
        controls: theirs, at most two.
        caps: what a typical chosen answer has of each sibling, as caps; none for charged-for-good.
        above: an answer has the shortcut when its harmful pay by these latents is above this, reward units.
    """

    kind: str
    latents: tuple[int, ...]
    controls: tuple[Control, ...]
    caps: tuple[Edit, ...] = ()
    above: float = 0.0

    def of(self, latent: int) -> tuple[Control, ...]:
        """The controls on this latent itself."""
        return tuple(one for one in self.controls if one.latent == latent)

    @property
    def carriers(self) -> tuple[int, ...]:
        """The latents that carry a control, ascending."""
        return tuple(sorted({one.latent for one in self.controls}))


@dataclass(frozen=True)
class JointControls:
    """Controls chosen together; a part of them is no joint dose.

    Args:
        suggestions: one for each group.
        unit: one SD of the reward over the answers that the doses were read from, reward units.
        before: the objective without penalties and caps; None where there is nothing to cancel.
        objective: the objective with them.
    """

    suggestions: tuple[Suggestion, ...]
    unit: float
    before: Objective | None = None
    objective: Objective | None = None

    @property
    def controls(self) -> tuple[Control, ...]:
        """All of them."""
        return tuple(control for one in self.suggestions for control in one.controls)

    def suggestion(self, latent: int) -> Suggestion | None:
        """The suggestion that this latent belongs to; None for a latent that was not asked about."""
        return next((one for one in self.suggestions if latent in one.latents), None)


def suggested_controls(pairs: PairLatents, latent: int, kind: str) -> tuple[Control, ...]:
    """Controls for one latent alone; none for a latent that does not harm.

    For several latents use `joint_controls`: doses read one by one add up.

    Args:
        pairs: the answers the doses are read from.
        latent: its number.
        kind: as `discovery.effects.kinds` names it.
    """
    return joint_controls(pairs, {latent: kind}).controls


def stand_in(pairs: PairLatents, latent: int, control: Control) -> Control:
    """The control of another latent on this one: the same charge, with limits read from this latent.

    Args:
        pairs: the answers the limits are read from.
        latent: the number of the one that stands in.
        control: a suggested one.
    """
    if isinstance(control, Edit):
        return cap(pairs, latent) if control.max is not None else without_penalty(pairs, latent)
    tau = threshold(latent_values(pairs, latent))
    pays = rounded(typical_reward(pairs, latent, tau))
    return replace(control, latent=latent, tau=tau, pays=pays)


def joint_controls(pairs: PairLatents, kinds: Mapping[int, str]) -> JointControls:
    """Controls for all of these latents, with doses that are right together.

    1. Latents that fire together are grouped (`suggested_controls.similar_latents`).
    2. In each group the latent is capped whose cap leaves least of the group's harmful pay
       (`suggested_controls.harmful_reward`), and the latent penalised whose firing best meets what is then
       left; or two are penalised instead, where the objective is lower.
    3. One programme (`suggested_controls.programme`) chooses all charges: what the caps leave, and
       `DETERRENT` where an answer has a shortcut, are to be charged, and good answers are to change least.

    Charges are written in SDs of the reward, rounded up. A run reads SDs of its own reference policy's
    reward, which may be smaller than those of the pairs: each penalty keeps what its latent `pays`, and
    what others pay there, and the run warns when its charge is less.

    Args:
        pairs: the answers the doses are read from.
        kinds: of each latent, as `discovery.effects.kinds` names them; only those that harm get controls.
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
    amounts = np.array([_rounded_up(amount) for amount in least_penalties(problem)])
    found = _with_penalties(pairs, shortcuts, amounts.tolist(), unit)
    bare = _problem([one._replace(removed=_nothing(one.harmful), watched=()) for one in shortcuts])
    return JointControls((*found, *freed), unit, objective(bare, np.zeros(0)), objective(problem, amounts))


class _Shortcut(NamedTuple):
    """A group of siblings with its cap and the penalties on it; amounts in SDs.

    Args:
        caps: of all its latents; their limits say what its harmful pay is.
        kin: its number.
        pay: [Nc] and [Nr] the harmful pay of all of them.
        taken: [Nc] and [Nr] what the cap takes of it.
        above: an answer has the shortcut when its harmful pay is above this.
        cap: the one that is suggested.
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
        latents = tuple(one.latent for one in self.caps)
        controls: tuple[Control, ...] = (*penalties, *([self.cap] if self.cap else []))
        return Suggestion(PAID_FOR_BAD, latents, controls, self.caps, self.above * unit)


class _Watched(NamedTuple):
    """A latent to be penalised: its threshold, whether it fires [Nc], [Nr], and what it keeps, in SDs."""

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
    """The controls of one group, its charges not yet chosen.

    Args:
        pairs: the answers.
        caps: [m] of its latents.
        own: [Nc, m] and [Nr, m] the harmful pay of each, in SDs.
        kin: its number.
    """
    harmful = Values(*(side.sum(axis=1) for side in own))
    above = threshold(harmful)
    left_wrong = ((harmful.rejected[:, None] - own.rejected) ** 2).mean(axis=0)
    capped = int((left_wrong + CLEAN * (own.chosen**2).mean(axis=0)).argmin())
    removed = Values(*(side[:, capped] for side in own))
    kept = [Values(*(side[:, place] for side in own)) for place in range(len(caps))]
    watched = [_watched(pairs, one.latent, its) for one, its in zip(caps, kept, strict=True)]
    none = _nothing(harmful)
    bare = _Shortcut(tuple(caps), kin, harmful, none, above, None, ())
    freed = watched[capped]._replace(kept=none)
    edited = bare._replace(removed=removed, cap=caps[capped])
    best = _most_useful(edited, [*watched[:capped], freed, *watched[capped + 1 :]])
    if len(caps) == 1:
        return best
    twice = _most_useful(_most_useful(bare, watched), watched)
    return twice if _least(twice) < _least(best) else best


def _watched(pairs: PairLatents, latent: int, kept: Values) -> _Watched:
    values = latent_values(pairs, latent)
    tau = threshold(values)
    return _Watched(latent, tau, Fires(values.chosen > tau, values.rejected > tau), kept)


def _most_useful(shortcut: _Shortcut, candidates: Sequence[_Watched]) -> _Shortcut:
    """The shortcut with one more penalty: on the latent that lowers the objective most, if any does."""
    free = [one for one in candidates if one.latent not in {its.latent for its in shortcut.watched}]
    if not free:
        return shortcut
    if not shortcut.watched:
        alone = gains(_problem([shortcut._replace(watched=tuple(free))]))
        best = int(alone.argmax())
        return shortcut._replace(watched=(free[best],)) if alone[best] > 0 else shortcut
    tried = [shortcut._replace(watched=(*shortcut.watched, one)) for one in free]
    return min(tried, key=_least)


def _least(shortcut: _Shortcut) -> float:
    problem = _problem([shortcut])
    return objective(problem, least_penalties(problem)).total


def _problem(shortcuts: Sequence[_Shortcut]) -> PenaltyProblem:
    """What all penalties are to do together: kin share one deterrent."""
    numbers = sorted({one.kin for one in shortcuts})
    kin = [[one for one in shortcuts if one.kin == number] for number in numbers]
    has = np.stack([_has(group) for group in kin], axis=1)
    left = np.stack([_total([one.left.rejected for one in group]) for group in kin], axis=1)
    watched = [(numbers.index(one.kin), its) for one in shortcuts for its in one.watched]
    good, bad = (
        np.stack([np.zeros(size, dtype=bool), *(its.fires[side] for _, its in watched)], axis=1)[:, 1:]
        for side, size in enumerate((len(shortcuts[0].harmful.chosen), len(has)))
    )
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
    """[Nr] whether each rejected answer has the shortcut that these groups tell of."""
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
    """Each group's controls at these charges, in the order of the groups and their watched latents."""
    amount = iter(amounts)
    with_suggestions = [(one, [next(amount) for _ in one.watched]) for one in shortcuts]
    found = []
    for one, its in with_suggestions:
        kin = [(other, alphas) for other, alphas in with_suggestions if other.kin == one.kin]
        pairs_of = zip(one.watched, its, strict=True)
        penalties = [_penalty(pairs, watched, alpha, kin, unit) for watched, alpha in pairs_of if alpha]
        found.append(one.suggestion(unit, penalties))
    return found


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
    """What kin pay where this penalty fires, less what their other penalties charge there.

    Reward units, the median over answers that fire, after the caps.
    """
    if sum(len(other.caps) for other, _ in kin) < 2:
        return 0.0
    amounts = []
    for side, kept in enumerate(watched.kept):
        penalised = [
            alpha * its.fires[side]
            for other, alphas in kin
            for its, alpha in zip(other.watched, alphas, strict=True)
            if its.latent != watched.latent
        ]
        left = _total([other.left[side] for other, _ in kin])
        amounts.append((left - kept - sum(penalised))[watched.fires[side]])
    rest = np.concatenate(amounts)
    return rounded(float(np.median(rest)) * unit) if len(rest) else 0.0


def _rounded_up(amount: float) -> float:
    """To hundredths of an SD; a rounding error above one adds none, and next to nothing is nothing."""
    return math.ceil(100 * amount - 1e-6) / 100 if amount >= _LEAST else 0.0
