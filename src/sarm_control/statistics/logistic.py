"""Logistic regression with a ridge, for features as many as a trunk's hidden size.

Shapes: `N` answers, `F` features.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS = 200


class Classifier(NamedTuple):
    """A logit, linear in standardised features.

    Args:
        mean: [F] of the features it was fitted on.
        scale: [F] one over their SD, 0 for a constant feature.
        weight: [F].
        intercept: the logit at the mean.
    """

    mean: Floats
    scale: Floats
    weight: Floats
    intercept: float

    def logits(self, features: Floats) -> Floats:
        """[N] logits of features [N, F]."""
        return np.asarray(((features - self.mean) * self.scale) @ self.weight + self.intercept)


def fit_logistic(features: Floats, present: NDArray[np.bool_], *, l2: float) -> Classifier:
    """Fits whether an answer has an attribute, by L-BFGS.

    Minimises the log loss summed over answers plus `l2 / 2 |weight|^2`, on features standardised by
    their own mean and SD; the intercept is free.

    Args:
        features: [N, F].
        present: [N], some true and some false.
        l2: > 0.
    """
    from scipy.optimize import minimize

    mean, sd = features.mean(axis=0), features.std(axis=0)
    scale = np.where(sd > 1e-12, 1 / np.where(sd > 1e-12, sd, 1.0), 0.0)
    standard = (features - mean) * scale
    sign = np.where(present, 1.0, -1.0)

    def loss(theta: Floats) -> tuple[float, Floats]:
        margin = sign * (standard @ theta[:-1] + theta[-1])
        pull = -sign * 0.5 * (1.0 - np.tanh(0.5 * margin))
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * l2 * (theta[:-1] @ theta[:-1])
        return float(value), np.append(standard.T @ pull + l2 * theta[:-1], pull.sum())

    start = np.zeros(features.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    return Classifier(mean, scale, found.x[:-1], float(found.x[-1]))
