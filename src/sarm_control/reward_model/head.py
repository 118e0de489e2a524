"""The linear head over latents: `reward = sum_i w_i z_i`, and what else a reward is made of.

A SARM's reward is that sum. A reward model with a head of its own over its state `x` gives `w . x + c`; with
a dictionary of `x` attached, the latents' sum is a part of that, beside a constant and a residual.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sarm_control.errors import ModelError
from sarm_control.reward_model.sparse import FloatArray, SparseLatents
from sarm_control.reward_model.state_head import StateHead


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

    Args:
        weight: [L] float32, `w_i`; of length 0 for a reward model without a dictionary.
        constant: what every answer gets, in reward units; 0 for a SARM.
        own: the reward model's own head over its state; None for a SARM, whose reward is the latents' alone.
        unedited: [L] the weights that `own` gives the latents, where `weight` is an edited one; None where
            it is not.

    Raises:
        ModelError: the weights are not one finite row.
    """

    weight: FloatArray
    constant: float = 0.0
    own: StateHead | None = None
    unedited: FloatArray | None = None

    def __post_init__(self) -> None:
        """Checks once, so that nothing after it has to."""
        if self.weight.ndim != 1 or self.weight.dtype != np.float32:
            raise ModelError(f"head weights must be [L] float32, not {self.weight.dtype}{self.weight.shape}")
        if not np.isfinite(self.weight).all():
            bad = int(np.flatnonzero(~np.isfinite(self.weight))[0])
            raise ModelError(f"head weight of latent {bad} is {self.weight[bad]}")

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of all weights; latent numbers belong to one fingerprint."""
        # little-endian on every machine, so that equal heads have equal fingerprints
        digest = hashlib.sha256(self.weight.astype("<f4").tobytes())
        if self.own is not None:
            digest.update(self.own.digest)
            digest.update(np.float64(self.constant).astype("<f8").tobytes())
        return digest.hexdigest()[:16]

    def with_weight(self, weight: FloatArray) -> "LinearHead":
        """Other weights [L] of the latents; the reward model's own head stays what it was."""
        if self.own is None:
            return LinearHead(weight)
        # edits of an edited head, too, are held against the reward model's own weights
        return replace(self, weight=weight, unedited=self.own_weight)

    @property
    def own_weight(self) -> FloatArray:
        """[L] the weights before any edit."""
        return self.weight if self.unedited is None else self.unedited

    def own_rewards(self, latents: SparseLatents, residual: NDArray[np.float64]) -> FloatArray:
        """[N] float32 what the reward model's own head gives, of the parts of its rewards; 0 for a SARM.

        Args:
            latents: of N answers.
            residual: [N] see `Scored`.
        """
        if self.own is None:
            return np.zeros(len(latents), dtype=np.float32)
        return (latents.sums(self.own_weight) + self.constant + residual).astype(np.float32)

    def scaled(self, factors: Mapping[int, float]) -> "LinearHead":
        """The head with some weights multiplied by a factor each, in float64 before rounding.

        Raises:
            ModelError: a latent that the head does not have.
        """
        weight = self.weight.copy()
        for latent, factor in factors.items():
            if not len(weight):
                raise no_latents(f"latent {latent} cannot be edited")
            if not 0 <= latent < len(weight):
                raise ModelError(
                    f"latent {latent} does not exist: this reward model has {len(weight)} latents "
                    f"(0..{len(weight) - 1})"
                )
            weight[latent] = np.float32(float(weight[latent]) * factor)
        return self.with_weight(weight)


ATTACH = "attach a dictionary first: sarm attach --model MODEL --text texts.jsonl -o DIR"
"""What to do where latents are wanted of a reward model that has none."""


def no_latents(what: str) -> ModelError:
    """The error of whatever needs latents, for a reward model without a dictionary.

    Args:
        what: the sentence's beginning, such as "effects of latents cannot be found".
    """
    return ModelError(f"{what}: this reward model has no dictionary, so it has no latents", hint=ATTACH)
