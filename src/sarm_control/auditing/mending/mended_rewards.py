"""Ways to take an attribute's price off a reward, ours and others, all fitted on the same answers.

A way has a strength between 0 (the reward as it is) and 1 (all that it can do).

- `edits`: latents scaled or capped by one programme (`latent_edits`), which takes away what edits of
  the text are paid.
- `even`: the same, and the reward is to become even in the attributes over answers as they are.
- `regression`: `r - s SD sum_k b_k x_k` with the partial prices b of the targeted attributes.
- `length`: `r - s b log2(tokens)` with the within-prompt slope b of the reward on the length.
- `projection`: `r - s (Q Q' w)' z`, where Q spans the mean changes of the latents that the attributes make:
  the head is turned away from them (HARVE, arXiv 2606.03131, there on the trunk's state).
- `suppression`: the five latents that the attributes change most are scaled by `1 - s`, whatever they pay
  (SteerRM, arXiv 2603.12795).

Shapes: `n` answers, `A` targeted attributes, `L` latents.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.causal_prices import ScoredContrast
from sarm_control.auditing.mending.latent_edits import LatentMend
from sarm_control.auditing.table import Floats
from sarm_control.control import Edit, edited_rewards
from sarm_control.reward_model import Scored

SUPPRESSED = 5
"""Latents that suppression takes."""


class Measured(NamedTuple):
    """Answers that any mended reward can be given for.

    Args:
        scored: their scores.
        regressors: [n, A] the targeted attributes in their units.
    """

    scored: Scored
    regressors: Floats


MendedReward = Callable[[Measured], Floats]
"""[n] rewards after the mend."""


class Way(NamedTuple):
    """One way to mend.

    Args:
        name: short.
        words: what it does.
        at: the reward at a strength within 0 and 1.
    """

    name: str
    words: str
    at: Callable[[float], MendedReward]


def by_edits(mend: LatentMend) -> Way:
    """Edits of latents that take prices away; see `LatentMend`."""
    return Way("edits", "edits of latents, chosen together", _edited(mend))


def by_even_edits(mend: LatentMend) -> Way:
    """Edits of latents that make the reward even over answers as they are, too; see `LatentMend`."""
    return Way("even", "edits of latents that also make it even over answers as they are", _edited(mend))


def _edited(mend: LatentMend) -> Callable[[float], MendedReward]:
    return lambda strength: with_edits(mend.edits(strength))


def with_edits(edits: Sequence[Edit]) -> MendedReward:
    """The reward under edits."""
    return lambda one: edited_rewards(one.scored, edits)


def by_regression(prices: Floats, reward_sd: float) -> Way:
    """The targeted attributes' partial prices taken off.

    Args:
        prices: [A] in reward SDs; NaN, where there is none, takes nothing.
        reward_sd: one SD.
    """
    known = np.nan_to_num(prices)

    def at(strength: float) -> MendedReward:
        return lambda one: (
            one.scored.rewards.astype(np.float64) - strength * reward_sd * one.regressors @ known
        )

    return Way("regression", "partial prices taken off the reward", at)


def by_length(scored: Scored, prompt: NDArray[np.int64]) -> Way:
    """A penalty on length, of the size that makes the reward even in it.

    Args:
        scored: [n] answers to fit on.
        prompt: [n] their prompts.
    """
    x, y = (_centred(values, prompt) for values in (_log_length(scored), scored.rewards.astype(np.float64)))
    size = float(x @ x)
    slope = float(x @ y) / size if size > 0 else 0.0

    def at(strength: float) -> MendedReward:
        return lambda one: one.scored.rewards.astype(np.float64) - strength * slope * _log_length(one.scored)

    return Way("length", "a penalty on length", at)


def by_projection(targeted: Sequence[ScoredContrast]) -> Way:
    """The head turned away from what the attributes change."""
    means = np.stack([np.asarray(one.latent_changes.T @ one.weights).ravel() for one in targeted], axis=1)
    head = targeted[0].having.head.astype(np.float64)
    left, sizes, _ = np.linalg.svd(means, full_matrices=False)
    # two edits may move latents alike: the direction that is left over then is nothing but rounding
    basis = left[:, sizes > 1e-9 * max(float(sizes.max()), 1e-300)]
    away = basis @ (basis.T @ head)
    return Way("projection", "the head turned away from the attributes' directions", _linear(away))


def by_suppression(targeted: Sequence[ScoredContrast]) -> Way:
    """The latents that the attributes change most, switched off."""
    size = sum(np.abs(np.asarray(one.latent_changes.T @ one.weights).ravel()) for one in targeted)
    head = targeted[0].having.head.astype(np.float64)
    away = np.zeros_like(head)
    chosen = np.argsort(-np.asarray(size), kind="stable")[:SUPPRESSED]
    away[chosen] = head[chosen]
    return Way("suppression", f"the {SUPPRESSED} latents that the attributes change most, off", _linear(away))


def _linear(away: Floats) -> Callable[[float], MendedReward]:
    """`r - s away' z`."""

    def at(strength: float) -> MendedReward:
        return lambda one: one.scored.rewards.astype(np.float64) - strength * one.scored.latents.sums(away)

    return at


def _log_length(scored: Scored) -> Floats:
    return np.log2(np.maximum(scored.lengths.astype(np.float64), 1.0))


def _centred(values: Floats, prompt: NDArray[np.int64]) -> Floats:
    _, place, counts = np.unique(prompt, return_inverse=True, return_counts=True)
    return np.asarray(values - (np.bincount(place, weights=values) / counts)[place])
