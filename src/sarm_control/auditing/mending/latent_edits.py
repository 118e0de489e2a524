"""The edits that take an attribute's price away: which latents, how much of each, by scaling or by a cap.

Shapes: `n` changed answers, `N` answers, `m` latents, `A` targeted attributes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.causal_prices import ScoredContrast
from sarm_control.auditing.mending.programme import MendProblem, Removed, least_removal, value
from sarm_control.auditing.table import Floats, within_prompts
from sarm_control.control import Edit, edit_delta
from sarm_control.reward_model import Scored

MOST = 12
"""Latents that are edited at most to take prices away."""
MOST_EVEN = 48
"""The same where the reward is to become even over answers as they are: what a longer answer has more of is
spread over many latents."""
_LEAST_SHARE = 0.01
"""A latent that carries less than this share of all that is carried gets no edit."""
_LEAST = 0.02
"""A share to take away below this is none."""


class Observed(NamedTuple):
    """Answers as they are, over whose attributes the reward is to become even.

    Args:
        scored: their scores.
        weights: [N, A] `weights' v` are the slopes of any values v of the answers on the attributes.
    """

    scored: Scored
    weights: Floats

    @classmethod
    def of(cls, scored: Scored, prompt: NDArray[np.int64], attributes: Floats) -> "Observed":
        """Slopes within prompts, for one SD of an attribute.

        A slope for each attribute by itself. In a regression on all of them together, attributes that come
        along with each other (long answers have lists) share what is paid as chance has it.

        Args:
            scored: [N] answers.
            prompt: [N] their prompts.
            attributes: [N, A] in their units.
        """
        within = within_prompts(attributes, prompt)
        spread = np.sqrt((within**2).mean(axis=0))
        # an attribute that differs within no prompt has no slope
        scaled = np.divide(within, spread, out=np.zeros_like(within), where=spread > 1e-9)
        return cls(scored, scaled / len(scaled))


class LatentMend:
    """Chooses edits for a set of targeted attributes.

    Args:
        targeted: the changed answers of the targeted attributes.
        others: those of the others.
        clean: scores of answers that have none of the targeted ones.
        prompt: [N] their prompts.
        reward_sd: one SD of the reward.
        observed: answers over whose targeted attributes the reward is to become even as well; none where
            prices alone are to go.
    """

    def __init__(
        self,
        targeted: Sequence[ScoredContrast],
        others: Sequence[ScoredContrast],
        clean: Scored,
        prompt: NDArray[np.int64],
        reward_sd: float,
        observed: Observed | None = None,
    ) -> None:
        self._targeted, self._others = tuple(targeted), tuple(others)
        self._clean, self._prompt, self._sd = clean, prompt, reward_sd
        # no attributes, so no slopes
        self._observed = Observed(clean, np.zeros((len(prompt), 0))) if observed is None else observed
        # every contrast was scored by the same head
        self._head = targeted[0].having.head.astype(np.float64)
        self.latents = self._carriers()
        self._problem = self._made()

    def edits(self, strength: float) -> tuple[Edit, ...]:
        """The edits that leave `1 - strength` of the price, the latent that carries most first.

        Each latent is scaled, or, where the programme's value is lower by it, capped so that as much of the
        price goes.

        Args:
            strength: the share of the price that is to go, 0..1.
        """
        removed = least_removal(self._problem, strength)
        # least squares leaves small shares on many latents: edits that nobody could tell from none
        chosen = [(place, float(share)) for place, share in enumerate(removed) if share >= _LEAST]
        edits = [_scaling(self.latents[place], share) for place, share in chosen]
        least = self.value(edits, strength)
        for at, (place, share) in enumerate(chosen):
            # a cap leaves answers below it as they are, where a scaling moves all of them
            cap = self._cap(self.latents[place], share)
            if cap is not None:
                tried = [*edits[:at], cap, *edits[at + 1 :]]
                with_cap = self.value(tried, strength)
                if with_cap < 0.99 * least:
                    edits, least = tried, with_cap
        return tuple(edits)

    def value(self, edits: Sequence[Edit], strength: float) -> float:
        """The programme's value at any edits."""
        return value(self._problem, self._removed(edits), strength)

    def _carriers(self) -> list[int]:
        """The latents that carry the targeted prices, by their share, the largest first."""
        # sizes before they are added: a latent that one edit raises and another lowers carries both
        # prices
        size = sum(np.abs(one.weights @ one.latent_changes) for one in self._targeted) * np.abs(self._head)
        size = size / len(self._targeted) / self._sd
        most, least = MOST, _LEAST_SHARE
        slopes = self._latent_slopes()
        if len(slopes):
            size = size + np.abs(slopes).mean(axis=0)
            most, least = MOST_EVEN, _LEAST_SHARE / 4
        largest = np.argsort(-size, kind="stable")[:most]
        return [int(i) for i in largest if size[i] > least * size.sum()]

    def _made(self) -> MendProblem:
        none = np.zeros((0, len(self.latents)))
        clean = self._clean.latents.columns(self.latents) * self._head[self.latents] / self._sd
        return MendProblem(
            np.array([one.weights @ one.change for one in self._targeted]) / self._sd,
            np.stack([self._carried(one) for one in self._targeted]),
            _within(clean.astype(np.float64), self._prompt),
            np.stack([self._carried(one) for one in self._others]) if self._others else none,
            self._slopes(self._observed.scored.rewards),
            self._latent_slopes()[:, self.latents],
        )

    def _slopes(self, rewards: NDArray[np.floating[Any]]) -> Floats:
        """[A] of rewards, or of their changes, in SDs."""
        return np.asarray(self._observed.weights.T @ rewards.astype(np.float64)) / self._sd

    def _latent_slopes(self) -> Floats:
        """[A, L] what each latent carries of the reward's slopes, in SDs."""
        # the sparse matrix on the left, as scipy wants it
        carried = self._observed.scored.latents.to_scipy().T @ self._observed.weights
        return np.asarray(carried.T) * self._head / self._sd

    def _carried(self, one: ScoredContrast) -> Floats:
        """[m] what each latent carries of a mean price."""
        change = np.asarray(one.latent_changes.T @ one.weights).ravel()
        return np.asarray(change * self._head / self._sd)[self.latents]

    def _removed(self, edits: Sequence[Edit]) -> Removed:
        clean = -edit_delta(self._clean, edits)[:, None] / self._sd
        return Removed(
            np.array([self._taken(one, edits) for one in self._targeted]),
            _within(clean, self._prompt)[:, 0],
            np.array([self._taken(one, edits) for one in self._others]),
            self._slopes(-edit_delta(self._observed.scored, edits)),
        )

    def _taken(self, one: ScoredContrast, edits: Sequence[Edit]) -> float:
        """What edits take of a mean price, SDs."""
        change = edit_delta(one.without, edits) - edit_delta(one.having, edits)
        return float(one.weights @ change) / self._sd

    def _cap(self, latent: int, share: float) -> Edit | None:
        """The cap that takes as much of the mean price as the scaling does; None where none above 0 does."""
        weight = self._head[latent]

        def carried(edit: Edit) -> float:
            return sum(self._taken(one, [edit]) for one in self._targeted)

        sides = [side for one in self._targeted for side in (one.having, one.without)]
        highest = max(float(side.latents.columns([latent]).max()) for side in sides)
        wanted = carried(_scaling(latent, share))
        # a cap takes only from what is paid, w z > 0
        if weight * highest <= 0 or wanted <= 0 or carried(Edit(latent, max=0.0)) < wanted:
            return None
        low, high = 0.0, highest
        # `low` always takes enough, so it ends at the highest cap that does, within a millionth of the range
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if carried(Edit(latent, max=middle)) >= wanted else (low, middle)
        # four digits, as a person reads them in the run file
        return Edit(latent, max=float(f"{low:.4g}"))


def _scaling(latent: int, share: float) -> Edit:
    kept = round(1 - share, 3)
    return Edit(latent, set=0.0) if kept <= 0.005 else Edit(latent, scale=kept)


def _within(values: Floats, prompt: NDArray[np.int64]) -> Floats:
    """Deviations from prompts' means, of prompts with two answers; from the whole mean if none has two."""
    _, place, counts = np.unique(prompt, return_inverse=True, return_counts=True)
    if not len(values) or counts.max() < 2:
        return values - values.mean(axis=0) if len(values) else values
    # the only answer to a prompt deviates by 0, whatever edits do to it
    return np.asarray(within_prompts(values, prompt)[counts[place] > 1])
