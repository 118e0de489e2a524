"""What scoring returns: rewards, the latents that paid them, and what happened to the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.conversation import Encoded
from sarm_control.reward_model.head import LinearHead
from sarm_control.reward_model.sparse import FloatArray, SparseLatents


class Contribution(NamedTuple):
    """One latent's part of one reward: `contribution = weight * value`."""

    latent: int
    value: float
    weight: float
    contribution: float


@dataclass(frozen=True)
class Scored:
    """Rewards and latents of N answers, in the order they were given.

    Args:
        rewards: [N] float32, `sum_i w_i z_i`.
        latents: the stored pairs (z_i) of every answer, [N, L] sparse.
        head: [L] float32 head weights the rewards were computed with.
        truncated: [N] int64, tokens dropped from the left of each conversation; 0 when none.
        ended: [N] bool, false where the answer had no end-of-turn and one was appended.
        lengths: [N] int64, tokens of the answer without the end-of-turn.
        fingerprint: identifies the head; latent numbers mean nothing without it.
        states: [N, D] float32 trunk states at the end of turn, when they were asked for.
        model_fingerprint: identifies trunk and autoencoder; None where they were built in memory.
    """

    rewards: FloatArray
    latents: SparseLatents
    head: FloatArray
    truncated: NDArray[np.int64]
    ended: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    fingerprint: str
    states: FloatArray | None = None
    model_fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    def contributions(self, j: int, top: int | None = None) -> list[Contribution]:
        """What each active latent paid for answer j, largest magnitude first; sums to `rewards[j]`."""
        indices, values = self.latents.row(j)
        weights = self.head[indices]
        contributions = values.astype(np.float64) * weights.astype(np.float64)
        order = np.argsort(-np.abs(contributions), kind="stable")[:top]
        return [
            Contribution(int(indices[i]), float(values[i]), float(weights[i]), float(contributions[i]))
            for i in order
        ]

    def take(self, rows: NDArray[np.integer[Any]]) -> "Scored":
        """The chosen answers, in the order given."""
        return Scored(
            rewards=self.rewards[rows],
            latents=self.latents.take(rows),
            head=self.head,
            truncated=self.truncated[rows],
            ended=self.ended[rows],
            lengths=self.lengths[rows],
            fingerprint=self.fingerprint,
            states=None if self.states is None else self.states[rows],
            model_fingerprint=self.model_fingerprint,
        )

    @classmethod
    def of(
        cls,
        latents: SparseLatents,
        head: LinearHead,
        encoded: Sequence[Encoded],
        states: FloatArray | None = None,
        model_fingerprint: str | None = None,
    ) -> "Scored":
        """Rewards of N conversations from their latents; see the class for what is kept of the text."""
        return cls(
            rewards=latents.dot(head.weight),
            latents=latents,
            head=head.weight,
            truncated=np.array([row.truncated for row in encoded], dtype=np.int64),
            ended=np.array([row.ended for row in encoded], dtype=np.bool_),
            lengths=np.array([row.answer_length for row in encoded], dtype=np.int64),
            fingerprint=head.fingerprint,
            states=states,
            model_fingerprint=model_fingerprint,
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Scored"]) -> "Scored":
        """Answers scored by one head, one part after another; states only if every part has them."""
        states = [part.states for part in parts if part.states is not None]
        models = {part.model_fingerprint for part in parts}
        return cls(
            rewards=np.concatenate([part.rewards for part in parts]),
            latents=SparseLatents.concatenate([part.latents for part in parts]),
            head=parts[0].head,
            truncated=np.concatenate([part.truncated for part in parts]),
            ended=np.concatenate([part.ended for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
            fingerprint=parts[0].fingerprint,
            states=np.concatenate(states) if len(states) == len(parts) else None,
            model_fingerprint=models.pop() if len(models) == 1 else None,
        )
