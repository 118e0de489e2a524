"""How much of a price the latents hold, and whether an attribute has a latent of its own.

A control on latents takes a price away only where latents carry it: what lies in the residual of a reward
model with an attached dictionary stays. And a latent that fires on the attribute alone can be edited without
touching anything else: how well the best one tells answers with the attribute from those without says whether
there is one. It is chosen on half of the prompts and judged on the other half, both ways round.

Shapes: `N` answers, `L` latents.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.causal_prices import ScoredContrast
from sarm_control.auditing.table import AttributeTable
from sarm_control.discovery import best_latent
from sarm_control.reward_model import Scored
from sarm_control.seeds import numpy_generator
from sarm_control.statistics import Interval, interval_over_folds, placed

LEAST = 20
"""Answers with an attribute, and without it, that each half of the prompts must have."""
OWN = 0.9
"""AUROC from which on, with the whole interval, a latent counts as the attribute's own."""


class OwnLatent(NamedTuple):
    """How well the best latent detects an attribute.

    Args:
        auroc: over both halves, each judged by the latent that the other half chose.
        latents: the two that were chosen.
        having: answers with the attribute.
    """

    auroc: Interval
    latents: tuple[int, ...]
    having: int

    @property
    def exists(self) -> bool:
        """Whether one and the same latent was chosen by both halves and its whole interval is high."""
        return len(set(self.latents)) == 1 and self.auroc.low >= OWN


def residual_share(contrast: ScoredContrast) -> float | None:
    """Share of the mean causal price that no latent carries; None where nothing changes on average.

    0 for a SARM, whose reward is the sum of its latents; 1 without a dictionary.
    """
    weights = contrast.weights
    whole = float(contrast.change @ weights)
    if abs(whole) < 1e-12:
        return None
    return float((contrast.having.residual - contrast.without.residual) @ weights) / whole


def own_latent(table: AttributeTable, scored: Scored, place: int, *, seed: int = 0) -> OwnLatent | None:
    """The best latent for one attribute; None without latents, or with too few answers with or without it.

    Args:
        table: the attributes of all answers.
        scored: their scores.
        place: which attribute.
        seed: of the halves.
    """
    present = table.has[:, place]
    if scored.latents.size == 0:
        return None
    half = numpy_generator(seed, "halves of detection").permutation(len(table.prompts)) % 2
    fold_of = half[table.prompt]
    # both folds need both sides: a fold that has none of one side has no AUROC
    if any((present[fold_of == fold] == side).sum() < LEAST for fold in (0, 1) for side in (True, False)):
        return None
    z = scored.latents.to_scipy().astype(np.float64).tocsc()
    # one that fires less often misses more than half of either side: its AUROC cannot reach `OWN`
    latents = np.flatnonzero(np.diff(z.indptr) >= LEAST)
    if not len(latents):
        return None
    z = z[:, latents]
    judged, chosen = [], []
    for fold in (0, 1):
        test: NDArray[np.bool_] = fold_of == fold
        best = best_latent(z[np.flatnonzero(~test)], present[~test])
        chosen.append(int(latents[best.column]))
        # numbers without gaps, as the clusters of the AUROC's error want them
        _, prompts = np.unique(table.prompt[test], return_inverse=True)
        scores = best.scores(z[np.flatnonzero(test)])
        judged.append(placed(scores, present[test], prompts, int(prompts.max()) + 1))
    return OwnLatent(interval_over_folds(judged), tuple(chosen), int(present.sum()))
