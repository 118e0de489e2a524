"""Synthetic sparse latents with known effects, for the tests of this folder."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


class World(NamedTuple):
    chosen: csr_array
    rejected: csr_array
    chosen_prompt: NDArray[np.int64]
    rejected_prompt: NDArray[np.int64]
    head: NDArray[np.float64]


class Planted(NamedTuple):
    weight: float
    rate_chosen: float
    rate_rejected: float


def make_world(
    *,
    seed: int = 0,
    prompts: int = 200,
    answers: int = 3,
    latents: int = 80,
    planted: Mapping[int, Planted] | None = None,
) -> World:
    """Latents that fire at random, some of which always; answers of a prompt share much of their latents."""
    generator = np.random.default_rng(seed)
    rate = np.clip(generator.beta(0.5, 2.0, latents), 0.02, 1.0)
    head = generator.normal(0, 0.01, latents)
    rates = {True: rate.copy(), False: rate.copy()}
    for latent, plan in (planted or {}).items():
        head[latent] = plan.weight
        rates[True][latent], rates[False][latent] = plan.rate_chosen, plan.rate_rejected
    # A uniform number shared by a prompt's answers, in part, makes them resemble each other.
    of_prompt = generator.random((prompts, latents))
    sides = []
    for chosen in (True, False):
        own = generator.random((prompts * answers, latents))
        shared = generator.random((prompts * answers, latents)) < 0.5
        uniform = np.where(shared, np.repeat(of_prompt, answers, axis=0), own)
        size = generator.exponential(1.0, uniform.shape) + 0.1
        sides.append(csr_array(np.where(uniform < rates[chosen], size, 0.0)))
    ids = np.repeat(np.arange(prompts), answers)
    return World(sides[0], sides[1], ids, ids, head)
