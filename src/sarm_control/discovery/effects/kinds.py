"""The kinds of latents: a latent promotes or harms a preference, each in one of two ways.

The direction is the sign of the mean margin contribution, never the sign of the head weight: a latent with
w < 0 that fires on rejected answers promotes. "Paid" and "charged" refer to the reward that the latent adds
to or subtracts from the answers on which it fires.

|        | fires more on chosen | fires more on rejected |
|--------|----------------------|------------------------|
| w > 0  | paid-for-good        | paid-for-bad           |
| w < 0  | charged-for-good     | charged-for-bad        |

"Fires more" compares the mean of z, so a latent that is always on but higher counts too.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

PROMOTES = ("paid-for-good", "charged-for-bad")
HARMS = ("paid-for-bad", "charged-for-good")
NOT_SIGNIFICANT = "not significant"
NOT_REPLICATED = "not replicated"

Direction = Literal["promotes", "harms"]


def direction(kind: str) -> Direction | None:
    """Whether a kind promotes or harms; None for "not significant" and "not replicated"."""
    if kind in PROMOTES:
        return "promotes"
    return "harms" if kind in HARMS else None


def name_kinds(
    weight: NDArray[np.float64], effect: NDArray[np.float64], significant: NDArray[np.bool_]
) -> NDArray[np.str_]:
    """[M] the kind of every latent, by its weight and its mean margin contribution.

    Args:
        weight: [M] head weights.
        effect: [M] mean margin contributions, `w` times the difference of mean z.
        significant: [M] where false, the kind is "not significant".
    """
    # effect = w times the difference of mean z, so weight and effect give the side on which it fires more
    promotes = np.where(weight > 0, *PROMOTES)
    harms = np.where(weight > 0, *HARMS)
    kinds = np.where(effect > 0, promotes, harms)
    return np.asarray(np.where(significant & (effect != 0), kinds, NOT_SIGNIFICANT))


def name_replicated(
    weight: NDArray[np.float64],
    selection_effect: NDArray[np.float64],
    effect: NDArray[np.float64],
    significant: NDArray[np.bool_],
    confirmed: NDArray[np.bool_],
) -> NDArray[np.str_]:
    """[M] kinds of latents that were selected on some prompts and confirmed on others.

    Args:
        weight: [M] head weights.
        selection_effect: [M] mean contributions on the selection prompts.
        effect: [M] mean contributions on the confirmation prompts.
        significant: [M] significant on the selection prompts.
        confirmed: [M] significant on the confirmation prompts too.
    """
    # significant on both parts but of opposite signs is a failed replication, not two findings
    replicated = confirmed & (np.sign(selection_effect) == np.sign(effect))
    kinds = name_kinds(weight, effect, significant)
    return np.asarray(np.where(significant & ~replicated, NOT_REPLICATED, kinds))
