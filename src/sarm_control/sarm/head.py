"""The linear head: `reward = sum_i w_i z_i`, no bias."""

import hashlib
from dataclasses import dataclass

import numpy as np

from sarm_control.errors import ModelError
from sarm_control.sarm.sparse import FloatArray


@dataclass(frozen=True)
class LinearHead:
    """Head weights [L] float32: the reward per unit of each latent.

    Raises:
        ModelError: the weights are not one finite row.
    """

    weight: FloatArray

    def __post_init__(self) -> None:
        """Checks once, so that nothing after it has to."""
        if self.weight.ndim != 1 or self.weight.dtype != np.float32:
            raise ModelError(f"head weights must be [L] float32, not {self.weight.dtype}{self.weight.shape}")
        if not np.isfinite(self.weight).all():
            bad = int(np.flatnonzero(~np.isfinite(self.weight))[0])
            raise ModelError(f"head weight of latent {bad} is {self.weight[bad]}")

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of the weights; latent numbers belong to one fingerprint."""
        return hashlib.sha256(self.weight.astype("<f4").tobytes()).hexdigest()[:16]
