"""Corrections for testing many latents at once, from their p-values; `sign_flips.max_t_test` needs the data.

Shapes: `M` tested latents.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatVector = NDArray[np.float64]


def benjamini_hochberg(p: FloatVector) -> FloatVector:
    """[M] adjusted p-values (q) that hold the false discovery rate.

    Valid when the tests are independent or positively dependent (Benjamini and Hochberg 1995,
    Benjamini and Yekutieli 2001). An empty input gives an empty output.
    """
    return _false_discovery_control(p, "bh")


def benjamini_yekutieli(p: FloatVector) -> FloatVector:
    """[M] the same valid under any dependence, `1 + 1/2 + ... + 1/M` times as large."""
    return _false_discovery_control(p, "by")


def _false_discovery_control(p: FloatVector, method: Literal["bh", "by"]) -> FloatVector:
    from scipy.stats import false_discovery_control

    if not len(p):
        return np.empty(0)
    return np.asarray(false_discovery_control(p, method=method), dtype=np.float64)
