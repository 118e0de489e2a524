"""Suggested controls in words: those of each group of similar latents, their effects and their cost."""

from collections.abc import Iterator

from sarm_control.control import Edit
from sarm_control.discovery.suggested_controls.control_effects import CORRELATED, ControlEffect
from sarm_control.discovery.suggested_controls.joint_controls import PAID_FOR_BAD, Control, Suggestion
from sarm_control.discovery.suggested_controls.suggestion import Suggested

COLUMNS = ("latents", "controls", "answers", "reward before", "after", "correlation", "penalised")
_NAMED = 6
"""A cell names at most this many latents and counts the rest."""


def control_rows(found: Suggested) -> list[tuple[str, ...]]:
    """`COLUMNS`, and a row for each suggestion with its effects on the confirmation prompts."""
    each = zip(found.joint.suggestions, found.confirmation.each, strict=True)
    return [COLUMNS, *((_latents(one), _controls(one), *_cells(effect)) for one, effect in each)]


def control_sentences(found: Suggested) -> Iterator[str]:
    """The effects of all controls together, on the confirmation prompts and on the selection prompts."""
    whole, chosen = found.confirmation.together, found.selection.together
    if any(one.kind == PAID_FOR_BAD for one in found.joint.suggestions):
        yield (
            f"With all of them, bad answers that have a shortcut get {_before_and_after(whole)} "
            f"(n = {whole.answers}; on the selection prompts {_before_and_after(chosen)}), in reward units "
            "above what a typical chosen answer gets from these latents."
        )
    if found.joint.suggestions:
        yield f"{_correlation(whole)} (selection prompts: {_number(chosen.correlation)}). {_penalised(whole)}"
    if found.joint.objective is not None:
        yield f"Objective of the sizes, in squared SDs of the reward: {found.joint.objective}."


def control_comment(found: Suggested, latent: int) -> str:
    """The effects of the suggestion to which this latent belongs, on both parts, on one line."""
    place = next(n for n, one in enumerate(found.joint.suggestions) if latent in one.latents)
    one = found.joint.suggestions[place]
    others = "" if len(one.latents) < 2 else f"for the similar latents {_latents(one)}: "
    return (
        f"  {others}{_aim(one)} {_effect(found.confirmation.each[place])} "
        f"(selection prompts: {_effect(found.selection.each[place])})"
    )


def _aim(one: Suggestion) -> str:
    return "bad answers get" if one.kind == PAID_FOR_BAD else "good answers that fire get"


def _effect(effect: ControlEffect) -> str:
    return (
        f"{_before_and_after(effect)}, correlation on good answers {_number(effect.correlation)}, "
        f"{100 * effect.penalised:.0f} % of them penalised"
    )


def _latents(one: Suggestion) -> str:
    rest = len(one.latents) - _NAMED
    return " ".join(map(str, one.latents[:_NAMED])) + (f" and {rest} more" if rest > 0 else "")


def _controls(one: Suggestion) -> str:
    return ", ".join(map(_control, one.controls)) or "none"


def _control(one: Control) -> str:
    if isinstance(one, Edit):
        return f"cap {one.latent}" if one.max is not None else f"edit {one.latent}"
    return f"penalty {one.latent} {one.alpha}"


def _cells(effect: ControlEffect) -> tuple[str, ...]:
    return (
        str(effect.answers),
        _number(effect.reward_before, "+.3g"),
        _number(effect.reward_after, "+.3g"),
        _number(effect.correlation),
        f"{100 * effect.penalised:.1f} %",
    )


def _before_and_after(effect: ControlEffect) -> str:
    return f"{_number(effect.reward_before, '+.3g')} before and {_number(effect.reward_after, '+.3g')} after"


def _number(value: float | None, style: str = ".2f") -> str:
    return "-" if value is None else f"{value:{style}}"


def _correlation(effect: ControlEffect) -> str:
    if effect.correlation is None:
        return "On good answers a correlation is not defined, since a reward does not vary"
    text = f"On good answers the controlled reward correlates {effect.correlation:.2f} with the unedited one"
    return text if effect.correlation >= CORRELATED else f"{text}, below {CORRELATED:g}"


def _penalised(effect: ControlEffect) -> str:
    good, bad = f"{100 * effect.penalised:.0f} %", f"{100 * effect.penalised_bad:.0f} %"
    text = f"Penalties fire on {good} of the good answers and {bad} of the bad ones"
    if not effect.penalised_bad:
        changed = "" if effect.clean else "; the edits change the reward of good answers"
        return f"No penalty fires on any of them{changed}."
    if effect.clean:
        return f"{text}."
    if effect.separable:
        return f"{text}: good answers that have a shortcut are changed as well."
    return f"{text}: these latents do not separate them, and no clean control of them exists."
