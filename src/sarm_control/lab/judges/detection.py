"""How well latents, and the states they are made from, detect an attribute of an answer.

Shapes: `N` answers, `L` latents, `D` hidden size.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import fit_log_ratio
from sarm_control.discovery import auroc_of
from sarm_control.errors import DataError

Floats = NDArray[np.float64]
_PROBE_L2 = 1.0


class Detection(NamedTuple):
    """The detection of one attribute, measured on other answers than those that chose latent and probe.

    Args:
        latent: the latent with the highest AUROC on the other half.
        best_latent: AUROC of that latent; 1 is perfect, 0.5 chance.
        probe: AUROC of a linear probe on the normalised state.
        positives: answers with the attribute.
        answers: answers in all.
    """

    latent: int
    best_latent: float
    probe: float
    positives: int
    answers: int


def auroc(scores: NDArray[np.floating], present: NDArray[np.bool_]) -> float:
    """Probability that an answer with the attribute scores higher than one without; ties count half.

    NaN when all answers or none have it.
    """
    if present.all() or not present.any():
        return float("nan")
    values = np.asarray(scores, dtype=np.float64)
    return auroc_of(values[present], values[~present])


def check_both(present: NDArray[np.bool_], name: str) -> None:
    """Refuses answers of which all, or none, have the attribute.

    Args:
        present: [N].
        name: of the attribute.

    Raises:
        DataError: naming the attribute.
    """
    if present.all() or not present.any():
        raise DataError(
            f"{name}: {int(present.sum())} of {len(present)} answers have it, so nothing can detect it",
            hint="measure on more pairs",
        )


def best_latent(latents: Floats, present: NDArray[np.bool_], name: str = "the attribute") -> int:
    """The latent of [N, L] whose value detects the attribute [N] best.

    Raises:
        DataError: all answers have the attribute, or none; the message has `name`.
    """
    check_both(present, name)
    return int(np.argmax([auroc(column, present) for column in latents.T]))


def detect(
    latents: Floats, states: Floats, present: NDArray[np.bool_], name: str = "the attribute"
) -> Detection:
    """Chooses latent and probe on the first half of the rows and judges them on the second.

    The split is into halves, not into even and odd rows: pairs have the better answer first, so those would
    differ in kind.

    Args:
        latents: [N, L].
        states: [N, D] normalised states.
        present: [N].
        name: of the attribute.

    Raises:
        DataError: all rows of one half have the attribute, or none; the message has `name`.
    """
    middle = len(present) // 2
    fit, judge = slice(0, middle), slice(middle, None)
    check_both(present[judge], name)
    # the best of many by the answers that chose it would look better than it is
    latent = best_latent(latents[fit], present[fit], name)
    known = present[fit]
    probe = fit_log_ratio(states[fit][known], states[fit][~known], l2=_PROBE_L2)
    return Detection(
        latent=latent,
        best_latent=auroc(latents[judge, latent], present[judge]),
        probe=auroc(probe.at(states[judge]), present[judge]),
        positives=int(present[judge].sum()),
        answers=len(present[judge]),
    )
