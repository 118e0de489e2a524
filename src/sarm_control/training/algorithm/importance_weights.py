"""Importance weights, for samplers whose log-probabilities differ from the training pass's.

A sampler with other kernels, another precision or older weights draws answers from a distribution `q` that
is not that of the policy `p`. Multiplying a token's advantage by `p / q` corrects the gradient for that
token. A cap on the weight keeps a rare token from dominating the update. The prefix of a token is not
reweighted, so for answers of more than one token the correction is approximate.

Shapes: `N` answers, `T` tokens of the longest answer.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Mismatch(NamedTuple):
    """A sampler's log-probabilities compared with ours.

    Args:
        weights: [N, T] `min(p / q, cap)`, 1 in padding.
        metrics: mean and largest `|log p - log q|`, the estimate of KL(q || p) in nats per token, and the
            mean weight.
    """

    weights: Float[Tensor, "N T"]
    metrics: Mapping[str, float]


def sampler_mismatch(
    ours: Float[Tensor, "N T"],
    theirs: Sequence[Sequence[float]],
    mask: Bool[Tensor, "N T"],
    cap: float | None,
) -> Mismatch:
    """Compares both log-probabilities on the tokens that were drawn.

    Args:
        ours: [N, T] log-probabilities by the training pass, 0 in padding.
        theirs: the sampler's: N rows, one number for each token of the answer.
        mask: [N, T] bool, true on answer tokens.
        cap: the largest weight; None leaves every weight at 1.
    """
    # a boolean mask is filled row by row, which is the order of the sampler's lists
    drawn = torch.zeros(ours.shape)
    drawn[mask] = torch.tensor([value for row in theirs for value in row], dtype=ours.dtype)
    log_ratio = torch.where(mask, ours - drawn, 0.0)
    weights = torch.ones_like(ours) if cap is None else log_ratio.exp().clamp(max=cap)
    tokens = log_ratio[mask]
    # sampler_kl is the k3 estimate of KL(q || p): exp(d) - 1 - d with d = log p - log q on samples of q;
    # it is never negative and varies less than the mean of -d
    metrics = {
        "rollout/logprob_mismatch": float(tokens.abs().mean()),
        "rollout/logprob_mismatch_max": float(tokens.abs().max()),
        "rollout/sampler_kl": float((torch.expm1(tokens) - tokens).mean()),
        "rollout/importance_weight": float(weights[mask].mean()),
    }
    return Mismatch(weights, metrics)
