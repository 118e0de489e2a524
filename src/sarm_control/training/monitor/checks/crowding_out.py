"""Crowding out: a latent is as high as ever before TopK, and other latents push it out of the k kept."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.training.monitor.checks.finding import Finding, Floats, share_grew

LEAST_SHARE = 0.05


class BeforeTopK(NamedTuple):
    """One latent in N answers.

    Args:
        pre: [N] pre-activations.
        rank: [N] its place among all latents' pre-activations, 1 for the largest.
        z: [N] what TopK left of it.
    """

    pre: Floats
    rank: NDArray[np.int64]
    z: Floats


def crowded(side: BeforeTopK, tau: float) -> NDArray[np.bool_]:
    """[N] whether TopK alone keeps the latent from being charged; below tau < 0 a dropped one is charged."""
    return np.asarray((side.pre > tau) & (side.z == 0) & ~(side.z > tau))


def crowding_out(latent: int, tau: float, before: BeforeTopK, after: BeforeTopK) -> Finding:
    """Compares the share of answers in which TopK alone keeps the latent from being charged.

    Args:
        latent: the penalised one.
        tau: its threshold.
        before: in the untrained policy's answers.
        after: in the policy's answers.
    """
    first, last = (crowded(side, tau) for side in (before, after))
    share, was = float(last.mean()), float(first.mean())
    return Finding(
        check="crowding-out",
        latent=latent,
        value=share,
        further={
            "before": was,
            "pre_before": float(before.pre.mean()),
            "pre": float(after.pre.mean()),
            "rank_before": float(np.median(before.rank)),
            "rank": float(np.median(after.rank)),
        },
        fires=share >= LEAST_SHARE and share_grew(first, last),
        text=f"in {share:.1%} of the answers latent {latent} is above tau before TopK and pushed out by "
        f"others ({was:.1%} before training), so it escapes the penalty: penalise the latents that grew (see "
        "the ledger), or add a human-KL term",
    )
