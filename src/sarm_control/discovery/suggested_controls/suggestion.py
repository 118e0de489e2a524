"""Suggested controls from the latents that harm: which latents need one, and all controls together."""

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
    """Controls chosen together, and their effects.

    Args:
        joint: the controls, group by group.
        selection: their effects on the prompts on which their sizes were chosen.
        confirmation: their effects on the other prompts, which are the honest figures.
    """

    joint: JointControls
    selection: ControlEffects
    confirmation: ControlEffects

    def as_json(self) -> dict[str, Any]:
        """The controls, the objective and the effects on both parts as a JSON object."""
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
    """Controls for these latents together, with sizes from the selection prompts.

    Latents that should have no control must be left out before, because a subset of jointly chosen controls
    does not have the right sizes.

    Args:
        harms: latents that harm.
        parts: the prompts of a discovery.
    """
    first, second = parts.selection.latents, parts.confirmation.latents
    joint = joint_controls(first, {one.latent: one.kind for one in harms})
    return Suggested(joint, control_effects(first, joint), control_effects(second, joint))


def with_controls(features: Iterable[Feature], joint: JointControls) -> tuple[Feature, ...]:
    """The features with their own controls; one without names the similar latents that carry its control."""
    return tuple(_with_controls(feature, joint.suggestion(feature.latent)) for feature in features)


def _with_controls(feature: Feature, suggestion: Suggestion | None) -> Feature:
    if suggestion is None:
        return replace(feature, controls=(), carried_by=())
    own = suggestion.of(feature.latent)
    return replace(feature, controls=own, carried_by=() if own else suggestion.carriers)


def material_latents(
    features: Iterable[Feature], *, of_margin: float = 0.0, of_sd: float = 0.0
) -> tuple[Feature, ...]:
    """The latents whose effect is shown and large enough to matter, in their order.

    An effect is shown (evidence L1) when its interval excludes 0. With enough pairs, the tests also find
    latents that contribute a thousandth of the reward's SD: real effects, but no reason to change the reward.

    Args:
        features: called latents.
        of_margin: the smallest |effect|, as a share of the mean margin.
        of_sd: the smallest |effect|, in SDs of the reward over answers.
    """
    return tuple(
        one
        for one in shown_latents(features)
        if _reaches(one.share_of_margin, of_margin) and _reaches(one.effect_sd, of_sd)
    )


def shown_latents(features: Iterable[Feature]) -> tuple[Feature, ...]:
    """The latents with evidence of level 1: the interval of the effect on other prompts excludes 0."""
    return tuple(one for one in features if "L1" in one.levels)


def suggested(harms: Sequence[Feature], *, fingerprint: str | None = None) -> Controls:
    """The suggested controls of these latents, for a run.

    Args:
        harms: latents that harm.
        fingerprint: of the head on which they were found.
    """
    controls = [control for one in harms for control in one.controls]
    return Controls(
        edits=[control for control in controls if isinstance(control, Edit)],
        penalties=[control for control in controls if isinstance(control, Penalty)],
        fingerprint=fingerprint,
    )


def _reaches(size: float | None, least: float) -> bool:
    # a size that is not known, such as a share of a margin of 0, leaves no latent out
    return size is None or abs(size) >= least
