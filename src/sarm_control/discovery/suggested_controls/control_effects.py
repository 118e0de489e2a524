"""The effects of suggested controls on scored answers: how much bad ones lose, and how good ones change.

The sizes of controls are chosen on the selection prompts, so their effects look better there than they are.
The confirmation prompts give honest figures.

Shapes: `Nc` chosen and `Nr` rejected answers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, Penalty, in_sd
from sarm_control.discovery.effects.effects import reward_sd
from sarm_control.discovery.pairs.margins import (
    PairLatents,
    Values,
    latent_values,
    rewards,
    watched_values,
)
from sarm_control.discovery.suggested_controls.harmful_reward import Fires, harmful_reward
from sarm_control.discovery.suggested_controls.joint_controls import (
    PAID_FOR_BAD,
    Control,
    JointControls,
    Suggestion,
)

CORRELATED = 0.9
"""The least correlation of the controlled with the unedited reward of good answers for clean controls."""
SEPARABLE = 0.5
"""Penalties separate good from bad answers when they fire at most this often, relative to bad answers."""

Floats = NDArray[np.float64]


class ControlEffect(NamedTuple):
    """The effect of some controls on one part of the pairs.

    Args:
        answers: number of answers at which the controls aim: rejected ones with a shortcut, or, for a
            charged-for-good latent, chosen ones on which it fires.
        reward_before: mean over these of the harmful reward (for a charged-for-good latent: of `w z`), reward
            units; None where there are no such answers.
        reward_after: the same after the controls.
        correlation: of the controlled with the unedited reward over chosen answers; None where one of them
            does not vary.
        penalised: share of chosen answers on which a penalty fires.
        penalised_bad: share of rejected answers on which a penalty fires.
    """

    answers: int
    reward_before: float | None
    reward_after: float | None
    correlation: float | None
    penalised: float
    penalised_bad: float

    @property
    def clean(self) -> bool:
        """Whether good answers hardly change: a correlation of at least 0.9, and few of them penalised."""
        return (self.correlation is None or self.correlation >= CORRELATED) and self.separable

    @property
    def separable(self) -> bool:
        """Whether the penalties fire much less often on good than on bad answers."""
        return self.penalised <= SEPARABLE * self.penalised_bad

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return self._asdict()


class ControlEffects(NamedTuple):
    """The effects of jointly chosen controls on one part of the pairs.

    Args:
        together: all controls, on the bad answers that have any of the shortcuts.
        each: the controls of each suggestion alone, on the answers at which they aim.
    """

    together: ControlEffect
    each: tuple[ControlEffect, ...]


def control_effects(pairs: PairLatents, joint: JointControls) -> ControlEffects:
    """The effects of these controls on these answers; one SD is `joint.unit`."""
    paid_for_bad = [one for one in joint.suggestions if one.kind == PAID_FOR_BAD]
    harmful = [_harmful(pairs, one) for one in paid_for_bad]
    has = np.zeros(pairs.rejected.shape[0], dtype=bool)
    for one, values in zip(paid_for_bad, harmful, strict=True):
        has |= values.rejected > one.above
    before = np.sum([values.rejected for values in harmful], axis=0) if harmful else np.zeros(len(has))
    # edits of charged-for-good latents raise bad answers too: no harmful reward, so they are left out
    controls = [control for one in paid_for_bad for control in one.controls]
    after = before + _change(pairs, controls, joint.unit).rejected
    return ControlEffects(
        _effect(pairs, joint.controls, joint.unit, before[has], after[has]),
        tuple(_alone(pairs, one, joint.unit) for one in joint.suggestions),
    )


def good_correlation(pairs: PairLatents, controls: Sequence[Control]) -> float | None:
    """How the reward of chosen answers under these controls correlates with the unedited one.

    Penalties in SDs are taken in SDs of the reward over these pairs; those that hold a rate count as nothing.

    Args:
        pairs: scored pairs.
        controls: edits and penalties.

    Returns:
        Pearson's correlation over the [Nc] chosen answers; None where one of the rewards does not vary.
    """
    unedited = rewards(pairs).chosen
    return _correlation(unedited, unedited + _change(pairs, controls, reward_sd(pairs)).chosen)


def _alone(pairs: PairLatents, one: Suggestion, unit: float) -> ControlEffect:
    change = _change(pairs, one.controls, unit)
    if one.kind == PAID_FOR_BAD:
        before, moved = _harmful(pairs, one).rejected, change.rejected
        meant = before > one.above
    else:
        (latent,) = one.latents
        before, moved = latent_values(pairs, latent).chosen * pairs.head[latent], change.chosen
        # on which it takes something away: elsewhere there is no charge to remove
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
    """The change of each answer's reward by the controls, reward units."""
    change = Values(np.zeros(pairs.chosen.shape[0]), np.zeros(pairs.rejected.shape[0]))
    for control in controls:
        for total, z in zip(change, watched_values(pairs, control.latent), strict=True):
            total += _change_by(control, z, pairs, unit)
    return change


def _change_by(control: Control, z: Floats, pairs: PairLatents, unit: float) -> Floats:
    if isinstance(control, Edit):
        return np.asarray(float(pairs.head[control.latent]) * (control.apply(z) - z))
    # suggested penalties are indicators: the whole alpha where they fire
    return np.where(control.fires(z), -_alpha(control, unit), 0.0)


def _alpha(penalty: Penalty, unit: float) -> float:
    if penalty.alpha is None:
        return 0.0
    sds = in_sd(penalty.alpha, "alpha")
    return float(penalty.alpha) if sds is None else sds * unit


def _fires(pairs: PairLatents, controls: Sequence[Control]) -> Fires:
    fires = Fires(*(np.zeros(side.shape[0], dtype=np.bool_) for side in (pairs.chosen, pairs.rejected)))
    for control in controls:
        if isinstance(control, Penalty):
            for total, z in zip(fires, watched_values(pairs, control.latent), strict=True):
                total |= control.fires(z)
    return fires


def _correlation(one: Floats, other: Floats) -> float | None:
    if len(one) < 2:
        return None
    # a constant reward has no correlation; its SD is rounding, not exactly 0
    if min(one.std(), other.std()) <= 1e-12 * np.abs(one).max():
        return None
    return float(np.corrcoef(one, other)[0, 1])
