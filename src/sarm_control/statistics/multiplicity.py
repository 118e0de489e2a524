"""Corrections for many latents at once, from p-values; max-T (`sign_flips.max_t_test`) needs the data.

Shapes: `M` tested latents.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

FloatVector = NDArray[np.float64]


def benjamini_hochberg(p: Float[FloatVector, " M"]) -> Float[FloatVector, " M"]:
    """[M] adjusted p-values (q) that hold the false discovery rate.

    Valid when the tests are independent or positively dependent (Benjamini and Hochberg 1995,
    Benjamini and Yekutieli 2001). An empty input gives an empty output. With a NaN every q is NaN:
    a test without a p could have any rank, and the ranks of the others depend on it.

    Raises:
        ValueError: a p below 0 or above 1.
    """
    return _adjusted(p, "bh")


def benjamini_yekutieli(p: Float[FloatVector, " M"]) -> Float[FloatVector, " M"]:
    """[M] the same valid under any dependence: `1 + 1/2 + ... + 1/M` times as large, at most 1."""
    return _adjusted(p, "by")


def _adjusted(p: Float[FloatVector, " M"], method: Literal["bh", "by"]) -> Float[FloatVector, " M"]:
    from scipy.stats import false_discovery_control

    values = np.asarray(p, dtype=np.float64)
    if np.isnan(values).any():  # scipy refuses them
        return np.full(len(values), np.nan)
    return np.asarray(false_discovery_control(values, method=method))
