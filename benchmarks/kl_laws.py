"""Pairs of laws whose divergence is known and whose log ratio is not linear in `[1(z > 0), z]`.

The means of the features agree (but in the last), so a classifier on them sees nothing. The divergence is a
closed form or a one-dimensional integral. `five()` are those that the check of `estimate_kl` has to find;
`further()` are reported beside them. The sizes were written down before the check was made.

Used by `benchmarks/density_ratio.py` and by the tests.
"""

from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm, t


class Law(Protocol):
    """Two laws of rows, the policy's and the humans', and the divergence of the first from the second."""

    name: str
    width: int

    @property
    def kl(self) -> float:
        """The divergence in nats."""

    def draw(self, n: int, policy: bool, rng: np.random.Generator) -> np.ndarray:
        """[n, width] rows of the policy's law or of the humans'."""

    def log_ratio(self, z: np.ndarray) -> np.ndarray:
        """[n] log of policy over human law at rows [n, width]."""


class CoFiring:
    """Sparse latents in pairs: the humans' fire independently, the policy's together; 2.00 nats.

    Every latent fires in 30 % of the rows of both, with the same exponential values.
    """

    name, width, kl = "other co-firing", 16, 2.0
    rate = 0.3

    def __init__(self) -> None:
        self.human = self._table(0.0)
        self.policy = self._table(brentq(lambda extra: self._divergence(extra) - self.kl, 0.0, 0.2099))

    def _table(self, extra: float) -> np.ndarray:
        """[2, 2] probabilities of one pair: silent or firing."""
        one, both = self.rate * (1 - self.rate) - extra, self.rate**2 + extra
        return np.array([[1 - both - 2 * one, one], [one, both]])

    def _divergence(self, extra: float) -> float:
        table = self._table(extra)
        return float(self.width / 2 * (table * np.log(table / self.human)).sum())

    def draw(self, n: int, policy: bool, rng: np.random.Generator) -> np.ndarray:
        """See `Law`."""
        table = self.policy if policy else self.human
        kind = rng.choice(4, size=(n, self.width // 2), p=table.ravel())
        fires = np.stack([kind // 2, kind % 2], axis=2).reshape(n, self.width)
        return (fires * rng.exponential(size=fires.shape)).astype(np.float32)

    def log_ratio(self, z: np.ndarray) -> np.ndarray:
        """See `Law`."""
        pairs = (z > 0).astype(int).reshape(len(z), -1, 2)
        return np.asarray(np.log(self.policy / self.human)[pairs[..., 0], pairs[..., 1]].sum(axis=1))


class Spread:
    """N(0, sd^2) against N(0, 1) in every dimension."""

    def __init__(self, name: str, width: int, sd: float) -> None:
        self.name, self.width, self.sd = name, width, sd
        self.kl = width * (0.5 * (sd**2 - 1) - np.log(sd))

    def draw(self, n: int, policy: bool, rng: np.random.Generator) -> np.ndarray:
        """See `Law`."""
        return (rng.normal(size=(n, self.width)) * (self.sd if policy else 1.0)).astype(np.float32)

    def log_ratio(self, z: np.ndarray) -> np.ndarray:
        """See `Law`."""
        return np.asarray((0.5 * (1 - self.sd**-2) * z**2 - np.log(self.sd)).sum(axis=1))


class TwoModes:
    """Two normal modes along one direction of five against N(0, 1); 0.60 nats.

    Args:
        same_variance: the modes are narrower, so that mean and covariance agree with the humans'.
    """

    width, kl = 5, 0.6

    def __init__(self, *, same_variance: bool = False) -> None:
        self.name = "two modes" + (" of the same variance" if same_variance else "")
        self.same_variance = same_variance
        direction = np.random.default_rng(0).normal(size=self.width)
        self.direction = direction / np.linalg.norm(direction)

    @cached_property
    def middle(self) -> float:
        """The share at which the divergence is `kl`; seconds of integrals, so only once somebody draws."""
        return float(brentq(lambda middle: self._divergence(middle) - self.kl, 0.01, 0.995))

    def _mode(self, share: float) -> tuple[float, float]:
        """Place and SD of a mode; without equal variance places up to 4."""
        return (share, np.sqrt(1 - share**2)) if self.same_variance else (4 * share, 1.0)

    def _log_ratio(self, x: np.ndarray, share: float) -> np.ndarray:
        place, sd = self._mode(share)
        modes = np.logaddexp(norm.logpdf(x, place, sd), norm.logpdf(x, -place, sd)) - np.log(2)
        return np.asarray(modes - norm.logpdf(x))

    def _divergence(self, share: float) -> float:
        place, sd = self._mode(share)
        ends = place - 12 * sd, place + 12 * sd

        def density(x: float) -> float:
            return float(norm.pdf(x, place, sd) * self._log_ratio(np.asarray(x), share))

        return float(quad(density, *ends, limit=200)[0])

    def draw(self, n: int, policy: bool, rng: np.random.Generator) -> np.ndarray:
        """See `Law`."""
        rows, (place, sd) = rng.normal(size=(n, self.width)), self._mode(self.middle)
        side = rng.integers(2, size=n) * 2 - 1
        along = rows @ self.direction
        if policy:
            rows = rows + np.outer(side * place + (sd - 1) * along, self.direction)
        return rows.astype(np.float32)

    def log_ratio(self, z: np.ndarray) -> np.ndarray:
        """See `Law`."""
        return self._log_ratio(z @ self.direction, self.middle)


class HeavyTails:
    """Student's t with 4 degrees of freedom, scaled to variance 1, against N(0, 1) in 10 dimensions."""

    name, width, freedom = "heavy tails", 10, 4
    scale = np.sqrt(0.5)

    @cached_property
    def kl(self) -> float:
        """Nats, by an integral."""

        def density(x: float) -> float:
            return float(t.pdf(x, self.freedom, scale=self.scale) * self._log_ratio(np.array(x)))

        return float(self.width * 2 * quad(density, 0, np.inf, limit=400)[0])

    def _log_ratio(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(t.logpdf(x, self.freedom, scale=self.scale) - norm.logpdf(x))

    def draw(self, n: int, policy: bool, rng: np.random.Generator) -> np.ndarray:
        """See `Law`."""
        size = n, self.width
        rows = self.scale * rng.standard_t(self.freedom, size) if policy else rng.normal(size=size)
        return rows.astype(np.float32)

    def log_ratio(self, z: np.ndarray) -> np.ndarray:
        """See `Law`."""
        return np.asarray(self._log_ratio(z).sum(axis=1))


class HeavyValues:
    """Sparse latents: log-normal values against exponential ones of the same mean; 16 firing in 40 %."""

    name, width, rate, sd = "sparse, heavy values", 16, 0.4, 1.2

    def __init__(self) -> None:
        self.kl = self.width * self.rate * (1 + self.sd**2 / 2 - 0.5 * np.log(2 * np.pi * np.e * self.sd**2))

    def draw(self, n: int, policy: bool, rng: np.random.Generator) -> np.ndarray:
        """See `Law`."""
        size = n, self.width
        values = rng.lognormal(-(self.sd**2) / 2, self.sd, size) if policy else rng.exponential(size=size)
        return ((rng.random(size) < self.rate) * values).astype(np.float32)

    def log_ratio(self, z: np.ndarray) -> np.ndarray:
        """See `Law`."""
        fired = np.where(z > 0, z, 1.0).astype(np.float64)
        policy = norm.logpdf(np.log(fired), -(self.sd**2) / 2, self.sd) - np.log(fired)
        return np.asarray(((policy + fired) * (z > 0)).sum(axis=1))


class Both:
    """The co-firing pairs beside 10 Gaussians that differ in their mean: 2 nats in each part."""

    name, width, kl = "co-firing and a shift", 26, 4.0

    def __init__(self) -> None:
        self.pairs, self.shift = CoFiring(), np.full(10, np.sqrt(2 * 2.0 / 10))

    def draw(self, n: int, policy: bool, rng: np.random.Generator) -> np.ndarray:
        """See `Law`."""
        rows = rng.normal(size=(n, 10)) + policy * self.shift
        return np.hstack([self.pairs.draw(n, policy, rng), rows.astype(np.float32)])

    def log_ratio(self, z: np.ndarray) -> np.ndarray:
        """See `Law`."""
        return np.asarray(self.pairs.log_ratio(z[:, :16]) + (z[:, 16:] - 0.5 * self.shift) @ self.shift)


def five() -> tuple[Law, ...]:
    """The laws that the check has to find."""
    return (
        CoFiring(),
        Spread("a policy that collapsed", 5, 0.5),
        TwoModes(),
        HeavyTails(),
        Spread("a wider policy", 10, 1.25),
    )


def further() -> tuple[Law, ...]:
    """Harder or mixed laws, reported beside them."""
    return TwoModes(same_variance=True), HeavyValues(), Both()
