"""Whether the log ratio of two samples is linear in the features, as the default estimator takes it to be.

Shapes: `N` rows of both samples together, `F` features, `J` columns of the dictionary, `S` draws.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.density_ratio.logistic import Array, Logistic, LogRatio
from sarm_control.control.density_ratio.model_check.dictionary import Columns, dictionary
from sarm_control.seeds import numpy_generator

LEVEL = 1 / 400
"""How often a log ratio that is linear is called otherwise: it has to show more than each of 399 draws."""
LEAST_IN_DOUBT = 200
"""With fewer rows a side that the classifier leaves in doubt, silence of the check shows nothing."""
ROWS_A_FEATURE = 2
"""Nor does it with fewer than so many for each feature that the classifier has."""
MOST_ROWS = 4096
"""Rows a side that are looked at."""

_DRAWS = 399
_SEPARATE = 0.01


class Linearity(NamedTuple):
    """What the check found.

    Args:
        fits: False when the log ratio is not linear, True when nothing speaks against it, and None when
            nothing does but rows in doubt are too few, so that little could.
        p: how often a linear log ratio gives as much that is not linear, at least 1 / 400.
        in_doubt: twice the sum of `p (1 - p)` over the rows, with p the classifier's probability: the rows
            a side where the samples are alike, and 0 where all are told apart.
    """

    fits: bool | None
    p: float
    in_doubt: float


class Rows(NamedTuple):
    """Distinct rows of one side, in an order that depends on their content alone.

    Args:
        latents: [n, D].
        features: [n, F].
    """

    latents: NDArray[np.float32]
    features: Array

    @classmethod
    def distinct(cls, latents: NDArray[np.float32], features: Array, most: int = MOST_ROWS) -> "Rows":
        """At most `most` rows; of copies one, but rows of nothing but 0 and 1 may be equal by chance."""
        latents = np.ascontiguousarray(latents)
        keys = np.array([hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in latents])
        order = np.argsort(keys, kind="stable")
        copied = ((latents != 0) & (latents != 1)).any(axis=1)[order]
        again = np.append(False, keys[order][1:] == keys[order][:-1])
        chosen = order[~(again & copied)][:most]
        return cls(latents[chosen], features[chosen])


def check_linear(policy: Rows, human: Rows, *, seed: int, start: LogRatio | None = None) -> Linearity:
    """Tests that `log p_policy / p_human` is linear in the features.

    A logistic regression on the features leaves residuals: 1 or 0 for the side of a row, less its
    probability. If the log ratio is linear they go with nothing else. Score statistics hold them against a
    dictionary of shapes, products and waves, freed of what the features explain; of each kind of column
    the largest statistic and the sum of squares count. How large they get by chance is drawn: sides from the
    fitted probabilities (a parametric bootstrap), with the rows as they are.

    Args:
        policy: rows of the policy.
        human: rows of the humans.
        seed: of the draws and waves.
        start: where the fit begins.
    """
    features = np.concatenate([policy.features, human.features])
    ratio = Logistic().fit(policy.features, human.features, start=start)
    logit = ratio.at(features) + np.log(len(policy.features) / len(human.features))
    chance = np.clip(0.5 * (1.0 + np.tanh(0.5 * logit)), 1e-9, 1 - 1e-9)
    weight = chance * (1.0 - chance)
    in_doubt = 2.0 * float(weight.sum())
    found = _Residuals.of(features, chance, len(policy.features), seed)
    columns = dictionary(np.concatenate([policy.latents, human.latents]), features, seed)
    p = _p_value(np.concatenate([_statistics(kind, found, weight) for kind in columns]))
    needed = max(LEAST_IN_DOUBT, ROWS_A_FEATURE * found.span.shape[1])
    fits = False if p <= LEVEL else (True if in_doubt >= needed else None)
    return Linearity(fits, p, in_doubt)


class _Residuals(NamedTuple):
    """Of the sample and of draws, [N, 1 + S], scaled to variance 1 and freed of the features' span [N, R]."""

    scaled: Columns
    span: Columns

    @classmethod
    def of(cls, features: Array, chance: Array, policy: int, seed: int) -> "_Residuals":
        rng = numpy_generator(seed, "sides of the check for what is not linear")
        root = np.sqrt(chance * (1.0 - chance))
        design = np.concatenate([features, np.ones((len(features), 1))], axis=1) * root[:, None]
        left, sizes, _ = np.linalg.svd(design, full_matrices=False)
        span = left[:, sizes > 1e-6 * sizes.max()]
        sides = (rng.random((_DRAWS, len(chance))) < chance).astype(np.float64)
        drawn = ((sides - chance) / root).T
        # fitted probabilities are too sure of the rows they were fitted on
        drawn /= np.sqrt(1.0 - np.minimum((span**2).sum(axis=1), 0.5))[:, None]
        own = (np.arange(len(chance)) < policy).astype(np.float64)
        both = np.concatenate([((own - chance) / root)[:, None], drawn], axis=1)
        both -= span @ (span.T @ both)
        return cls(both.astype(np.float32), span.astype(np.float32))


def _statistics(columns: Columns, residuals: _Residuals, weight: Array) -> Array:
    """[2, 1 + S] the largest score statistic of the columns, and the sum of their squares."""
    scaled = columns * np.sqrt(weight)[:, None].astype(np.float32)
    before = (scaled**2).sum(axis=0)
    scaled = scaled - residuals.span @ (residuals.span.T @ scaled)
    after = (scaled**2).sum(axis=0)
    separate = after > _SEPARATE * before
    if not separate.any():
        return np.zeros((0, residuals.scaled.shape[1]))
    scores = (scaled[:, separate] / np.sqrt(after[separate])).T @ residuals.scaled
    return np.stack([np.abs(scores).max(axis=0), (scores**2).sum(axis=0)]).astype(np.float64)


def _p_value(statistics: Array) -> float:
    """Of the largest statistic, each in SDs of its draws; [K, 1 + S], the sample's own first."""
    if not len(statistics):
        return 1.0
    drawn = statistics[:, 1:]
    spread = drawn.std(axis=1, keepdims=True)
    standard = (statistics - drawn.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    largest = standard.max(axis=0)
    return float((1 + (largest[1:] >= largest[0] - 1e-9).sum()) / len(largest))
