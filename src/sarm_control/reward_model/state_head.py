"""A reward model's own linear head over its last state: `reward = w . x + c`.

Shapes: `N` answers, `D` hidden size.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sarm_control.errors import ModelError
from sarm_control.reward_model.sparse import FloatArray

# at once, so that their float64 copies stay small
_ROWS = 1024


@dataclass(frozen=True)
class StateHead:
    """The head of a sequence classifier, over the state `x` after the final norm.

    Args:
        weight: [D] float32, `w`.
        bias: `c`, in reward units.

    Raises:
        ModelError: the weights are not one finite row.
    """

    weight: FloatArray
    bias: float = 0.0

    def __post_init__(self) -> None:
        """Checks once, so that nothing after it has to."""
        if self.weight.ndim != 1 or self.weight.dtype != np.float32:
            raise ModelError(f"head weights must be [D] float32, not {self.weight.dtype}{self.weight.shape}")
        if not np.isfinite(self.weight).all():
            bad = int(np.flatnonzero(~np.isfinite(self.weight))[0])
            raise ModelError(f"head weight {bad} of the reward model is {self.weight[bad]}")
        if not np.isfinite(self.bias):
            raise ModelError(f"the bias of the reward model's head is {self.bias}")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of weights and bias."""
        found = hashlib.sha256(self.weight.astype("<f4").tobytes())
        found.update(np.float64(self.bias).astype("<f8").tobytes())
        return found.digest()

    def rewards(self, states: FloatArray) -> FloatArray:
        """[N, D] states to [N] float32 rewards; each row is summed by itself in float64."""
        return (self.dots(states) + self.bias).astype(np.float32)

    def dots(self, states: FloatArray) -> NDArray[np.float64]:
        """[N] float64 `w . x`: not by a matrix product, whose order of sums depends on the other rows."""
        weight = self.weight.astype(np.float64)
        parts = [
            (states[start : start + _ROWS].astype(np.float64) * weight).sum(axis=1)
            for start in range(0, len(states), _ROWS)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)
