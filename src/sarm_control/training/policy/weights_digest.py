"""Telling one model from another by its weights, in a moment and whatever they are stored as."""

import hashlib
from typing import TYPE_CHECKING

from sarm_control.training.policy.sharding import whole_tensor

if TYPE_CHECKING:
    from torch import Tensor, nn

_VALUES = 1024


def weights_digest(*modules: "nn.Module") -> str:
    """16 hex digits that differ when other weights were put in a model's place.

    Names, shapes and up to 1,024 values of every tensor are read, rounded to bfloat16, so the same model is
    the same on another device or in another precision. A change of a few values in a large tensor can go
    unnoticed: this is a guard against mistakes, not a hash. Where layers are in parts, all
    processes ask together.
    """
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(_sample(tensor))
    return digest.hexdigest()[:16]


def _sample(tensor: "Tensor") -> bytes:
    import torch

    flat = whole_tensor(tensor.detach()).reshape(-1)
    chosen = flat[:: max(1, len(flat) // _VALUES)].cpu()
    rounded = chosen.to(torch.bfloat16) if chosen.is_floating_point() else chosen.to(torch.int64)
    return bytes(rounded.contiguous().view(torch.uint8).numpy().tobytes())
