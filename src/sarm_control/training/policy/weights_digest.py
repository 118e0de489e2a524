"""A short digest of a model's weights, to notice when another model was put in its place."""

import hashlib
from typing import TYPE_CHECKING

from sarm_control.training.policy.sharding import whole_tensor

if TYPE_CHECKING:
    from torch import Tensor, nn

_VALUES = 1024


def weights_digest(*modules: "nn.Module") -> str:
    """16 hex digits, which differ for models of other weights.

    Names, shapes and up to 1,024 values of every tensor are read, rounded to bfloat16, so a model has the
    same digest on another device or in another precision. A change of a few values in a large tensor can go
    unnoticed: this guards against mistakes, not against intent. Where layers are sharded, all processes must
    call it.
    """
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(_sampled_bytes(tensor))
    return digest.hexdigest()[:16]


def _sampled_bytes(tensor: "Tensor") -> bytes:
    import torch

    # evenly spaced values, so that a change of any part of a tensor is likely to be seen
    flat = whole_tensor(tensor.detach()).reshape(-1)
    chosen = flat[:: max(1, len(flat) // _VALUES)].cpu()
    rounded = chosen.to(torch.bfloat16) if chosen.is_floating_point() else chosen.to(torch.int64)
    return bytes(rounded.contiguous().view(torch.uint8).numpy().tobytes())
