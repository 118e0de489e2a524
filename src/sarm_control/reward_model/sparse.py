"""Sparse latents of a batch of answers, in compressed sparse row form.

Shapes: `N` answers, `L` latents of the autoencoder, `K` stored values of a row, `D` chosen latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.int32]


@dataclass(frozen=True)
class SparseLatents:
    """Stored (index, value) pairs of N answers; everything not stored is exactly 0.

    Args:
        indptr: [N + 1] int64; row j is `indices[indptr[j]:indptr[j + 1]]`.
        indices: [nnz] int32, ascending within a row, each in `0..size-1`.
        values: [nnz] float32; may be negative (TopK keeps the sign) and may be 0.
        size: L, the number of latents of the autoencoder.
    """

    indptr: NDArray[np.int64]
    indices: IndexArray
    values: FloatArray
    size: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, j: int) -> tuple[IndexArray, FloatArray]:
        """The (indices, values) stored for answer j."""
        span = slice(self.indptr[j], self.indptr[j + 1])
        return self.indices[span], self.values[span]

    def row_ids(self) -> NDArray[np.int64]:
        """[nnz]: the answer each stored pair belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def columns(self, latents: Sequence[int]) -> FloatArray:
        """Dense [N, D] values of the chosen latents, in the order given."""
        return np.asarray(self.to_scipy()[:, list(latents)].toarray(), dtype=np.float32)

    def active(self, latents: Sequence[int]) -> NDArray[np.bool_]:
        """[N, D] whether the chosen latents are active: stored, as they survived TopK, even at z <= 0."""
        from scipy.sparse import csr_array

        pattern = (np.ones(len(self.indices), dtype=np.int8), self.indices, self.indptr)
        stored = csr_array(pattern, shape=(len(self), self.size))[:, list(latents)]
        return np.asarray(stored.toarray() > 0)

    def dot(self, weight: NDArray[np.floating[Any]]) -> FloatArray:
        """[N] float32 `sum_i weight_i z_i`, summed in float64 from the stored pairs."""
        return self.sums(weight).astype(np.float32)

    def sums(self, weight: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """[N] float64 `sum_i weight_i z_i` as `dot` adds it up, before it is rounded."""
        # Not a sparse matrix product: `bincount` adds a row's pairs one by one in the order they are stored,
        # so that a reward depends on no other row of the batch, not even in its last bit.
        products = self.values.astype(np.float64) * weight[self.indices].astype(np.float64)
        return np.asarray(
            np.bincount(self.row_ids(), weights=products, minlength=len(self)), dtype=np.float64
        )

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> "SparseLatents":
        """The chosen answers, in the order given."""
        # rows of scipy keep stored zeros, which count as active
        return from_scipy(self.to_scipy()[np.asarray(rows, dtype=np.int64)])

    def to_scipy(self) -> Any:
        """The same data as a `scipy.sparse.csr_array` [N, L] (arrays are shared, not copied)."""
        from scipy.sparse import csr_array

        return csr_array((self.values, self.indices, self.indptr), shape=(len(self), self.size))

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[NDArray[Any], NDArray[Any]]], size: int) -> "SparseLatents":
        """Builds a batch from (indices, values) of each answer; indices are sorted here."""
        lengths = [len(indices) for indices, _ in rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        indices = np.empty(indptr[-1], dtype=np.int32)
        values = np.empty(indptr[-1], dtype=np.float32)
        for j, (row_indices, row_values) in enumerate(rows):
            order = np.argsort(row_indices)
            span = slice(indptr[j], indptr[j + 1])
            indices[span], values[span] = row_indices[order], row_values[order]
        return cls(indptr, indices, values, size)

    @classmethod
    def of_equal_rows(cls, indices: IndexArray, values: FloatArray, size: int) -> "SparseLatents":
        """A batch whose answers store K pairs each: `indices` [N, K] ascending in a row, `values` [N, K]."""
        indptr = np.arange(len(indices) + 1, dtype=np.int64) * indices.shape[1]
        return cls(indptr, indices.reshape(-1), values.reshape(-1), size)

    def without_zeros(self) -> "SparseLatents":
        """The same answers without stored values of 0: what is stored counts as active."""
        kept = self.values != 0
        counts = np.bincount(self.row_ids()[kept], minlength=len(self))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return SparseLatents(indptr, self.indices[kept], self.values[kept], self.size)

    @classmethod
    def concatenate(cls, batches: Sequence["SparseLatents"]) -> "SparseLatents":
        """All answers of several batches of the same autoencoder, one after another."""
        lengths = np.concatenate([np.diff(batch.indptr) for batch in batches])
        return cls(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([batch.indices for batch in batches]),
            np.concatenate([batch.values for batch in batches]),
            batches[0].size,
        )


def from_scipy(matrix: Any) -> SparseLatents:
    """A batch from any scipy sparse matrix or array [N, L]."""
    csr = matrix.tocsr()
    # scipy does not promise the order of indices within a row
    csr.sort_indices()
    return SparseLatents(
        csr.indptr.astype(np.int64),
        csr.indices.astype(np.int32),
        csr.data.astype(np.float32),
        csr.shape[1],
    )
