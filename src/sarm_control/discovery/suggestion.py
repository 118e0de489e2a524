"""From the latents that harm to the controls of a run: which are worth one, and all of theirs together."""

from collections.abc import Iterable, Sequence

from sarm_control.control.controls import Controls
from sarm_control.control.edits import Edit
from sarm_control.control.penalties import Penalty
from sarm_control.discovery.features import Feature


def material_latents(
    features: Iterable[Feature], *, of_margin: float = 0.0, of_sd: float = 0.0
) -> tuple[Feature, ...]:
    """The latents whose effect is large enough to matter, in their order.

    With enough pairs a latent is found that pays a thousandth of the reward's spread: real, and no reason
    to touch the reward.

    Args:
        features: found latents.
        of_margin: least |effect|, as a share of the mean margin.
        of_sd: least |effect|, in SDs of the reward over answers.
    """
    return tuple(
        one for one in features if _reaches(one.share_of_margin, of_margin) and _reaches(one.effect_sd, of_sd)
    )


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
