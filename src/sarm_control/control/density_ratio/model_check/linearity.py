"""Whether the log ratio of two samples is linear in the features, as the default estimator assumes.

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
"""The level of the test: a linear log ratio is rejected where its statistic exceeds all of 399 draws."""
LEAST_IN_DOUBT = 200
"""With fewer rows in doubt per side, a check without a finding shows nothing."""
ROWS_A_FEATURE = 2
"""The same holds with fewer rows in doubt than this for each feature of the classifier."""
MOST_ROWS = 4096
"""Rows per side that the check looks at."""

_DRAWS = 399
_SEPARATE = 0.01


class Linearity(NamedTuple):
    """The result of the check.

    Args:
        fits: False when the log ratio is not linear, True when the check found nothing against it, and None
            when it found nothing but too few rows are in doubt to find much.
        p: the p-value of a linear log ratio, at least 1 / 400.
        in_doubt: twice the sum of `p (1 - p)` over the rows, with p the classifier's probability. It is the
            number of rows per side where the samples are alike, and 0 where all rows are classified surely.
    """

    fits: bool | None
    p: float
    in_doubt: float


class Rows(NamedTuple):
    """Distinct rows of one side, in an order that depends only on their content.

    Args:
        latents: [n, D].
        features: [n, F].
    """

    latents: NDArray[np.float32]
    features: Array

    @classmethod
    def distinct(cls, latents: NDArray[np.float32], features: Array, most: int = MOST_ROWS) -> "Rows":
        """At most `most` rows, one of each set of copies; equal rows of only 0 and 1 are not copies."""
        latents = np.ascontiguousarray(latents)
        keys = np.array([hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in latents])
        order = np.argsort(keys, kind="stable")
        copied = ((latents != 0) & (latents != 1)).any(axis=1)[order]
        again = np.append(False, keys[order][1:] == keys[order][:-1])
        chosen = order[~(again & copied)][:most]
        return cls(latents[chosen], features[chosen])


def check_linear(policy: Rows, human: Rows, *, seed: int, start: LogRatio | None = None) -> Linearity:
    """Tests that `log p_policy / p_human` is linear in the features.

    A logistic regression on the features leaves residuals: 1 or 0 for the side of a row, minus its
    probability. If the log ratio is linear, they are uncorrelated with everything else. Score statistics
    compare them with a dictionary of shapes, products and waves, from which the part explained by the
    features is removed; of each kind of column, the largest statistic and the sum of squares are tested.
    Their distribution is simulated: sides are drawn from the fitted probabilities with the rows fixed (a
    parametric bootstrap).

    Args:
        policy: rows of the policy.
        human: rows of the humans.
        seed: of the draws and waves.
        start: where the fit begins.
    """
    features = np.concatenate([policy.features, human.features])
    ratio = Logistic().fit(policy.features, human.features, start=start)
    logit = ratio.at(features) + np.log(len(policy.features) / len(human.features))
    # never 0 or 1, since residuals are divided by the root of chance (1 - chance)
    chance = np.clip(0.5 * (1.0 + np.tanh(0.5 * logit)), 1e-9, 1 - 1e-9)
    weight = chance * (1.0 - chance)
    in_doubt = 2.0 * float(weight.sum())
    residuals = _Residuals.of(features, chance, len(policy.features), seed)
    columns = dictionary(np.concatenate([policy.latents, human.latents]), features, seed)
    p = _p_value(np.concatenate([_statistics(kind, residuals, weight) for kind in columns]))
    needed = max(LEAST_IN_DOUBT, ROWS_A_FEATURE * residuals.span.shape[1])
    fits = False if p <= LEVEL else (True if in_doubt >= needed else None)
    return Linearity(fits, p, in_doubt)


class _Residuals(NamedTuple):
    """Residuals of the sample and of the draws, [N, 1 + S], of variance 1 and orthogonal to the features.

    `span` [N, R] is an orthonormal basis of the weighted features.
    """

    scaled: Columns
    span: Columns

    @classmethod
    def of(cls, features: Array, chance: Array, policy: int, seed: int) -> "_Residuals":
        rng = numpy_generator(seed, "sides of the check for what is not linear")
        root = np.sqrt(chance * (1.0 - chance))
        # rows weighted as a fit weights them, so that scaled residuals are orthogonal to these columns
        design = np.concatenate([features, np.ones((len(features), 1))], axis=1) * root[:, None]
        left, sizes, _ = np.linalg.svd(design, full_matrices=False)
        # features that depend on others leave directions of size 0
        span = left[:, sizes > 1e-6 * sizes.max()]
        sides = (rng.random((_DRAWS, len(chance))) < chance).astype(np.float64)
        drawn = ((sides - chance) / root).T
        # fitted probabilities are overconfident on the rows of the fit, so draws from them vary too little
        drawn /= np.sqrt(1.0 - np.minimum((span**2).sum(axis=1), 0.5))[:, None]
        own = (np.arange(len(chance)) < policy).astype(np.float64)
        both = np.concatenate([((own - chance) / root)[:, None], drawn], axis=1)
        # a fit makes the residuals orthogonal to the features; this does the same to the draws
        both -= span @ (span.T @ both)
        return cls(both.astype(np.float32), span.astype(np.float32))


def _statistics(columns: Columns, residuals: _Residuals, weight: Array) -> Array:
    """[2, 1 + S] the largest score statistic of the columns, and the sum of their squares."""
    scaled = columns * np.sqrt(weight)[:, None].astype(np.float32)
    before = (scaled**2).sum(axis=0)
    scaled = scaled - residuals.span @ (residuals.span.T @ scaled)
    after = (scaled**2).sum(axis=0)
    # of a column that the features explain to 99 % only rounding is left
    separate = after > _SEPARATE * before
    if not separate.any():
        return np.zeros((0, residuals.scaled.shape[1]))
    scores = (scaled[:, separate] / np.sqrt(after[separate])).T @ residuals.scaled
    return np.stack([np.abs(scores).max(axis=0), (scores**2).sum(axis=0)]).astype(np.float64)


def _p_value(statistics: Array) -> float:
    """The p-value of the largest statistic, each in SDs of its draws; [K, 1 + S], the sample's own first."""
    if not len(statistics):
        return 1.0
    drawn = statistics[:, 1:]
    spread = drawn.std(axis=1, keepdims=True)
    # maxima and sums of squares have different scales: in SDs of their draws, one largest serves for all
    standard = (statistics - drawn.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    largest = standard.max(axis=0)
    return float((1 + (largest[1:] >= largest[0] - 1e-9).sum()) / len(largest))
