"""Multiplies rows of mixed density by a dense matrix, each row in its fastest way.

About 130 latents of a TopK autoencoder are active in every answer, and thousands are active in a few. A
sparse product is slow for the first kind, and a dense one for the second.

Shapes: `M` rows, `P` columns, `B` columns of the other factor.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DENSE_FROM = 0.05
"""With a larger share of stored entries, a dense product is faster."""


class MixedRows:
    """[M, P] float64 rows, stored dense or sparse by their share of stored entries.

    Args:
        rows: [M, P] scipy sparse.
    """

    def __init__(self, rows: Any) -> None:
        csr = rows.tocsr()
        stored = np.diff(csr.indptr)
        self.shape: tuple[int, int] = csr.shape
        self._is_dense = stored > _DENSE_FROM * max(csr.shape[1], 1)
        self._dense: NDArray[np.float64] = csr[self._is_dense].toarray()
        self._sparse = csr[~self._is_dense]

    def __matmul__(self, other: NDArray[np.float64]) -> NDArray[np.float64]:
        product = np.empty((self.shape[0], other.shape[1]))
        product[self._is_dense] = self._dense @ other
        product[~self._is_dense] = self._sparse @ other
        return product
