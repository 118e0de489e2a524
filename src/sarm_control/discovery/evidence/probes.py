"""Detectors that distinguish two sides of answers: one latent, five latents, or a linear probe on states.

Shapes: `N` answers, `M` candidate latents, `D` hidden size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.discovery.pairs.margins import auroc_of
from sarm_control.seeds import numpy_generator
from sarm_control.statistics import Classifier, fit_logistic

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SCREENED = 100
_LATENTS_L2 = 1.0
_PROBE_L2 = (1.0, 10.0, 100.0, 1000.0)
_HELD_OUT = 0.25


@dataclass(frozen=True)
class OneLatent:
    """A latent, and whether more of it is evidence for (+1) or against (-1) the attribute."""

    column: int
    sign: int

    def scores(self, z: Any) -> Floats:
        """[N] scores of latents [N, M]."""
        return self.sign * _column(z, self.column)


@dataclass(frozen=True)
class SeveralLatents:
    """A logit of a few latents, `[z, 1(z > 0)]` of each."""

    columns: tuple[int, ...]
    classifier: Classifier

    def scores(self, z: Any) -> Floats:
        """[N] scores of latents [N, M]."""
        return self.classifier.logits(_features(z, self.columns))


def best_latent(z: Any, present: Mask) -> OneLatent:
    """The latent with the highest AUROC in either direction.

    AUROCs are computed for the 100 latents that differ most in mean and the 100 that differ most in firing
    rate, because they are too slow for all.

    Args:
        z: [N, M] `csc_array`.
        present: [N].
    """
    # screening by the mean and by the firing rate finds latents that differ in only one of them
    pattern = _pattern(z)
    screened = np.union1d(_most_different(z, present), _most_different(pattern, present))
    aurocs = [auroc_of(values[present], values[~present]) for values in (_column(z, j) for j in screened)]
    best = int(np.argmax(np.abs(np.array(aurocs) - 0.5)))
    return OneLatent(int(screened[best]), 1 if aurocs[best] >= 0.5 else -1)


def best_five(z: Any, present: Mask, first: int, *, count: int = 5) -> SeveralLatents:
    """Adds latents one by one, each time the one that correlates most with the residual of those before.

    Args:
        z: [N, M] `csc_array`.
        present: [N].
        first: the first column.
        count: the number of latents in all, if there are as many.
    """
    columns, scale = [first], _scale(z)
    classifier = fit_logistic(_features(z, columns), present, l2=_LATENTS_L2)
    while len(columns) < min(count, z.shape[1]):
        logits = classifier.logits(_features(z, columns))
        # what the logit still misses, centred since z is not: the products below are then covariances
        residual = present - 0.5 * (1 + np.tanh(0.5 * logits))
        residual = residual - residual.mean()
        score = np.abs(np.asarray(z.T @ residual).ravel()) * scale
        # chosen latents are not chosen again
        score[columns] = -1
        columns.append(int(np.argmax(score)))
        classifier = fit_logistic(_features(z, columns), present, l2=_LATENTS_L2)
    return SeveralLatents(tuple(columns), classifier)


def linear_probe(states: Floats, present: Mask, prompts: NDArray[np.int64], *, seed: int = 0) -> Classifier:
    """A logistic probe on states; its ridge is chosen on a held-out quarter of these prompts.

    Args:
        states: [N, D] normalised.
        present: [N].
        prompts: [N] of each answer.
        seed: of the quarter.
    """
    # held out by prompt, since answers to one prompt are alike
    names = np.unique(prompts)
    count = max(1, int(_HELD_OUT * len(names)))
    held = numpy_generator(seed, "probe ridge").choice(names, count, replace=False)
    kept = ~np.isin(prompts, held)

    def skill(l2: float) -> float:
        logits = fit_logistic(states[kept], present[kept], l2=l2).logits(states[~kept])
        return auroc_of(logits[present[~kept]], logits[~present[~kept]])

    return fit_logistic(states, present, l2=max(_PROBE_L2, key=skill))


def _column(z: Any, column: int) -> Floats:
    return np.asarray(z[:, [column]].toarray(), dtype=np.float64).ravel()


def _features(z: Any, columns: Any) -> Floats:
    values = np.asarray(z[:, list(columns)].toarray(), dtype=np.float64)
    return np.concatenate([values, values > 0], axis=1)


def _pattern(z: Any) -> Any:
    from scipy.sparse import csc_array

    return csc_array((np.ones(len(z.data)), z.indices, z.indptr), shape=z.shape)


def _most_different(z: Any, present: Mask) -> NDArray[np.int64]:
    # the difference of both sides' means as one product, so that no column becomes dense
    contrast = present / present.sum() - ~present / (~present).sum()
    difference = np.abs(np.asarray(z.T @ contrast).ravel()) * _scale(z)
    return np.argsort(-difference, kind="stable")[:_SCREENED]


def _scale(z: Any) -> Floats:
    """[M] one over the SD of each column; 0 for a constant one."""
    count = z.shape[0]
    mean = np.asarray(z.sum(axis=0)).ravel() / count
    square = np.asarray(z.multiply(z).sum(axis=0)).ravel() / count
    variance = np.maximum(square - mean**2, 0.0)
    usable = variance > 1e-12 * square
    return np.where(usable, 1 / np.sqrt(np.where(usable, variance, 1.0)), 0.0)
