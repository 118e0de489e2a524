"""What suggested controls do to scored answers: to bad ones what they should, to good ones what they cost.

Doses are read from the selection prompts, so what they do there flatters them; the confirmation prompts tell.

Shapes: `Nc` chosen and `Nr` rejected answers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, Penalty, in_sd
from sarm_control.discovery.pairs.margins import PairLatents, Values, latent_values, rewards
from sarm_control.discovery.suggested_controls.harmful_reward import Fires, harmful_reward
from sarm_control.discovery.suggested_controls.joint_controls import (
    PAID_FOR_BAD,
    Control,
    JointControls,
    Suggestion,
)

CORRELATED = 0.9
"""Good answers are left alone where their reward correlates this well with the unedited one."""
SEPARABLE = 0.5
"""Penalties that fire on good answers this often, as a share of bad ones, do not tell them apart."""

Floats = NDArray[np.float64]


class ControlEffect(NamedTuple):
    """What some controls do on one part of the pairs.

    Args:
        answers: those that are meant: rejected ones with a shortcut, or, of a charged-for-good latent,
            chosen ones that fire.
        paid_before: mean over these of the harmful pay (of a charged-for-good latent: of `w z`), reward
            units; None where there are none.
        paid_after: the same, less what the controls take or charge.
        correlation: of the controlled with the unedited reward over chosen answers; None where one of them
            does not vary.
        charged: share of chosen answers on which a penalty fires.
        charged_bad: share of rejected answers on which one fires.
    """

    answers: int
    reward_before: float | None
    reward_after: float | None
    correlation: float | None
    penalised: float
    penalised_bad: float

    @property
    def clean(self) -> bool:
        """Whether good answers are left alone: a correlation of 0.9 or more, and few are charged."""
        return (self.correlation is None or self.correlation >= CORRELATED) and self.told_apart

    @property
    def told_apart(self) -> bool:
        """Whether the penalties fire much less often on good than on bad answers."""
        return self.penalised <= SEPARABLE * self.penalised_bad

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return self._asdict()


class ControlEffects(NamedTuple):
    """What a joint dose does on one part of the pairs.

    Args:
        together: all controls, on the bad answers that have any of the shortcuts.
        each: the controls of each suggestion alone, on the answers that they are meant for.
    """

    together: ControlEffect
    each: tuple[ControlEffect, ...]


def control_effects(pairs: PairLatents, joint: JointControls) -> ControlEffects:
    """What these controls do to these answers; doses in SDs are those of `joint.unit`."""
    paid_for_bad = [one for one in joint.suggestions if one.kind == PAID_FOR_BAD]
    harmful = [_harmful(pairs, one) for one in paid_for_bad]
    has = np.zeros(pairs.rejected.shape[0], dtype=bool)
    for one, values in zip(paid_for_bad, harmful, strict=True):
        has |= values.rejected > one.above
    before = np.sum([values.rejected for values in harmful], axis=0) if harmful else np.zeros(len(has))
    # an edit of a charged-for-good latent frees bad answers too: that is in the rewards, not in this pay
    controls = [control for one in paid_for_bad for control in one.controls]
    after = before + _change(pairs, controls, joint.unit).rejected
    return ControlEffects(
        _effect(pairs, joint.controls, joint.unit, before[has], after[has]),
        tuple(_alone(pairs, one, joint.unit) for one in joint.suggestions),
    )


def _alone(pairs: PairLatents, one: Suggestion, unit: float) -> ControlEffect:
    change = _change(pairs, one.controls, unit)
    if one.kind == PAID_FOR_BAD:
        before, moved = _harmful(pairs, one).rejected, change.rejected
        meant = before > one.above
    else:
        (latent,) = one.latents
        before, moved = latent_values(pairs, latent).chosen * pairs.head[latent], change.chosen
        meant = before < 0
    return _effect(pairs, one.controls, unit, before[meant], (before + moved)[meant])


def _effect(
    pairs: PairLatents, controls: Sequence[Control], unit: float, before: Floats, after: Floats
) -> ControlEffect:
    unedited = rewards(pairs).chosen
    fires = _fires(pairs, controls)
    return ControlEffect(
        answers=len(before),
        reward_before=float(before.mean()) if len(before) else None,
        reward_after=float(after.mean()) if len(after) else None,
        correlation=_correlation(unedited, unedited + _change(pairs, controls, unit).chosen),
        penalised=float(fires.chosen.mean()),
        penalised_bad=float(fires.rejected.mean()),
    )


def _harmful(pairs: PairLatents, one: Suggestion) -> Values:
    return Values(*(side.sum(axis=1) for side in harmful_reward(pairs, one.caps)))


def _change(pairs: PairLatents, controls: Sequence[Control], unit: float) -> Values:
    """What the controls add to each answer's reward, reward units."""
    found = Values(np.zeros(pairs.chosen.shape[0]), np.zeros(pairs.rejected.shape[0]))
    for control in controls:
        for total, z in zip(found, latent_values(pairs, control.latent), strict=True):
            total += _moved(control, z, float(pairs.head[control.latent]), unit)
    return found


def _moved(control: Control, z: Floats, weight: float, unit: float) -> Floats:
    if isinstance(control, Edit):
        return np.asarray(weight * (control.apply(z) - z))
    return np.where(control.fires(z), -_alpha(control, unit), 0.0)


def _alpha(penalty: Penalty, unit: float) -> float:
    if penalty.alpha is None:
        return 0.0
    sds = in_sd(penalty.alpha, "alpha")
    return float(penalty.alpha) if sds is None else sds * unit


def _fires(pairs: PairLatents, controls: Sequence[Control]) -> Fires:
    found = Fires(*(np.zeros(side.shape[0], dtype=np.bool_) for side in (pairs.chosen, pairs.rejected)))
    for control in controls:
        if isinstance(control, Penalty):
            for total, z in zip(found, latent_values(pairs, control.latent), strict=True):
                total |= control.fires(z)
    return found


def _correlation(one: Floats, other: Floats) -> float | None:
    if len(one) < 2:
        return None
    if min(one.std(), other.std()) <= 1e-12 * np.abs(one).max():
        return None
    return float(np.corrcoef(one, other)[0, 1])
