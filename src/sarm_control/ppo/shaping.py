"""Preference As Reward (PAR): a bounded reward, so that the last SD of the proxy pays next to nothing.

Shapes: `N` answers, `M` reference answers to each prompt.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shaping = Literal["none", "par"]


def preference_as_reward(total: Array, mean: float, sd: float, reference: Array | None = None) -> Array:
    """[N] `mean + sd * average of sigmoid((total - r_ref) / sd)`: between `mean` and `mean + sd`.

    Preference As Reward (arXiv 2502.18770) averages `sigmoid(r - r_ref)` over reference answers to the same
    prompt; here the difference is taken in SDs of the reference policy's rewards.

    Args:
        total: [N] under all controls, the charge on answers that did not end included.
        mean: of the reference policy's rewards, frozen before the first step.
        sd: theirs, > 0.
        reference: [N, M] rewards of M reference answers to the prompt of each answer; without them `mean`
            stands for every prompt's.
    """
    away = total[:, None] - (np.full((1, 1), mean) if reference is None else reference)
    # tanh does not overflow where exp would
    return np.asarray(mean + sd * 0.5 * (1.0 + np.tanh(away / (2.0 * sd))).mean(axis=1))
