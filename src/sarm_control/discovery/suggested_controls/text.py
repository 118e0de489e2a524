"""Suggested controls in words: what each group of siblings gets, what that does, and what it costs."""

from collections.abc import Iterator

from sarm_control.control import Edit
from sarm_control.discovery.suggested_controls.control_effects import CORRELATED, DoseEffect
from sarm_control.discovery.suggested_controls.joint_controls import PAID, Control, Suggestion
from sarm_control.discovery.suggested_controls.suggestion import Suggested

COLUMNS = ("latents", "controls", "answers", "paid before", "after", "correlation", "charged")
_NAMED = 6
"""Latents that a cell names before it only counts them."""


def dose_rows(found: Suggested) -> list[tuple[str, ...]]:
    """`COLUMNS` and a row for each suggestion, with what it does on the confirmation prompts."""
    each = zip(found.dose.suggestions, found.confirmation.each, strict=True)
    return [COLUMNS, *((_latents(one), _controls(one), *_cells(effect)) for one, effect in each)]


def dose_sentences(found: Suggested) -> Iterator[str]:
    """What all controls do together, on the confirmation prompts; those of the selection in brackets."""
    whole, chosen = found.confirmation.together, found.selection.together
    if any(one.kind == PAID for one in found.dose.suggestions):
        yield (
            f"With all of them, bad answers that have a shortcut are paid {_paid(whole)} "
            f"(n = {whole.answers}; on the selection prompts {_paid(chosen)}), in reward units above what a "
            "typical chosen answer has of these latents."
        )
    if found.dose.suggestions:
        yield f"{_correlation(whole)} (selection prompts: {_number(chosen.correlation)}). {_charged(whole)}"
    if found.dose.objective is not None:
        yield f"Objective of the doses, in squared SDs of the reward: {found.dose.objective}."


def dose_comment(found: Suggested, latent: int) -> str:
    """What the suggestion that this latent belongs to does, on both parts, on one line."""
    place = next(n for n, one in enumerate(found.dose.suggestions) if latent in one.latents)
    one = found.dose.suggestions[place]
    others = "" if len(one.latents) < 2 else f"for the siblings {_latents(one)}: "
    return (
        f"  {others}{_meant(one)} {_effect(found.confirmation.each[place])} "
        f"(selection prompts: {_effect(found.selection.each[place])})"
    )


def _meant(one: Suggestion) -> str:
    return "bad answers paid" if one.kind == PAID else "good answers that fire paid"


def _effect(effect: DoseEffect) -> str:
    return (
        f"{_paid(effect)}, correlation on good answers {_number(effect.correlation)}, "
        f"{100 * effect.charged:.0f} % of them charged"
    )


def _latents(one: Suggestion) -> str:
    rest = len(one.latents) - _NAMED
    return " ".join(map(str, one.latents[:_NAMED])) + (f" and {rest} more" if rest > 0 else "")


def _controls(one: Suggestion) -> str:
    return ", ".join(map(_control, one.controls)) or "none"


def _control(one: Control) -> str:
    if isinstance(one, Edit):
        return f"cap {one.latent}" if one.max is not None else f"no charge {one.latent}"
    return f"penalty {one.latent} {one.alpha}"


def _cells(effect: DoseEffect) -> tuple[str, ...]:
    return (
        str(effect.answers),
        _number(effect.paid_before, "+.3g"),
        _number(effect.paid_after, "+.3g"),
        _number(effect.correlation),
        f"{100 * effect.charged:.1f} %",
    )


def _paid(effect: DoseEffect) -> str:
    return f"{_number(effect.paid_before, '+.3g')} before and {_number(effect.paid_after, '+.3g')} after"


def _number(value: float | None, style: str = ".2f") -> str:
    return "-" if value is None else f"{value:{style}}"


def _correlation(effect: DoseEffect) -> str:
    if effect.correlation is None:
        return "On good answers a correlation is not defined, since a reward does not vary"
    said = f"On good answers the controlled reward correlates {effect.correlation:.2f} with the unedited one"
    return said if effect.correlation >= CORRELATED else f"{said}, below {CORRELATED:g}"


def _charged(effect: DoseEffect) -> str:
    good, bad = f"{100 * effect.charged:.0f} %", f"{100 * effect.charged_bad:.0f} %"
    said = f"Penalties charge {good} of the good answers and {bad} of the bad ones"
    if not effect.charged_bad:
        changed = "" if effect.clean else ", the edits change what good answers are paid"
        return f"No penalty charges any of them{changed}."
    if effect.clean:
        return f"{said}."
    if effect.told_apart:
        return f"{said}: good answers that have a shortcut are changed as well."
    return f"{said}: these latents do not tell them apart, and no clean control of them exists."
