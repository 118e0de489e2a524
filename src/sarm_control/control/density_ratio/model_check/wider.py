"""A log ratio with shapes, products and waves too, for samples where a linear one does not fit.

Shapes: `P` policy rows, `H` human rows, `N` both, `J` columns of the dictionary, `G` groups.
"""

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.density_ratio.jackknife import HeldOut, SampleRows
from sarm_control.control.density_ratio.logistic import Array, Logistic
from sarm_control.control.density_ratio.model_check.dictionary import dictionary

_MOST_COLUMNS = 60
_LEAST_SCORE = 3.0
_L2 = 10.0
_JITTER = 1e-6


def wider_held_out(policy: SampleRows, human: SampleRows, *, groups: int, seed: int) -> HeldOut:
    """Log ratios of all rows by fits that did not see them, on the features and columns of the dictionary.

    Each fit takes at most 60 columns: those whose score statistics after a linear fit are largest on its own
    rows, and above 3. A strong ridge keeps the estimate below the truth rather than above.

    Args:
        policy: P rows.
        human: H rows.
        groups: G, at least 2; the log ratios of each come from a fit on the others.
        seed: of the groups and of the waves.

    Raises:
        DataError: fewer distinct rows per side than groups.
    """
    features = np.concatenate([policy.features, human.features])
    latents = np.concatenate([policy.latents, human.latents])
    # of all rows, held-out ones too: no column depends on which side a row is of
    columns = np.concatenate(dictionary(latents, features, seed), axis=1).astype(np.float64)
    own = np.arange(len(features)) < len(policy.features)
    group = np.concatenate(
        [policy.groups(groups, seed, "the policy"), human.groups(groups, seed, "the human buffer")]
    )
    log_ratios = np.zeros(len(features))
    for g in range(groups):
        kept = group != g
        chosen = _chosen(features[kept], columns[kept], own[kept])
        design = np.concatenate([features, columns[:, chosen]], axis=1)
        estimator = Logistic(l2=_L2, jeffreys=False)
        log_ratios[~kept] = estimator.fit(design[kept & own], design[kept & ~own]).at(design[~kept])
    return HeldOut(log_ratios[own], log_ratios[~own])


def _chosen(features: Array, columns: Array, own: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The columns that correlate most with the residuals of a linear fit."""
    logit = Logistic().fit(features[own], features[~own]).at(features) + np.log(own.sum() / (~own).sum())
    chance = 0.5 * (1.0 + np.tanh(0.5 * logit))
    weight = chance * (1.0 - chance)
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    weighted = design * weight[:, None]
    gram = weighted.T @ design
    # features that depend on others would leave it singular
    gram.flat[:: len(gram) + 1] += _JITTER * (1.0 + np.trace(gram) / len(gram))
    # weighted least squares: what the features explain of each column is taken off, as the fit would
    free = columns - design @ np.linalg.solve(gram, weighted.T @ columns)
    spread = np.sqrt((free**2 * weight[:, None]).sum(axis=0))
    size = (columns**2 * weight[:, None]).sum(axis=0)
    scores = np.abs(free.T @ (own - chance)) / np.maximum(spread, 1e-12)
    # a column that the features already explain to 99 % adds nothing but rounding
    scores[spread**2 <= 0.01 * size] = 0.0
    best = np.argsort(-scores, kind="stable")[:_MOST_COLUMNS]
    return np.asarray(best[scores[best] > _LEAST_SCORE])
