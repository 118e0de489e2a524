"""From the latents that harm to the controls of a run: which are worth one, and all of theirs together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sarm_control.control import Controls, Edit, Penalty
from sarm_control.discovery.features import Feature, control_json
from sarm_control.discovery.pairs.prompt_pairs import PromptSplit
from sarm_control.discovery.suggested_controls.control_effects import ControlEffects, control_effects
from sarm_control.discovery.suggested_controls.joint_controls import JointControls, Suggestion, joint_controls


@dataclass(frozen=True)
class Suggested:
    """Controls chosen together, and what they do.

    Args:
        dose: the controls, group by group.
        selection: what they do to the prompts that their doses were read from.
        confirmation: what they do to the others: the honest figures.
    """

    joint: JointControls
    selection: ControlEffects
    confirmation: ControlEffects

    def as_json(self) -> dict[str, Any]:
        """The doses, the objective and the effects on both parts as a JSON object."""
        joint, parts = (
            self.joint,
            {"selection": self.selection, "confirmation": self.confirmation},
        )
        return {
            "reward_sd": joint.unit,
            "objective": None if joint.objective is None else joint.objective.as_json(),
            "objective_without": None if joint.before is None else joint.before.as_json(),
            "together": {name: part.together.as_json() for name, part in parts.items()},
            "suggestions": [
                {
                    "kind": one.kind,
                    "latents": list(one.latents),
                    "controls": [control_json(control) for control in one.controls],
                    **{name: part.each[place].as_json() for name, part in parts.items()},
                }
                for place, one in enumerate(joint.suggestions)
            ],
        }


def suggest(harms: Sequence[Feature], parts: PromptSplit) -> Suggested:
    """Controls for these latents together, with doses from the selection prompts.

    Whichever latents are to have none have to be left out before: a part of a joint dose is no joint dose.

    Args:
        harms: latents that harm.
        parts: the prompts of a discovery.
    """
    first, second = parts.selection.latents, parts.confirmation.latents
    joint = joint_controls(first, {one.latent: one.kind for one in harms})
    return Suggested(joint, control_effects(first, joint), control_effects(second, joint))


def with_controls(features: Iterable[Feature], joint: JointControls) -> tuple[Feature, ...]:
    """The features with their part of the controls, and no other; siblings say who carries theirs."""
    return tuple(_with_controls(one, joint.suggestion(one.latent)) for one in features)


def _with_controls(one: Feature, its: Suggestion | None) -> Feature:
    if its is None:
        return replace(one, controls=(), carried_by=())
    own = its.of(one.latent)
    return replace(one, controls=own, carried_by=() if own else its.carriers)


def material_latents(
    features: Iterable[Feature], *, of_margin: float = 0.0, of_sd: float = 0.0
) -> tuple[Feature, ...]:
    """The latents whose effect is shown and large enough to matter, in their order.

    An effect is shown (evidence L1) when its interval leaves out 0. With enough pairs a latent is found
    that pays a thousandth of the reward's spread: real, and no reason to touch the reward.

    Args:
        features: found latents.
        of_margin: least |effect|, as a share of the mean margin.
        of_sd: least |effect|, in SDs of the reward over answers.
    """
    return tuple(
        one
        for one in shown_latents(features)
        if _reaches(one.share_of_margin, of_margin) and _reaches(one.effect_sd, of_sd)
    )


def shown_latents(features: Iterable[Feature]) -> tuple[Feature, ...]:
    """The latents whose effect has evidence of level 1: an interval on other prompts that leaves out 0."""
    return tuple(one for one in features if "L1" in one.levels)


def suggested(harms: Sequence[Feature], *, fingerprint: str | None = None) -> Controls:
    """The suggested controls of these latents, for a run.

    Args:
        harms: latents that harm.
        fingerprint: of the head they were found on.
    """
    controls = [control for one in harms for control in one.controls]
    return Controls(
        edits=[control for control in controls if isinstance(control, Edit)],
        penalties=[control for control in controls if isinstance(control, Penalty)],
        fingerprint=fingerprint,
    )


def _reaches(size: float | None, least: float) -> bool:
    return size is None or abs(size) >= least
