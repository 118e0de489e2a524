"""How far a sampler's log-probabilities are from the training pass's, and the weights that make up for it.

A sampler of other kernels, another precision or older weights draws answers from another distribution `q`
than the policy `p` that is trained. Weighing a token by `p / q` corrects the gradient for the token drawn;
held at a cap, no token counts for much more than it should. The prefix is taken as it was drawn, so for
answers of more than one token the correction is not exact.

Shapes: `N` answers, `T` tokens of the longest answer.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Mismatch(NamedTuple):
    """What a sampler's log-probabilities come to.

    Args:
        weights: [N, T] `min(p / q, cap)`, 1 in padding.
        metrics: mean and largest `|log p - log q|`, the estimate of KL(q || p) in nats per token, and the
            mean weight.
    """

    weights: Tensor
    metrics: Mapping[str, float]


def sampler_mismatch(
    ours: Tensor, theirs: Sequence[Sequence[float]], mask: Tensor, cap: float | None
) -> Mismatch:
    """Compares the two on the tokens that were drawn.

    Args:
        ours: [N, T] log-probabilities by the training pass, 0 in padding.
        theirs: [N] a sampler's, one for each token of each answer.
        mask: [N, T] true on answer tokens.
        cap: the largest weight; None leaves every weight at 1.
    """
    drawn = torch.zeros(ours.shape)
    drawn[mask] = torch.tensor([value for row in theirs for value in row], dtype=ours.dtype)
    log_ratio = torch.where(mask, ours - drawn, 0.0)
    weights = torch.ones_like(ours) if cap is None else log_ratio.exp().clamp(max=cap)
    tokens = log_ratio[mask]
    metrics = {
        "rollout/logprob_mismatch": float(tokens.abs().mean()),
        "rollout/logprob_mismatch_max": float(tokens.abs().max()),
        "rollout/sampler_kl": float((torch.expm1(tokens) - tokens).mean()),
        "rollout/importance_weight": float(weights[mask].mean()),
    }
    return Mismatch(weights, metrics)
