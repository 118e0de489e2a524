"""The TopK autoencoder, in the normalisation of the paper (arXiv 2508.08746).

Shapes: `B` answers, `D` hidden size, `L` latents, `K` kept latents.

    x = (h - mean(h)) / (std(h) + 1e-6)      std unbiased
    a = W_enc (x - b_pre) + b_lat
    z = the K largest a kept in place, the others 0, no ReLU; without TopK z = a
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sarm_control.reward_model.files.stored_decoder import COLUMNS, Columns, StoredDecoder

NORMALISATION_EPSILON = 1e-6
DECODER = "decoder.weight"
BLOCK = 1 << 21
"""Weights of a half-precision encoder that are widened at once: 8 MiB of float32, on a GPU 32 times that."""
_Own = TypeVar("_Own", bound="Autoencoder")


class TopK(NamedTuple):
    """Kept latents: `indices` [B, K] int64 ascending in each row, `values` [B, K]."""

    indices: Tensor
    values: Tensor


def normalise(states: Tensor) -> Tensor:
    """Z-scores each state over its last dimension; [..., D] in, [..., D] out."""
    centred = states - states.mean(dim=-1, keepdim=True)
    return centred / (states.std(dim=-1, keepdim=True, unbiased=True) + NORMALISATION_EPSILON)


class Autoencoder(nn.Module):
    """Encoder and decoder, whose products are of float32 whatever the trunk's dtype.

    A large encoder may be held in half precision, see `hold_encoder`. It is widened part by part while it is
    multiplied: products and sums are of float32 then too.

    Scoring needs no decoder. Of a model that was loaded it stays in the file until `decoder` is asked for,
    which reads it and keeps it; `state_dict` has it too, and does not keep it. `parameters` lacks it until
    then.

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
        self._left: StoredDecoder | None = None
        self.pre_bias = nn.Parameter(torch.zeros(hidden_size))
        self.latent_bias = nn.Parameter(torch.zeros(latents))
        self.encoder = nn.Linear(hidden_size, latents, bias=False)
        self.decoder = nn.Linear(latents, hidden_size, bias=False)

    def leave_decoder(self, stored: StoredDecoder) -> None:
        """Drops the decoder: it is the one that is stored, and read from there when it is asked for.

        Raises:
            ValueError: it is of another shape.
        """
        wanted = (self.encoder.in_features, self.encoder.out_features)
        if stored.shape != wanted:
            raise ValueError(f"{DECODER} is {list(stored.shape)}, expected {list(wanted)}")
        del self.decoder
        self._left = stored

    def __getattr__(self, name: str) -> Any:
        """Reads a decoder that was left in its file, once.

        Raises:
            ModelError: the file is gone or changed.
        """
        stored = self.__dict__.get("_left") if name == "decoder" else None
        if stored is None:
            return super().__getattr__(name)
        # Not in inference mode, whose tensors can never be trained outside it. On meta, since nn.Linear would
        # fill a gigabyte with random numbers (D = 4096, L = 65536) that the next line throws away.
        with torch.inference_mode(False), torch.device("meta"):
            made = nn.Linear(self.encoder.out_features, self.encoder.in_features, bias=False)
        made.weight = nn.Parameter(stored.whole().to(self.pre_bias), requires_grad=False)
        # The module first: who looks from another thread in between reads it a second time and harms nothing.
        self.decoder = made.train(self.training)
        self._left = None
        return made

    def decoder_columns(self) -> Iterator[Columns]:
        """The decoder by blocks of its columns, without keeping one that was left in its file.

        Raises:
            ModelError: see `StoredDecoder.columns`.
        """
        stored = self._left
        if stored is not None:
            yield from stored.columns()
            return
        weight = self.decoder.weight.detach()
        for start in range(0, weight.shape[1], COLUMNS):
            places = slice(start, min(start + COLUMNS, weight.shape[1]))
            yield Columns(places, weight[:, places])

    def encoding_state(self) -> dict[str, Tensor]:
        """What decides the latents: `state_dict` without the decoder, which is not read."""
        return {key: value for key, value in super().state_dict().items() if key != DECODER}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of every module, with a decoder that was left in its file.

        Raises:
            ModelError: the file is gone or changed.
        """
        stored, found = self._left, super().state_dict(*args, **kwargs)
        if stored is not None:
            found[kwargs.get("prefix", "") + DECODER] = stored.whole().to(self.pre_bias)
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As of every module; a decoder among the tensors takes the place of one left in its file."""
        if DECODER in state_dict:
            _ = self.decoder
        return super().load_state_dict(state_dict, strict, assign)

    def requires_grad_(self: _Own, requires_grad: bool = True) -> _Own:
        """As of every module; a decoder that is to be trained has to be in memory."""
        if requires_grad:
            _ = self.decoder
        return super().requires_grad_(requires_grad)

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
        # float32 whatever the trunk's type: in bfloat16 neighbours in rank would tie, and which of them TopK
        # keeps would depend on the kernel
        centred = self.normalised(states.float()) - self.pre_bias
        weight = self.encoder.weight
        if weight.dtype == torch.float32:
            activations: Tensor = self.encoder(centred) + self.latent_bias
            return activations
        activations = centred.new_empty(*centred.shape[:-1], len(weight))
        rows = max(1, (BLOCK if weight.device.type == "cpu" else 32 * BLOCK) // weight.shape[1])
        for start in range(0, len(weight), rows):
            part = slice(start, start + rows)
            bias = self.latent_bias[part]
            activations[..., part] = nn.functional.linear(centred, weight[part].float(), bias)
        return activations

    def hold_encoder(self, kind: torch.dtype) -> None:
        """Holds the encoder's weights in another type from now on, rounded to it."""
        narrow = self.encoder.weight.detach().to(kind)
        self.encoder.weight = nn.Parameter(narrow, requires_grad=False)

    def encode(self, states: Tensor) -> TopK:
        """[B, D] trunk states to the kept latents; all L of them without TopK."""
        activations = self.pre_activations(states)
        if not self.use_topk:
            everything = torch.arange(activations.shape[-1], device=activations.device)
            return TopK(everything.expand_as(activations), activations)
        kept = activations.topk(self.k, dim=-1)
        # topk orders by value; sparse rows are stored by index
        order = kept.indices.argsort(dim=-1)
        return TopK(kept.indices.gather(-1, order), kept.values.gather(-1, order))

    def decode(self, kept: TopK) -> Tensor:
        """Reconstructs the normalised state x, [B, D]."""
        # the directions of kept latents alone, [B, K, D], and no product with the whole decoder
        rows = nn.functional.embedding(kept.indices, self.decoder.weight.T)
        return (rows * kept.values.unsqueeze(-1)).sum(dim=-2) + self.pre_bias
