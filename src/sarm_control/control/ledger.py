"""The ledger: how much each latent added to the change of the mean reward, exactly.

With a linear head, `mean r_trained - mean r_base = sum_i w_i (mean z_i,trained - mean z_i,base)`,
so the change splits into one entry per latent with nothing left over. Evaluation and training both keep a
ledger, so it is in this room, which both import.

Shapes: `N` answers, `P` prompts, `L` latents, `M` latents stored in at least one answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.reward_model import SparseLatents

Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Ledger:
    """What each latent added to the change of the mean reward, largest magnitude first.

    Means over answers are means of prompt means, so every prompt has the same weight.

    Args:
        latents: [M] latent numbers.
        weights: [M] head weights `w_i`.
        base_mean: [M] mean z_i of the base policy's answers.
        trained_mean: [M] mean z_i of the trained policy's answers.
        base_rate: [M] share of the base policy's answers in which the latent fires (z > 0).
        trained_rate: [M] the same for the trained policy.
        delta: [M] `w_i (trained_mean - base_mean)`, reward units.
        prompt_deltas: [P, M] sparse, each prompt's own `delta`; its column means are `delta`.
    """

    latents: NDArray[np.int64]
    weights: Floats
    base_mean: Floats
    trained_mean: Floats
    base_rate: Floats
    trained_rate: Floats
    delta: Floats
    prompt_deltas: Any

    @property
    def total(self) -> float:
        """The change of the mean reward: the sum of all entries."""
        return float(self.delta.sum())

    def entry(self, position: int) -> Floats:
        """[P] each prompt's change of the entry at one position, from which its interval is computed."""
        return np.asarray(self.prompt_deltas[:, [position]].toarray(), dtype=np.float64).ravel()


def latent_ledger(
    base: SparseLatents,
    trained: SparseLatents,
    head: NDArray[np.floating[Any]],
    base_prompts: Integers,
    trained_prompts: Integers,
) -> Ledger:
    """Splits the change of the mean unedited reward into one entry per latent.

    Args:
        base: [N_base, L] latents of the base policy's answers.
        trained: [N_trained, L] latents of the trained policy's answers.
        head: [L] head weights.
        base_prompts: [N_base] the prompt (0..P-1) of each answer.
        trained_prompts: [N_trained] likewise; both policies must have answered every prompt.

    Raises:
        ValueError: the autoencoders differ in size, or a prompt has no answer of one policy.
    """
    if base.size != trained.size or len(head) != base.size:
        raise ValueError(f"latents of sizes {base.size} and {trained.size} with a head of {len(head)}")
    prompts = 1 + int(max(base_prompts.max(), trained_prompts.max()))
    before = _prompt_means(base, base_prompts, prompts)
    after = _prompt_means(trained, trained_prompts, prompts)
    base_rate = _mean(_prompt_means(base, base_prompts, prompts, _fires))
    trained_rate = _mean(_prompt_means(trained, trained_prompts, prompts, _fires))
    weights = np.asarray(head, dtype=np.float64)
    # a stored 0 adds nothing to either mean, and would fill the ledger with empty rows
    used = np.union1d(base.indices[base.values != 0], trained.indices[trained.values != 0])
    delta = weights[used] * (_mean(after) - _mean(before))[used]
    order = used[np.lexsort((used, -np.abs(delta)))]
    return Ledger(
        latents=order.astype(np.int64),
        weights=weights[order],
        base_mean=_mean(before)[order],
        trained_mean=_mean(after)[order],
        base_rate=base_rate[order],
        trained_rate=trained_rate[order],
        delta=weights[order] * (_mean(after) - _mean(before))[order],
        # by columns, since `entry` reads one latent at a time
        prompt_deltas=((after - before)[:, order] * weights[order][None, :]).tocsc(),
    )


def prompt_means(values: NDArray[np.floating[Any]], prompts: Integers) -> Floats:
    """[P] means of `values` [N] over each prompt's answers, float64."""
    counts = np.bincount(prompts)
    sums = np.bincount(prompts, weights=np.asarray(values, dtype=np.float64))
    return np.asarray(sums / counts, dtype=np.float64)


def _fires(values: Floats) -> Floats:
    return np.asarray(values > 0, dtype=np.float64)


def _prompt_means(
    latents: SparseLatents,
    prompts: Integers,
    size: int,
    transform: Callable[[Floats], Floats] | None = None,
) -> Any:
    from scipy.sparse import csr_array

    counts = np.bincount(prompts, minlength=size)
    if len(prompts) != len(latents) or not counts.all():
        raise ValueError("every prompt needs at least one answer of each policy")
    values = latents.values.astype(np.float64)
    matrix = csr_array(
        (transform(values) if transform else values, latents.indices, latents.indptr),
        shape=(len(latents), latents.size),
    )
    # averaging is a sparse matrix product, so [P, L] is never dense
    average = csr_array(
        (1.0 / counts[prompts], (prompts, np.arange(len(prompts)))), shape=(size, len(prompts))
    )
    return average @ matrix


def _mean(matrix: Any) -> Floats:
    return np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel()


__all__ = ["Floats", "Integers", "Ledger", "latent_ledger", "prompt_means"]
