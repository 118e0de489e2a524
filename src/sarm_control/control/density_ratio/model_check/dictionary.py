"""Nonlinear columns that a log ratio may depend on: shapes of one latent, products of two, waves of all.

Shapes: `N` rows of both samples together, `D` latents, `F` linear features, `J` columns.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.density_ratio.logistic import Array
from sarm_control.seeds import numpy_generator

Columns = NDArray[np.float32]

_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
_LEAST_DIFFERENT = 10
_MOST_PAIRS = 500
_WAVES = 256
_LENGTHS = (0.5, 1.0, 2.0)


class Dictionary(NamedTuple):
    """Columns by kind, chosen and scaled without regard to which sample a row belongs to.

    Args:
        shapes: [N, J] the square and the logarithm of a latent's value, and indicators of values above the
            0.1, 0.25, 0.5, 0.75 and 0.9 quantiles of the rows in which it fires.
        products: [N, J] the products of the values of two latents, and indicators that both fire.
        waves: [N, J] cosines along random directions; enough of them distinguish any two distributions
            (Rahimi and Recht, 2007, "Random features for large-scale kernel machines").
    """

    shapes: Columns
    products: Columns
    waves: Columns


def dictionary(z: NDArray[np.float32], features: Array, seed: int) -> Dictionary:
    """The columns of pooled rows.

    Args:
        z: [N, D] latents.
        features: [N, F] their standardised features `[1(z > 0), z]`.
        seed: of the waves.
    """
    values = features[:, z.shape[1] :]
    return Dictionary(_shapes(z, values), _products(z, values), _waves(features, seed))


def _shapes(z: NDArray[np.float32], values: Array) -> Columns:
    """Quantiles of a latent of both signs are over all rows, of the others over rows where they fire."""
    counts = (z != 0) | (z < 0).any(axis=0)
    # rows that do not count sort behind all others
    ordered = np.sort(np.where(counts, z, np.inf), axis=0)
    rows = counts.sum(axis=0)
    above = []
    for level in _LEVELS:
        place = (level * rows).astype(int)
        end = np.take_along_axis(ordered, place[None], axis=0)
        above.append((z > end).astype(np.float64))
    return _kept(np.hstack([values**2, np.log1p(np.abs(values)), *above]))


def _products(z: NDArray[np.float32], values: Array) -> Columns:
    """Columns of the pairs whose joint firing is least like chance or nearest to half of the rows."""
    fires = (z > 0).astype(np.float64)
    rates = fires.mean(axis=0)
    first, second = np.triu_indices(z.shape[1], 1)
    together = (fires.T @ fires)[first, second]
    says = np.minimum(together, len(z) - together)
    chance = len(z) * rates[first] * rates[second]
    # in SDs of a Poisson count; the 1 keeps pairs that hardly meet by chance from winning by one row
    unlike = np.abs(together - chance) / np.sqrt(chance + 1.0)
    best = [np.argsort(-order, kind="stable")[: _MOST_PAIRS // 2] for order in (unlike, says)]
    pairs = np.unique(np.concatenate(best))
    pairs = pairs[says[pairs] >= _LEAST_DIFFERENT]
    first, second = first[pairs], second[pairs]
    return _kept(np.hstack([fires[:, first] * fires[:, second], values[:, first] * values[:, second]]))


def _waves(features: Array, seed: int) -> Columns:
    """Waves of three lengths: half, once and twice the typical distance between rows."""
    rng = numpy_generator(seed, "waves of the check for what is not linear")
    distance = float(np.sqrt(2.0 * features.var(axis=0).sum())) or 1.0
    length = distance * np.resize(_LENGTHS, _WAVES)
    directions = rng.normal(size=(features.shape[1], _WAVES)) / length
    return _kept(np.cos(features @ directions + rng.uniform(0, 2 * np.pi, _WAVES)))


def _kept(columns: Array) -> Columns:
    """Centred columns of SD 1, without those that a few rows decide: their statistics are not normal."""
    centred = columns - columns.mean(axis=0)
    squares, most = (centred**2).sum(axis=0), (centred**2).max(axis=0, initial=0.0)
    keep = (squares > 0) & (squares >= 0.25 * _LEAST_DIFFERENT * most)
    return np.asarray(centred[:, keep] / np.sqrt(squares[keep] / len(columns)), np.float32)
