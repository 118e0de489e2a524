"""Dictionaries with other activations than TopK, such as somebody else trained, often before the final norm.

Ours are such where k is an average: a latent is then active above a threshold.

With `h` the state before an RMS norm with factors `g`, the state that the head reads is `x = g h / rho`,
where `rho = sqrt(mean(h^2) + eps)` is the row's own. So a dictionary of `h` gives an exact sum too:

    h = m + s (b + sum_i z_i d_i) + e
    r = sum_i (z_i / rho) s ((g w) . d_i)  +  (1 / rho) (g w) . (m + s b)  +  c  +  (g w) . e / rho

The latents' values are `z_i / rho`, their weights are constants. What the dictionary's own offset gives goes
with `1 / rho`: it is a latent of its own, the last one, which is always active.

Shapes: `B` answers, `D` hidden size, `L` latents, the offset among them.
"""

import copy
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from sarm_control.errors import ModelError
from sarm_control.reward_model.attached import AttachedAutoencoder, LatentWeights
from sarm_control.reward_model.autoencoder import TopK
from sarm_control.reward_model.sparse import SparseLatents
from sarm_control.reward_model.state_head import StateHead
from sarm_control.reward_model.trunk.trunk import Trunk

Activation: TypeAlias = Literal["topk", "relu", "jumprelu"]
"""The k largest with their sign; what is above 0; what is above a threshold of the latent's own."""


class ReadyMadeAutoencoder(AttachedAutoencoder):
    """A dictionary with any of the usual activations, of the state behind the final norm or before it.

    Args:
        mean: [D] float32, `m`.
        scale: `s`, above 0.
        latents: L; before the norm with the offset, whose row of the encoder and column of the decoder are
            the last (see `fold_norm`).
        k: latents kept by TopK; otherwise 0.
        activation: which latents are active.
        norm_epsilon: `eps` of the norm that comes behind the states; None where they are behind it.

    Raises:
        ModelError: see `AttachedAutoencoder`.
    """

    threshold: Tensor

    def __init__(
        self,
        mean: Tensor,
        scale: float,
        latents: int,
        k: int,
        *,
        activation: Activation,
        norm_epsilon: float | None = None,
    ) -> None:
        super().__init__(mean, scale, latents, k, use_topk=activation == "topk")
        self.activation = activation
        self.norm_epsilon = norm_epsilon
        self.register_buffer("threshold", torch.zeros(latents))

    @property
    def before_norm(self) -> bool:
        """Whether the states come in two halves, [..., 2 D]: behind the norm, and before it."""
        return self.norm_epsilon is not None

    def normalised(self, states: Tensor) -> Tensor:
        """[..., D] `(x - m) / s` of the half that is encoded."""
        return super().normalised(self._own_half(states))

    def as_states(self, normalised: Tensor) -> Tensor:
        """The way back; there is none from a state before the norm, whose other half is gone.

        Raises:
            ModelError: the dictionary is of states before the norm.
        """
        if self.before_norm:
            raise ModelError(
                "level 3 of evidence is not measured on a dictionary of the state before the final norm",
                hint="ask for the other levels with --levels",
            )
        return super().as_states(normalised)

    def pre_activations(self, states: Tensor) -> Tensor:
        """[B, L] in the units of the latents' values; that of the offset is never among the largest."""
        found = super().pre_activations(states)
        if self.before_norm:
            found = found * self._inverse_rms(states)
            found[:, -1] = -torch.inf
        return found

    def encode(self, states: Tensor) -> TopK:
        """[B, ...] states to the active latents; rows with fewer than others hold zeros."""
        found = super().pre_activations(states)
        own = found[:, :-1] if self.before_norm else found
        if self.activation == "topk":
            kept = own.topk(self.k, dim=-1)
        else:
            limit = self.threshold[: own.shape[1]]
            active = torch.where(own > limit, own, torch.zeros_like(own)).clamp(min=0)
            # as many columns as the fullest row has active latents; the others are filled up with zeros,
            # which `varying_latents` drops again
            kept = active.topk(max(1, int((active > 0).sum(dim=-1).max())), dim=-1)
        # ascending, as sparse rows are kept
        order = kept.indices.argsort(dim=-1)
        indices, values = kept.indices.gather(-1, order), kept.values.gather(-1, order)
        if self.before_norm:
            inverse = self._inverse_rms(states)
            # the last index, so rows stay ascending; its value is 1 / rho, by which mean and bias are scaled
            offset = torch.full_like(indices[:, :1], found.shape[1] - 1)
            indices, values = torch.cat([indices, offset], -1), torch.cat([values * inverse, inverse], -1)
        return TopK(indices, values)

    def reconstruct(self, kept: Any) -> Tensor:
        """[B, D] the state behind the norm."""
        if not self.before_norm:
            return super().reconstruct(kept)
        # mean and bias are in the offset's column (`fold_norm`), so the bias that `decode` adds is taken off
        return self.scale * (self.decode(kept) - self.pre_bias)

    def latent_weights(self, head: StateHead) -> LatentWeights:
        """See `AttachedAutoencoder`; before the norm the constant is the head's bias alone."""
        found = super().latent_weights(head)
        return found._replace(constant=head.bias) if self.before_norm else found

    @torch.no_grad()
    def fold_norm(self, factors: Tensor) -> None:
        """Makes decoder columns directions of the state behind the norm, and the last one the offset's.

        Args:
            factors: [D] `g`.
        """
        self.decoder.weight.mul_(factors[:, None])
        self.decoder.weight[:, -1] = factors * (self.mean / self.scale + self.pre_bias)
        # never read, but part of the fingerprint: zeros, whatever stood there
        self.encoder.weight[-1] = 0.0
        self.latent_bias[-1] = 0.0

    def _own_half(self, states: Tensor) -> Tensor:
        return states[..., len(self.mean) :] if self.before_norm else states

    def _inverse_rms(self, states: Tensor) -> Tensor:
        """[B, 1] `1 / rho`."""
        own = self._own_half(states.float())
        return (own.square().mean(dim=-1, keepdim=True) + (self.norm_epsilon or 0.0)).rsqrt()


