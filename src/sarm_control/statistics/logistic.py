"""Logistic regression with a ridge, for features as many as a trunk's hidden size.

Shapes: `N` answers, `F` features.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS = 200
_TOLERANCE = 1e-6


class Classifier(NamedTuple):
    """A logit, linear in standardised features.

    Args:
        mean: [F] of the features it was fitted on.
        scale: [F] one over their SD, 0 for a constant feature.
        weight: [F].
        intercept: the logit at the mean.
    """

    mean: Float[Floats, " F"]
    scale: Float[Floats, " F"]
    weight: Float[Floats, " F"]
    intercept: float

    def logits(self, features: Float[Floats, "N F"]) -> Float[Floats, " N"]:
        """[N] logits of features [N, F]."""
        return np.asarray(((features - self.mean) * self.scale) @ self.weight + self.intercept)


def fit_logistic(
    features: Float[Floats, "N F"], present: Bool[NDArray[np.bool_], " N"], *, l2: float
) -> Classifier:
    """Fits whether an answer has an attribute, by scikit-learn.

    Minimises the log loss summed over answers plus `l2 / 2 |weight|^2`, on features standardised by
    their own mean and SD; the intercept is free.

    Args:
        features: [N, F].
        present: [N], some true and some false.
        l2: > 0.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, sd = features.mean(axis=0), features.std(axis=0)
    # a constant feature has an SD of rounding errors, which would blow them up
    scale = np.where(sd > 1e-12, 1 / np.where(sd > 1e-12, sd, 1.0), 0.0)
    # scikit-learn's C multiplies the loss summed over answers: it is one over the ridge
    fitted = LogisticRegression(C=1 / l2, tol=_TOLERANCE, max_iter=_STEPS)
    with warnings.catch_warnings():
        # a probe that stops at the last step ranks answers as well
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit((features - mean) * scale, present)
    return Classifier(mean, scale, fitted.coef_[0], float(fitted.intercept_[0]))
