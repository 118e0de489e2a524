"""Whether two dictionaries of the same states, trained from other seeds, found the same latents.

Shapes: `N` answers, `L` latents, `D` hidden size.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.attaching.contributions import moments
from sarm_control.build import PreferenceRow
from sarm_control.reward_model import AttachedAutoencoder, StateHead

CLOSE = 0.7
_ROWS = 1024


class Stability(NamedTuple):
    """Latents of one dictionary beside their nearest of another, over latents that fire.

    Args:
        median_cosine: of a latent's direction and the nearest of the other dictionary's.
        close: share of latents whose nearest has a cosine of at least .7.
        weighted_cosine: mean cosine, each latent weighted by its variance of contribution.
        effects: Spearman's rank correlation of the latents' mean margin contributions and those of their
            nearest; None without preferences.
        seeds: the two seeds.
    """

    median_cosine: float
    close: float
    weighted_cosine: float
    effects: float | None
    seeds: tuple[int, int]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return self._asdict()


def stability(
    one: AttachedAutoencoder,
    other: AttachedAutoencoder,
    head: StateHead,
    states: Tensor,
    rows: Sequence[PreferenceRow] = (),
    *,
    seeds: tuple[int, int] = (0, 1),
) -> Stability:
    """Compares two dictionaries over the states [N, D] of held-out answers.

    Args:
        one: of these latents the figures are.
        other: where their nearest are looked for.
        head: the reward model's own.
        states: [N, D].
        rows: preferences between the answers.
        seeds: of the two, for the record.
    """
    from scipy.stats import spearmanr

    live = [np.flatnonzero(moments(found, states).fired) for found in (one, other)]
    directions = [_directions(found)[alive] for found, alive in zip((one, other), live, strict=True)]
    best, nearest = _nearest(directions[0], directions[1])
    weights = one.latent_weights(head).weight.astype(np.float64)
    sums, squares, _ = moments(one, states)
    variance = ((squares / len(states) - (sums / len(states)) ** 2) * weights**2)[live[0]].clip(min=0)
    # weighted, since latents that move no reward may differ between seeds and nobody would notice
    weighted = float((best * variance).sum() / variance.sum()) if variance.sum() > 0 else float("nan")
    ranks = None
    # the ranks of two latents correlate at -1 or 1, whatever they are
    if rows and len(best) > 2:
        effects = [effects_of(found, head, states, rows) for found in (one, other)]
        mine, theirs = effects[0][live[0]], effects[1][live[1]][nearest]
        # constant numbers have no ranks to correlate: scipy would warn and give NaN
        if np.ptp(mine) > 0 and np.ptp(theirs) > 0:
            ranks = float(spearmanr(mine, theirs).statistic)
    return Stability(float(np.median(best)), float((best >= CLOSE).mean()), weighted, ranks, seeds)


def effects_of(
    autoencoder: AttachedAutoencoder, head: StateHead, states: Tensor, rows: Sequence[PreferenceRow]
) -> NDArray[np.float64]:
    """[L] each latent's mean margin contribution over prompts, its effect (docs/discovery.md)."""
    answers = len(states)
    # the mean over prompts of margins is linear in the answers, so one weight for each answer is enough
    unit = np.zeros(answers)
    prompts = len({row.prompt for row in rows if row.chosen and row.rejected})
    counts: dict[int, int] = {}
    for row in rows:
        if row.chosen and row.rejected:
            counts[row.prompt] = counts.get(row.prompt, 0) + 1
    for row in rows:
        if row.chosen and row.rejected:
            each = 1.0 / (prompts * counts[row.prompt])
            unit[list(row.chosen)] += each / len(row.chosen)
            unit[list(row.rejected)] -= each / len(row.rejected)
    total = np.zeros(autoencoder.encoder.out_features)
    with torch.no_grad():
        for start in range(0, answers, 512):
            part = states[start : start + 512].float()
            kept = autoencoder.encode(part.to(autoencoder.pre_bias.device))
            values = kept.values.double().cpu().numpy() * unit[start : start + len(part), None]
            total += np.bincount(
                kept.indices.flatten().cpu().numpy(), weights=values.flatten(), minlength=len(total)
            )
    return total * autoencoder.latent_weights(head).weight.astype(np.float64)


def _directions(autoencoder: AttachedAutoencoder) -> NDArray[np.float32]:
    # of length 1, so that products are cosines
    decoder = autoencoder.decoder.weight.detach().cpu().float()
    return np.asarray((decoder / decoder.norm(dim=0).clamp(min=1e-12)).T.numpy(), dtype=np.float32)


def _nearest(
    mine: NDArray[np.float32], theirs: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The largest cosine of each row with a row of the other, and which; in parts, L may be 65,536."""
    best, where = [], []
    for start in range(0, len(mine), _ROWS):
        found = mine[start : start + _ROWS] @ theirs.T
        where.append(found.argmax(axis=1))
        best.append(found.max(axis=1))
    return np.concatenate(best).astype(np.float64), np.concatenate(where).astype(np.int64)
