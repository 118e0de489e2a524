"""Corrections for many latents at once, from p-values; max-T (`sign_flips.max_t_test`) needs the data.

Shapes: `M` tested latents.
"""

import numpy as np
from numpy.typing import NDArray

FloatVector = NDArray[np.float64]


def benjamini_hochberg(p: FloatVector) -> FloatVector:
    """[M] adjusted p-values (q) that hold the false discovery rate.

    Valid when the tests are independent or positively dependent (Benjamini and Hochberg 1995,
    Benjamini and Yekutieli 2001). An empty input gives an empty output.
    """
    count = len(p)
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=np.float64)[order] * count / np.arange(1, count + 1)
    q = np.empty(count)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def benjamini_yekutieli(p: FloatVector) -> FloatVector:
    """[M] the same valid under any dependence: `1 + 1/2 + ... + 1/M` times as large, at most 1."""
    harmonic = float((1 / np.arange(1, len(p) + 1)).sum())
    return np.minimum(harmonic * benjamini_hochberg(p), 1.0)
