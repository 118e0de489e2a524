"""The estimators by name, and the protocol they share."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sarm_control.control.density_ratio.kernels import LeastSquares
from sarm_control.control.density_ratio.logistic import Array, Logistic
from sarm_control.control.density_ratio.mahalanobis import Mahalanobis
from sarm_control.control.density_ratio.perceptron import Perceptron


class Ratio(Protocol):
    """A fitted log density ratio."""

    def at(self, features: Array, /) -> Array:
        """[N] log ratio in nats of features [N, F]."""


class Estimator(Protocol):
    """Anything that fits a log density ratio on two samples of standardised features.

    The human-KL term of a run gives older rows less weight, so it takes only `logistic` and `mahalanobis`,
    whose `fit` has `counts` as well.
    """

    def fit(self, policy: Array, human: Array, /, *, start: Any = None) -> Ratio:
        """The ratio of policy [P, F] to human [H, F]; `start` is an earlier ratio of similar samples."""


ESTIMATORS: Mapping[str, Callable[[], Estimator]] = {
    "logistic": Logistic,
    "mlp": Perceptron,
    "ulsif": lambda: LeastSquares(alpha=0.0),
    "rulsif": LeastSquares,
    "mahalanobis": Mahalanobis,
}
"""Names that `estimate_kl` knows."""
