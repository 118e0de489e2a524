"""AUROC with intervals over prompts, and the difference of two AUROCs on the same answers.

Every answer has a *placement*: the share of answers of the other side it is above (ties count half).
The mean placement is the AUROC; its variance over prompts follows from each prompt's share of it
(DeLong, DeLong and Clarke-Pearson 1988; clustered as by Obuchowski 1997). The AUROC itself is not asked of
scikit-learn, since it is the mean of the placements that the variance needs in any case.

Shapes: `N` answers, `P` prompts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from sarm_control.statistics.intervals import Interval

Floats = NDArray[np.float64]


class Placed(NamedTuple):
    """An AUROC and what each prompt adds to its error.

    Args:
        auroc: 0.5 is chance, 1 perfect.
        influence: [P] sums to 0.
    """

    auroc: float
    influence: Float[Floats, " P"]


def placed(
    scores: Float[Floats, " N"],
    present: Bool[NDArray[np.bool_], " N"],
    prompts: Int[NDArray[np.int64], " N"],
    count: int,
) -> Placed:
    """The AUROC of scores for telling `present` answers from the others.

    Args:
        scores: [N].
        present: [N], some true and some false.
        prompts: [N] of each answer, `0..P-1`.
        count: P.
    """
    placement = np.empty(len(scores))
    for side in (True, False):
        own, others = present == side, np.sort(scores[present != side])
        below = np.searchsorted(others, scores[own], side="left")
        not_above = np.searchsorted(others, scores[own], side="right")
        share = (below + not_above) / (2 * len(others))
        # present answers belong above the others and absent ones below; so both sides' means are the AUROC
        placement[own] = share if side else 1 - share
    auroc = float(placement[present].mean())
    sizes = np.where(present, present.sum(), (~present).sum())
    # DeLong's two terms, summed by prompt, since its answers depend on each other
    influence = np.bincount(prompts, weights=(placement - auroc) / sizes, minlength=count)
    return Placed(auroc, influence.astype(np.float64))


def interval_over_folds(folds: Sequence[Placed]) -> Interval:
    """Mean AUROC of disjoint folds, each weighted by its prompts, with a 95 % normal interval in [0, 1]."""
    value, spread, count = _pooled(folds)
    low, high = max(0.0, value - spread), min(1.0, value + spread)
    return Interval(value, low, high, count)


def difference_over_folds(folds: Sequence[Placed], others: Sequence[Placed]) -> Interval:
    """How much higher the first AUROC is than the second on the same folds, with a 95 % interval."""
    pairs = zip(folds, others, strict=True)
    value, spread, count = _pooled([Placed(a.auroc - b.auroc, a.influence - b.influence) for a, b in pairs])
    return Interval(value, value - spread, value + spread, count)


class _Pooled(NamedTuple):
    value: float
    spread: float
    prompts: int


def _pooled(folds: Sequence[Placed]) -> _Pooled:
    sizes = [len(fold.influence) for fold in folds]
    count = sum(sizes)
    value = sum(fold.auroc * size for fold, size in zip(folds, sizes, strict=True)) / count
    # folds share no prompt, so their variances add up
    variance = sum(
        # n / (n - 1), as in an unbiased variance; influences have the mean 0
        (size / count) ** 2 * float(fold.influence @ fold.influence) * size / max(size - 1, 1)
        for fold, size in zip(folds, sizes, strict=True)
    )
    return _Pooled(value, 1.96 * math.sqrt(variance), count)
