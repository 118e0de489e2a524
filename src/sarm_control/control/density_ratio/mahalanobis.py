"""A closed form in place of a classifier: the Mahalanobis distance between means (InfoRM's IBL)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sarm_control.control.density_ratio.logistic import Array, LogRatio
from sarm_control.errors import DataError

_SHRINK = 1e-3


@dataclass(frozen=True)
class Mahalanobis:
    """The log ratio of two Gaussians that differ in their mean only.

    `l(x) = (x - (m_p + m_h) / 2)' S^-1 (m_p - m_h)` with the covariance S of the human rows. Its mean over
    the policy is half the squared Mahalanobis distance of the means, which is the KL divergence of such
    Gaussians. InfoRM uses it as its penalty (Miao et al., 2024, arXiv 2402.09345, "Integrated Bottleneck
    Latents"). It is right for Gaussians and too small for latents that start or stop firing.
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
    """Half the squared Mahalanobis distance of a batch's mean from the human mean, without its bias.

    Args:
        mean: [F] of the human rows.
        precision: [F, F] inverse covariance of the human rows, without bias.
        chance: half the expected squared distance of one human row from the mean.
        humans: H, the number of human rows.
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
        """The distance of rows [N, F] in nats; 0 on average, and often negative, for rows like the human.

        The mean of N rows lies `F / (2 N)` nats from its true place by chance alone, and that of the
        human rows `F / (2 H)`; both are subtracted.
        """
        count, middle = len(rows), rows.mean(axis=0)
        shift, apart = middle - self.mean, rows - middle
        scatter = float(((apart @ self.precision) * apart).sum())
        chance = 0.5 * scatter / (count - 1) if count > 1 else self.chance
        half_squared = 0.5 * float(shift @ self.precision @ shift)
        return half_squared - chance / count - self.chance / self.humans


def covariance(rows: Array) -> Array:
    """[F, F] covariance of rows [N, F], with a thousandth of the mean variance added to the diagonal."""
    plain = np.atleast_2d(np.cov(rows, rowvar=False))
    scale = float(np.trace(plain)) / len(plain)
    return np.asarray(plain + _SHRINK * (scale or 1.0) * np.eye(len(plain)))


def _dimensions(human: Array) -> float:
    """The number of directions, of F, in which human rows [H, F] vary: `tr S (S + ridge)^-1`.

    A column that never varies, or only together with others, adds nothing. With fewer rows than varying
    columns some directions are hidden; the result is scaled up so that they count too.
    """
    full = covariance(human)
    plain = np.atleast_2d(np.cov(human, rowvar=False))
    seen = float(np.trace(np.linalg.solve(full, plain)))
    return seen * max(1.0, np.count_nonzero(np.diag(plain)) / (len(human) - 1))


def _unbiased(human: Array) -> float:
    """The factor that removes the bias of the inverse covariance of human rows [H, F].

    For Gaussian rows the inverse is too large by `(H - 1) / (H - F - 2)` (Hartlap, 2007). Below 2 F rows that
    formula is far off, and below F + 3 it is undefined. There the factor is measured instead: if the
    covariance and mean of the other rows are right, a row has the mean squared distance
    `D (1 + 1 / (H - 1))` from them, with D the number of directions in which rows vary. Leaving one row out
    changes the covariance by one outer product, so no further inverse is needed (Sherman and Morrison, 1950).

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
    # the covariance without a row, ridge included, is (n - 1) / (n - 2) times this minus an outer product
    others = full - ridge / (n - 1) * np.eye(width)
    squared = (np.linalg.solve(others, apart.T).T * apart).sum(axis=1)
    left_out = squared / (1 - n / (n - 1) ** 2 * squared)
    distance = (n / (n - 1)) ** 2 * (n - 2) / (n - 1) * float(left_out.mean())
    return float(_dimensions(human) * n / (n - 1) / distance) if distance > 0 else 1.0
