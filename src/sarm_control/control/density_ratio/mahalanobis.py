"""The closed form beside the classifiers: Mahalanobis distance between means (InfoRM's IBL)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sarm_control.control.density_ratio.logistic import Array, LogRatio
from sarm_control.errors import DataError

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
        """From human rows [H, F].

        Raises:
            DataError: fewer than three rows.
        """
        inverse = np.asarray(np.linalg.inv(covariance(rows)), dtype=np.float64)
        return cls(rows.mean(axis=0), inverse * _unbiased(rows), 0.5 * _dimensions(rows), len(rows))

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


def _dimensions(human: Array) -> float:
    """How many of F directions human rows [H, F] vary in.

    What never varies, or only together with others, counts for nothing: `tr S (S + ridge)^-1`. Fewer rows
    than columns that vary hide some of them, which are counted all the same.
    """
    full = covariance(human)
    plain = np.atleast_2d(np.cov(human, rowvar=False))
    seen = float(np.trace(np.linalg.solve(full, plain)))
    return seen * max(1.0, np.count_nonzero(np.diag(plain)) / (len(human) - 1))


def _unbiased(human: Array) -> float:
    """What the inverse of the covariance of human rows [H, F] is to be multiplied by.

    It is too large by `(H - 1) / (H - F - 2)` for Gaussian rows (Hartlap, 2007). Below 2 F rows that is far
    off, and below F + 3 it says nothing. There the factor is measured: a row lies, by the covariance and
    mean of the others, at a squared distance of `D (1 + 1 / (H - 1))` on average if that covariance is
    right, D being the directions that rows vary in. Leaving a row out changes the covariance by one outer
    product, so every row costs no more than its own distance (Sherman and Morrison, 1950).

    Raises:
        DataError: fewer than three rows.
    """
    n, width = human.shape
    if n < 3:
        raise DataError(f"a covariance needs at least 3 rows, there are {n}")
    if n >= 2 * width and n > width + 2:
        return float((n - width - 2) / (n - 1))
    apart = human - human.mean(axis=0)
    full = covariance(human)
    ridge = float(np.trace(full - np.atleast_2d(np.cov(human, rowvar=False)))) / width
    # (n - 1) / (n - 2) times this, less an outer product, is the covariance without a row, ridge included
    others = full - ridge / (n - 1) * np.eye(width)
    squared = (np.linalg.solve(others, apart.T).T * apart).sum(axis=1)
    left_out = squared / (1 - n / (n - 1) ** 2 * squared)
    distance = (n / (n - 1)) ** 2 * (n - 2) / (n - 1) * float(left_out.mean())
    return float(_dimensions(human) * n / (n - 1) / distance) if distance > 0 else 1.0