class BothSides(nn.Module):
    """A final norm that gives a state behind it and the state before it, [..., D] to [..., 2 D].

    Args:
        norm: the reward model's own.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, states: Tensor) -> Tensor:
        """The first half is what the norm alone gives, to the bit."""
        return torch.cat([self.norm(states), states], dim=-1)


def state_width(trunk: Trunk) -> int:
    """Numbers of a state that `trunk.states_at` gives: D, or 2 D."""
    return trunk.hidden_size * (2 if isinstance(trunk.final_norm, BothSides) else 1)


def trunk_for(made: AttachedAutoencoder, trunk: Trunk) -> Trunk:
    """The trunk whose states a dictionary takes: itself, or one that gives those before the norm too."""
    if not (isinstance(made, ReadyMadeAutoencoder) and made.before_norm):
        return trunk
    other = copy.copy(trunk)
    # a copy of a module shares its table of parts, which is changed here
    other._modules = dict(trunk._modules)
    assert trunk.final_norm is not None
    other.final_norm = BothSides(trunk.final_norm)
    return other


def varying_latents(made: ReadyMadeAutoencoder, states: Tensor, chunk: int) -> SparseLatents:
    """Latents of N states, rows of as many as are active; at most [chunk, L] pre-activations at once."""
    parts = []
    for part in states.split(chunk):
        kept = made.encode(part.to(made.pre_bias.device))
        indices, values = kept.indices.int().cpu().numpy(), kept.values.float().cpu().numpy()
        equal = SparseLatents.of_equal_rows(indices, values, made.encoder.out_features)
        parts.append(equal if made.use_topk else equal.without_zeros())
    return SparseLatents.concatenate(parts)


class RmsNorm:
    """Factors and epsilon of a final norm, whatever its class calls them.

    Args:
        norm: of a reward model.
        size: D.

    Raises:
        ModelError: it is no RMS norm.
    """

    @torch.no_grad()
    def __init__(self, norm: nn.Module, size: int) -> None:
        epsilon = next(
            (getattr(norm, key) for key in ("variance_epsilon", "eps") if hasattr(norm, key)), None
        )
        # its mean is not 0: a norm that takes the mean off is told apart by it
        probe = torch.linspace(-1.0, 2.0, size).to(next(norm.parameters()))
        if epsilon is None:
            raise self._other(norm)
        self.epsilon = float(epsilon)
        # a norm of the row of ones is its factors (1 + weight in Gemma), but for epsilon
        self.factors: Tensor = norm(torch.ones_like(probe)[None])[0].cpu() * (1 + self.epsilon) ** 0.5
        expected = self.factors * probe.cpu() / (probe.cpu().square().mean() + self.epsilon).sqrt()
        if not torch.allclose(norm(probe[None])[0].cpu(), expected, atol=1e-4, rtol=1e-3):
            raise self._other(norm)

    @staticmethod
    def _other(norm: nn.Module) -> ModelError:
        return ModelError(
            f"the final norm is a {type(norm).__name__}, no RMS norm: a dictionary of the state before it "
            "has no constant weights",
            hint="attach a dictionary of the state behind the norm, for instance a trained one",
        )
