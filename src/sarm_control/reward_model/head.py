"""The linear head: `reward = sum_i w_i z_i`, no bias."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from sarm_control.errors import ModelError
from sarm_control.reward_model.sparse import FloatArray


class HeadEdit(Protocol):
    """A change of one latent that may be a change of its head weight; `control.Edit` is one."""

    @property
    def latent(self) -> int:
        """The latent, 0..L-1."""

    def head_factor(self) -> float:
        """What the head weight is multiplied by; raises when the change is not of that kind."""


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

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of the weights; latent numbers belong to one fingerprint."""
        return hashlib.sha256(self.weight.astype("<f4").tobytes()).hexdigest()[:16]

    def scaled(self, factors: Mapping[int, float]) -> "LinearHead":
        """The head with some weights multiplied by a factor each, in float64 before rounding.

        Raises:
            ModelError: a latent that the head does not have.
        """
        weight = self.weight.copy()
        for latent, factor in factors.items():
            if not 0 <= latent < len(weight):
                raise ModelError(
                    f"latent {latent} does not exist: this reward model has {len(weight)} latents "
                    f"(0..{len(weight) - 1})"
                )
            weight[latent] = np.float32(float(weight[latent]) * factor)
        return LinearHead(weight)
