"""A policy whose decoder layers lie in parts, one in each process: PyTorch's FSDP2 (`fully_shard`).

A layer is gathered when it is computed and given back after, in the update. A rollout and the
log-probabilities after it make hundreds of passes over weights that do not change, so for them all layers
are gathered once (`whole`), and a process may do fewer passes than another, or none. In the update all have
to do the same number.

Embeddings, the head, LoRA adapters and critics stay whole in every process. Only weights that are trained
and in parts have gradients and AdamW moments in parts.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sarm_control.errors import ModelError
from sarm_control.training.distributed.processes import Processes

if TYPE_CHECKING:
    from torch import Tensor, nn


class Sharding:
    """The decoder layers of a policy, and of its reference where it has its own, in parts.

    Args:
        models: causal language models, changed in place before an optimizer is made for their weights.
        reshard: give a layer back after its forward pass, and gather it again for the backward pass.

    Raises:
        ModelError: the decoder has no list of layers.

    Attributes:
        layers: the decoder layers of all models.
    """

    def __init__(self, models: Sequence[Any], *, reshard: bool = True) -> None:
        from torch.distributed.fsdp import fully_shard

        self.layers: list[Any] = [layer for model in models for layer in _decoder_layers(model)]
        self._depth = 0
        self._reshard = reshard
        for layer in self.layers:
            adapters = {weight for name, weight in layer.named_parameters() if "lora_" in name}
            fully_shard(layer, reshard_after_forward=reshard, ignored_params=adapters)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """All layers gathered, once, for passes without gradients; inside another `whole` nothing is sent."""
        self._depth += 1
        if self._depth == 1:
            for layer in self.layers:
                layer.set_reshard_after_forward(False)
                layer.unshard()
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                for layer in self.layers:
                    layer.reshard()
                    layer.set_reshard_after_forward(self._reshard)


def in_parts(tensor: "Tensor | None") -> bool:
    """Whether this process holds a part of a tensor only."""
    return hasattr(tensor, "full_tensor")


def whole_tensor(tensor: "Tensor") -> "Tensor":
    """The tensor as one process would have it; of one in parts, by all processes together."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def parted_like(tensor: "Tensor", other: "Tensor") -> "Tensor":
    """This process's part of a whole tensor, if `other` is in parts; nothing is sent."""
    tensor = tensor.to(other.device)
    if not in_parts(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    spread: Any = other
    parted: Tensor = distribute_tensor(tensor, spread.device_mesh, spread.placements, src_data_rank=None)
    return parted


def clip_gradients(weights: "Sequence[Tensor]", limit: float, processes: Processes) -> float:
    """Scales gradients, some of them in parts, down to a norm over all processes; the norm before."""
    import torch

    grads = [weight.grad for weight in weights if weight.grad is not None]
    squares = torch.zeros(2, dtype=torch.float64)  # of parts, of whole gradients
    for grad in grads:
        here: Any = grad
        local = here.to_local() if in_parts(grad) else grad
        squares[0 if in_parts(grad) else 1] += local.double().square().sum().cpu()
    parts = squares[:1]
    processes.all_reduce([parts])
    norm = float((parts[0] + squares[1]).sqrt())
    for grad in grads:
        grad.mul_(min(1.0, limit / (norm + 1e-6)))
    return norm


def _decoder_layers(model: Any) -> "list[nn.Module]":
    for name in ("layers", "h"):
        found = getattr(model.base_model, name, None)
        if found is not None:
            return list(found)
    raise ModelError(
        f"{type(model).__name__} has no list of layers that could be put in parts",
        hint="launch without FSDP",
    )
