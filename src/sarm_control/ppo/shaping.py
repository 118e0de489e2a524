"""Preference As Reward (PAR): a bounded reward, so that the last SD of the proxy pays next to nothing.

Shapes: `N` answers.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shaping = Literal["none", "par"]


def preference_as_reward(total: Array, mean: float, sd: float) -> Array:
    """[N] `mean + sd * sigmoid((total - mean) / sd)`: between `mean` and `mean + sd`, in reward units.

    After arXiv 2502.18770, which averages `sigmoid(r - r_ref)` over reference answers to the same prompt.
    Here the reference reward is one frozen number, the mean over all reference answers, and the
    difference is taken in their SDs: the reference policy needs no answers of its own in any step.

    Args:
        total: [N] under all controls, the charge on answers that did not end included.
        mean: of the reference policy's rewards, frozen before the first step.
        sd: theirs, > 0.
    """
    # tanh does not overflow where exp would
    return np.asarray(mean + sd * 0.5 * (1.0 + np.tanh((total - mean) / (2.0 * sd))))
