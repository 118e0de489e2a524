"""The closed form beside the classifiers: Mahalanobis distance between means (InfoRM's IBL)."""

from dataclasses import dataclass
from typing import NamedTuple

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


class Distance(NamedTuple):
    """Half the squared Mahalanobis distance of a batch's mean from the humans', without its bias.

    Args:
        mean: [F] of the human rows.
        precision: [F, F] inverse covariance of the human rows, without bias.
        chance: half the expected squared distance of one human row from the mean.
        humans: H, how many rows there were.
    """

    mean: Array
    precision: Array
    chance: float
    humans: int

    @classmethod
    def from_humans(cls, rows: Array) -> "Distance":
        """From human rows [H, F]."""
        inverse = np.asarray(np.linalg.inv(covariance(rows)), dtype=np.float64)
        apart = rows - rows.mean(axis=0)
        chance = 0.5 * float(((apart @ inverse) * apart).sum()) / (len(rows) - 1)
        return cls(rows.mean(axis=0), inverse * _unbiased(rows), chance, len(rows))

    def of(self, rows: Array) -> float:
        """In nats, of rows [N, F]; 0 on average, and about as often below, for rows like the humans'.

        The mean of N rows lies `F / (2 N)` nats from its true place by chance alone, and that of the
        humans `F / (2 H)`; both are taken off.
        """
        count, middle = len(rows), rows.mean(axis=0)
        shift, apart = middle - self.mean, rows - middle
        scatter = float(((apart @ self.precision) * apart).sum())
        chance = 0.5 * scatter / (count - 1) if count > 1 else self.chance
        found = 0.5 * float(shift @ self.precision @ shift)
        return found - chance / count - self.chance / self.humans


def covariance(rows: Array) -> Array:
    """[F, F] of rows [N, F], with a thousandth of the mean variance added to the diagonal."""
    found = np.atleast_2d(np.cov(rows, rowvar=False))
    scale = float(np.trace(found)) / len(found)
    return np.asarray(found + _SHRINK * (scale or 1.0) * np.eye(len(found)))


def _unbiased(human: Array) -> float:
    """The inverse of a sample's covariance is too large by `(n - 1) / (n - F - 2)` (Hartlap, 2007)."""
    n, width = human.shape
    return float(max((n - width - 2) / (n - 1), 1.0 / n))
