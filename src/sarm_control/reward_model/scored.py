"""What scoring returns: rewards, the latents that paid them, and what happened to the text."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sarm_control.conversation import Encoded
from sarm_control.notebooks import Bar, data_frame, html_table, number
from sarm_control.reward_model.head import LinearHead
from sarm_control.reward_model.sparse import FloatArray, SparseLatents

Kind: TypeAlias = Literal["sarm", "classifier", "attached"]
"""A SARM; a reward model with a linear head over its state; such a one with a dictionary of that state."""
RESIDUAL: Final = "residual"
CONSTANT: Final = "constant"
_SHOWN_ANSWERS, _SHOWN_LATENTS = 5, 8


class Contribution(NamedTuple):
    """One part of one reward: `contribution = weight * value`.

    `latent` is a latent's number, or `residual` or `constant` for what a reward model's own head gives beside
    its latents.
    """

    latent: int | str
    value: float
    weight: float
    contribution: float


@dataclass(frozen=True)
class Scored:
    """Rewards and latents of N answers, in the order they were given.

    Args:
        rewards: [N] float32, `sum_i w_i z_i + constant + residual`; of a SARM the sum alone.
        latents: the stored pairs (z_i) of every answer, [N, L] sparse.
        head: [L] float32 head weights the rewards were computed with.
        truncated: [N] int64, tokens dropped from the left of each conversation; 0 when none.
        ended: [N] bool, false where the answer had no end-of-turn and one was appended.
        lengths: [N] int64, tokens of the answer without the end-of-turn.
        fingerprint: identifies the head; latent numbers mean nothing without it.
        states: [N, D] float32 states that were read, when they were asked for: a SARM's trunk states, others'
            behind the final norm.
        model_fingerprint: identifies trunk and autoencoder; None where they were built in memory.
        residual: [N] float64, what the reward model's own head gives for what no latent holds: all but the
            constant where there is no dictionary, 0 for a SARM. Edits leave it alone.
        constant: what every answer gets, in reward units; 0 for a SARM.
        kind: of reward model.
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
    residual: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    constant: float = 0.0
    kind: Kind = "sarm"

    def __post_init__(self) -> None:
        """A SARM's residual need not be given."""
        if self.kind == "sarm" and len(self.residual) != len(self.rewards):
            object.__setattr__(self, "residual", np.zeros(len(self.rewards)))

    def __len__(self) -> int:
        return len(self.rewards)

    def contributions(self, j: int, top: int | None = None) -> list[Contribution]:
        """What each active latent paid for answer j, largest magnitude first; sums to `rewards[j]`.

        After the latents of a reward model with a head of its own come `residual` and `constant`, whatever
        `top` is: what no latent holds is never left out.
        """
        indices, values = self.latents.row(j)
        weights = self.head[indices]
        # products of float32 numbers are exact in float64: only their sum is rounded to make the reward
        contributions = values.astype(np.float64) * weights.astype(np.float64)
        order = np.argsort(-np.abs(contributions), kind="stable")[:top]
        found = [
            Contribution(int(indices[i]), float(values[i]), float(weights[i]), float(contributions[i]))
            for i in order
        ]
        if self.kind == "sarm":
            return found
        rest = float(self.residual[j])
        own = Contribution(RESIDUAL, rest, 1.0, rest)
        return [*found, own, Contribution(CONSTANT, 1.0, self.constant, self.constant)]

    def to_pandas(self) -> Any:
        """A data frame with a row for each answer, in their order; the latents are in `contributions`.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            {
                "reward": float(self.rewards[j]),
                "latents": len(self.latents.row(j)[0]),
                "truncated": int(self.truncated[j]),
                "ended": bool(self.ended[j]),
                "length": int(self.lengths[j]),
                "constant": self.constant,
                "residual": float(self.residual[j]),
            }
            for j in range(len(self))
        )

    def _repr_html_(self) -> str:
        """The first answers in a notebook: the reward of each, and what paid it as bars."""
        shown = [self.contributions(j) for j in range(min(len(self), _SHOWN_ANSWERS))]
        longest = max((abs(one.contribution) for parts in shown for one in parts), default=0.0)
        tables = [self._answer_html(j, parts, longest) for j, parts in enumerate(shown)]
        rest = len(self) - len(shown)
        title = f"{len(self)} scored answers" + (f", the first {len(shown)}" if rest else "")
        return html_table(title, (), ()) + "".join(tables)

    def _answer_html(self, j: int, parts: list[Contribution], longest: float) -> str:
        own = [one for one in parts if isinstance(one.latent, str)]
        latents = [one for one in parts if not isinstance(one.latent, str)]
        rest = latents[_SHOWN_LATENTS:]
        rows: list[tuple[Any, ...]] = [
            (
                one.latent,
                number(one.value),
                number(one.weight),
                Bar(one.contribution, longest, number(one.contribution)),
            )
            for one in [*latents[:_SHOWN_LATENTS], *own]
        ]
        if rest:
            left = sum(one.contribution for one in rest)
            rows.append((f"{len(rest)} more", "", "", Bar(left, longest, number(left))))
        notes = [] if self.ended[j] else ["no end-of-turn: one was appended"]
        notes += [f"{self.truncated[j]} tokens were cut"] if self.truncated[j] else []
        title = f"answer {j}: reward {number(float(self.rewards[j]))}"
        return html_table(title, ("latent", "value", "weight", "contribution"), rows, "; ".join(notes))

    def sums(self, latents: SparseLatents | None = None) -> NDArray[np.float64]:
        """[N] float64 rewards before they are rounded, of these latents or of others in their place.

        Args:
            latents: of the same answers, edited ones for instance; default the answers' own.
        """
        found = (self.latents if latents is None else latents).sums(self.head)
        return found if self.kind == "sarm" else found + self.constant + self.residual

    def take(self, rows: NDArray[np.integer[Any]]) -> "Scored":
        """The chosen answers, in the order given."""
        return replace(
            self,
            rewards=self.rewards[rows],
            latents=self.latents.take(rows),
            truncated=self.truncated[rows],
            ended=self.ended[rows],
            lengths=self.lengths[rows],
            states=None if self.states is None else self.states[rows],
            residual=self.residual[rows],
        )

    @classmethod
    def of(
        cls,
        latents: SparseLatents,
        head: LinearHead,
        encoded: Sequence[Encoded],
        states: FloatArray | None = None,
        model_fingerprint: str | None = None,
        own: FloatArray | None = None,
    ) -> "Scored":
        """Rewards of N conversations from their latents; see the class for what is kept of the text.

        Args:
            latents: of the conversations.
            head: the weights of latents, and the reward model's own head.
            encoded: the conversations.
            states: [N, D] to keep.
            model_fingerprint: see the class.
            own: [N] what the reward model's own head gives; needed where it has one. The unedited reward
                is that number, to the bit.

        Raises:
            ValueError: `own` is missing.
        """
        rewards, residual = latents.dot(head.weight), np.zeros(len(latents))
        kind: Kind = "sarm"
        if head.own is not None:
            if own is None:
                raise ValueError("a reward model with a head of its own needs what that gives")
            kind = "attached" if len(head.weight) else "classifier"
            # by the weights before any edit, since edits leave the residual alone
            residual = own.astype(np.float64) - latents.sums(head.own_weight) - head.constant
            edited = latents.sums(head.weight) + head.constant + residual
            # without edits the model's own number: the sum of its parts may round otherwise
            rewards = own if head.unedited is None else edited.astype(np.float32)
        return cls(
            rewards=rewards,
            latents=latents,
            head=head.weight,
            truncated=np.array([row.truncated for row in encoded], dtype=np.int64),
            ended=np.array([row.ended for row in encoded], dtype=np.bool_),
            lengths=np.array([row.answer_length for row in encoded], dtype=np.int64),
            fingerprint=head.fingerprint,
            states=states,
            model_fingerprint=model_fingerprint,
            residual=residual,
            constant=head.constant,
            kind=kind,
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
            residual=np.concatenate([part.residual for part in parts]),
            constant=parts[0].constant,
            kind=parts[0].kind,
        )
