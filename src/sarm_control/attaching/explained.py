"""How much of states, rewards and margins a reconstruction of the states explains.

    explained = 1 - sum(missed^2) / sum((value - mean)^2)

What is missed is not centred: a reconstruction that is off by a constant misses that constant.

Shapes: `N` answers, `D` hidden size, `P` prompts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.build import PreferenceRow, head_figures
from sarm_control.reward_model import AttachedAutoencoder, FloatArray, StateHead
from sarm_control.statistics import Interval, ratio_interval

FloatVector = NDArray[np.float64]

_CHUNK = 512
_ROUNDING = 1e-9


class Explained(NamedTuple):
    """Shares of variance that a reconstruction explains, at most 1; None where the values do not vary.

    Args:
        state: of the states.
        reward: of the rewards of single answers.
        margin: of the prompts' margins, the mean reward of the chosen answers less that of the rejected.
        residual_sd: standard deviation of the residual in standard deviations of the reward.
        residual_accuracy: how often the residual alone orders a pair right, by prompt; .5 is chance.
        reward_accuracy: the same of the reward itself.
        latents_accuracy: the same of the latents' sum.
        answers: N.
        prompts: P, with preferences.
        intervals: of the three shares, over prompts; None where there is no share.
    """

    state: float | None
    reward: float | None
    margin: float | None
    residual_sd: float | None
    residual_accuracy: Interval | None
    reward_accuracy: Interval | None
    latents_accuracy: Interval | None
    answers: int
    prompts: int
    intervals: Mapping[str, Interval | None]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        intervals = ("residual_accuracy", "reward_accuracy", "latents_accuracy")
        found = self._asdict()
        for name in intervals:
            found[name] = None if found[name] is None else found[name].as_json()
        found["intervals"] = {
            name: None if one is None else one.as_json() for name, one in self.intervals.items()
        }
        return found

    @property
    def shares(self) -> dict[str, float | None]:
        """The three shares by name."""
        return {"state": self.state, "reward": self.reward, "margin": self.margin}


@torch.no_grad()
def reconstructed(autoencoder: AttachedAutoencoder, states: Tensor) -> FloatArray:
    """[N, D] float32 what the dictionary makes of states [N, D], in parts so that codes stay small."""
    device = autoencoder.pre_bias.device
    parts = [
        autoencoder.reconstruct(autoencoder.encode(part.to(device))).cpu()
        for part in states.float().split(_CHUNK)
    ]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


def explained(
    head: StateHead, states: FloatArray, rebuilt: FloatArray, rows: Sequence[PreferenceRow] = ()
) -> Explained:
    """Compares states with their reconstruction.

    Args:
        head: the reward model's own.
        states: [N, D].
        rebuilt: [N, D].
        rows: preferences between the answers; may be none.
    """
    missed = states - rebuilt
    # without the head's bias, which every answer gets and no share, margin or order feels
    rewards, residual = head.dots(states), head.dots(missed)
    margins, missed_margins = (margins_by_prompt(values, rows) for values in (rewards, residual))
    around = np.sqrt(np.square(rewards - rewards.mean()).sum())
    # `around` is the reward's SD times the root of N
    spread = float(residual.std() * np.sqrt(len(residual)) / around) if around > 0 else None
    residual_accuracy, reward_accuracy, latents_accuracy = (
        head_figures(values, rows).pair_accuracy if rows else None
        for values in (residual, rewards, rewards - residual)
    )
    wide, wide_missed = states.astype(np.float64), missed.astype(np.float64)
    shares = {
        "state": share(wide, wide_missed),
        "reward": share(rewards, residual),
        "margin": share(margins, missed_margins),
    }
    prompts = _prompts(len(states), rows)
    given = {"state": (wide, wide_missed, prompts), "reward": (rewards, residual, prompts)}
    given["margin"] = (margins, missed_margins, np.arange(len(margins)))
    return Explained(
        shares["state"],
        shares["reward"],
        shares["margin"],
        spread,
        residual_accuracy,
        reward_accuracy,
        latents_accuracy,
        len(states),
        len(margins),
        {name: None if shares[name] is None else explained_interval(*given[name]) for name in shares},
    )


def _prompts(answers: int, rows: Sequence[PreferenceRow]) -> NDArray[np.int64]:
    """[N] the prompt of each answer; an answer without preferences counts as a prompt of its own."""
    # numbers above those of all prompts, so that no answer without preferences joins one of them
    found = np.arange(answers) + 1 + max((row.prompt for row in rows), default=0)
    for row in rows:
        found[[*row.chosen, *row.rejected]] = row.prompt
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def explained_interval(
    values: NDArray[np.float64], missed: NDArray[np.float64], prompts: NDArray[np.int64]
) -> Interval:
    """The share of `share` with a 95 % interval; prompts are the unit, since answers to one are alike.

    Args:
        values: [N] or [N, D], which vary.
        missed: of the same shape.
        prompts: [N] numbers from 0.
    """

    def by_prompt(squares: NDArray[np.float64]) -> FloatVector:
        sums = np.bincount(prompts, weights=squares.reshape(len(squares), -1).sum(axis=1))
        return np.asarray(sums, dtype=np.float64)

    lost = ratio_interval(by_prompt(np.square(missed)), by_prompt(np.square(values - values.mean(axis=0))))
    # what is explained is 1 less what is lost, so the ends change places
    return lost._replace(mean=1.0 - lost.mean, low=1.0 - lost.high, high=1.0 - lost.low)


def share(values: NDArray[np.float64], missed: NDArray[np.float64]) -> float | None:
    """`1 - sum(missed^2) / sum((values - mean)^2)` over rows; None where the values do not vary."""
    if not len(values):
        return None
    around = float(np.square(values - values.mean(axis=0)).sum())
    # equal values differ from their mean only by rounding
    if around <= _ROUNDING * float(np.square(values).sum()):
        return None
    return 1.0 - float(np.square(missed).sum()) / around


def margins_by_prompt(values: FloatVector, rows: Sequence[PreferenceRow]) -> FloatVector:
    """[P] mean value of a prompt's chosen answers less that of its rejected, averaged over its rows.

    Args:
        values: [N] of the answers.
        rows: preferences.
    """
    found: dict[int, list[float]] = {}
    for row in rows:
        if row.chosen and row.rejected:
            margin = values[list(row.chosen)].mean() - values[list(row.rejected)].mean()
            found.setdefault(row.prompt, []).append(float(margin))
    return np.array([np.mean(margins) for margins in found.values()], dtype=np.float64)


def pca_reconstructed(fitted: FloatArray, states: FloatArray, k: int) -> FloatArray:
    """[N, D] states projected on the k principal components of other states: the baseline of equal k.

    Args:
        fitted: [M, D] states that the components are of.
        states: [N, D].
        k: components, at most D.
    """
    mean = fitted.mean(axis=0, dtype=np.float64)
    centred = fitted.astype(np.float64) - mean
    # of D x D numbers, whatever M is; the largest eigenvalues come last
    _, vectors = np.linalg.eigh(centred.T @ centred)
    kept = vectors[:, -k:]
    return np.asarray(mean + ((states - mean) @ kept) @ kept.T, dtype=np.float32)
