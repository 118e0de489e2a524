"""The TopK autoencoder, in the normalisation of the paper (arXiv 2508.08746).

Shapes: `B` answers, `D` hidden size, `L` latents, `K` kept latents.

    x = (h - mean(h)) / (std(h) + 1e-6)      std unbiased
    a = W_enc (x - b_pre) + b_lat
    z = the K largest a kept in place, the others 0, no ReLU; without TopK z = a
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

NORMALISATION_EPSILON = 1e-6


class TopK(NamedTuple):
    """Kept latents: `indices` [B, K] int64 ascending in each row, `values` [B, K]."""

    indices: Tensor
    values: Tensor


def normalise(states: Tensor) -> Tensor:
    """Z-scores each state over its last dimension; [..., D] in, [..., D] out."""
    centred = states - states.mean(dim=-1, keepdim=True)
    return centred / (states.std(dim=-1, keepdim=True, unbiased=True) + NORMALISATION_EPSILON)


class Autoencoder(nn.Module):
    """Encoder and decoder in float32, whatever the trunk's dtype.

    Args:
        hidden_size: D.
        latents: L.
        k: K; ignored when `use_topk` is false.
        use_topk: keep the K largest pre-activations, or all of them.
    """

    def __init__(self, hidden_size: int, latents: int, k: int, *, use_topk: bool = True) -> None:
        super().__init__()
        self.k = k
        self.use_topk = use_topk
        self.pre_bias = nn.Parameter(torch.zeros(hidden_size))
        self.latent_bias = nn.Parameter(torch.zeros(latents))
        self.encoder = nn.Linear(hidden_size, latents, bias=False)
        self.decoder = nn.Linear(latents, hidden_size, bias=False)

    def normalised(self, states: Tensor) -> Tensor:
        """[..., D] trunk states to what is encoded, x."""
        return normalise(states)

    def as_states(self, normalised: Tensor) -> Tensor:
        """[..., D] what was encoded, changed or not, as states that `encode` takes again.

        Z-scores of changed ones are taken anew, so these are their own states.
        """
        return normalised

    def pre_activations(self, states: Tensor) -> Tensor:
        """[B, D] trunk states to [B, L] pre-activations `a`."""
        centred = self.normalised(states.float()) - self.pre_bias
        activations: Tensor = self.encoder(centred) + self.latent_bias
        return activations

    def encode(self, states: Tensor) -> TopK:
        """[B, D] trunk states to the kept latents; all L of them without TopK."""
        activations = self.pre_activations(states)
        if not self.use_topk:
            everything = torch.arange(activations.shape[-1], device=activations.device)
            return TopK(everything.expand_as(activations), activations)
        kept = activations.topk(self.k, dim=-1)
        order = kept.indices.argsort(dim=-1)
        return TopK(kept.indices.gather(-1, order), kept.values.gather(-1, order))

    def decode(self, kept: TopK) -> Tensor:
        """Reconstructs the normalised state x, [B, D]."""
        rows = nn.functional.embedding(kept.indices, self.decoder.weight.T)
        return (rows * kept.values.unsqueeze(-1)).sum(dim=-2) + self.pre_bias
