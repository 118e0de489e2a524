"""The closed form beside the classifiers: Mahalanobis distance between means (InfoRM's IBL)."""

from dataclasses import dataclass

import numpy as np

from sarm_control.control.density_ratio.logistic import Array, LogRatio

_SHRINK = 1e-3


@dataclass(frozen=True)
class Mahalanobis:
    """The log ratio of two Gaussians that differ in their mean only.

    `l(x) = (x - (m_p + m_h) / 2)' S^-1 (m_p - m_h)` with the humans' covariance S, whose mean over the
    policy is half the squared Mahalanobis distance of the means: the KL divergence of such
    Gaussians. It is what InfoRM charges (Miao et al., 2024, arXiv 2402.09345, "Integrated
    Bottleneck Latents"). Right for Gaussians; too small for latents that start or stop firing.
    """

    def fit(
        self, policy: Array, human: Array, *, counts: Array | None = None, start: object = None
    ) -> LogRatio:
        """The closed form for policy [P, F] and human [H, F]; `start` is not used."""
        del start
        of_policy = np.average(policy, axis=0, weights=counts)
        of_human = human.mean(axis=0)
        weight = np.linalg.solve(covariance(human), of_policy - of_human) * _unbiased(human)
        return LogRatio(weight, float(-0.5 * (of_policy + of_human) @ weight))


def covariance(rows: Array) -> Array:
    """[F, F] of rows [N, F], with a thousandth of the mean variance added to the diagonal."""
    found = np.atleast_2d(np.cov(rows, rowvar=False))
    scale = float(np.trace(found)) / len(found)
    return np.asarray(found + _SHRINK * (scale or 1.0) * np.eye(len(found)))


def _unbiased(human: Array) -> float:
    """The inverse of a sample's covariance is too large by `(n - 1) / (n - F - 2)` (Hartlap, 2007)."""
    n, width = human.shape
    return float(max((n - width - 2) / (n - 1), 1.0 / n))
