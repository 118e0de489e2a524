"""Scored answers made in code, for tests that need no model."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import SparseLatents


def scored_from(z: NDArray[Any], head: NDArray[Any] | None = None, fingerprint: str = "head-a") -> Scored:
    """Answers whose latents are the rows of dense z [N, L]; what is 0 is not stored."""
    z = np.asarray(z, dtype=np.float32)
    weights = np.linspace(-1, 1, z.shape[1], dtype=np.float32) if head is None else head.astype(np.float32)
    rows = [(np.flatnonzero(row).astype(np.int32), row[np.flatnonzero(row)]) for row in z]
    latents = SparseLatents.from_rows(rows, z.shape[1])
    n = len(z)
    return Scored(
        rewards=latents.dot(weights),
        latents=latents,
        head=weights,
        truncated=np.zeros(n, np.int64),
        ended=np.ones(n, np.bool_),
        lengths=np.full(n, 5, np.int64),
        fingerprint=fingerprint,
    )


def attached_from(
    z: NDArray[Any],
    residual: NDArray[Any],
    *,
    head: NDArray[Any] | None = None,
    constant: float = 0.0,
    fingerprint: str = "head-a",
) -> Scored:
    """The same answers under a reward model with a dictionary attached: a residual [N] and a constant."""
    plain = scored_from(z, head, fingerprint)
    whole = plain.latents.sums(plain.head) + residual + constant
    return replace(
        plain,
        rewards=whole.astype(np.float32),
        residual=np.asarray(residual, dtype=np.float64),
        constant=constant,
        kind="attached",
    )


def random_scored(seed: int, n: int = 12, size: int = 10) -> Scored:
    """Sparse answers, some values negative, with a random head."""
    rng = np.random.default_rng(seed)
    z = rng.exponential(size=(n, size)) * (rng.random((n, size)) < 0.4) - 0.2 * (rng.random((n, size)) < 0.1)
    return scored_from(z, rng.normal(size=size))


class SparseLaw(NamedTuple):
    """Independent zero-inflated exponentials: latent i fires with `rate_i`, then has mean `scale_i`."""

    rate: NDArray[np.float64]
    scale: NDArray[np.float64]

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        fires = rng.random((n, len(self.rate))) < self.rate
        return (fires * rng.exponential(size=fires.shape) * self.scale).astype(np.float32)

    def kl(self, other: "SparseLaw") -> float:
        """`sum_i kl_bern(p_i, q_i) + p_i (log(s_q / s_p) + s_p / s_q - 1)` (SCIENCE.md)."""
        p, q, s_p, s_q = self.rate, other.rate, self.scale, other.scale
        bernoulli = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        return float((bernoulli + p * (np.log(s_q / s_p) + s_p / s_q - 1)).sum())


def laws_with_kl(target: float, width: int, rng: np.random.Generator) -> tuple[SparseLaw, SparseLaw]:
    """A policy and a human law of `width` latents whose divergence is `target` nats."""
    human = SparseLaw(rng.uniform(0.05, 0.6, width), rng.uniform(0.5, 2, width))
    turn, stretch = rng.normal(size=width), rng.normal(size=width)

    def shifted(amount: float) -> SparseLaw:
        logit = np.log(human.rate / (1 - human.rate)) + amount * turn
        return SparseLaw(1 / (1 + np.exp(-logit)), human.scale * np.exp(0.5 * amount * stretch))

    return shifted(brentq(lambda amount: shifted(amount).kl(human) - target, 1e-9, 5)), human
