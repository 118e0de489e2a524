"""Decoder layers sharded by PyTorch's FSDP2 (`fully_shard`): each process holds a part of each layer.

In the update a layer is gathered when it is computed and released afterwards. Gathering waits for all
processes, so all must do the same number of passes there. A rollout and the log-probabilities after it make
hundreds of passes over weights that do not change: for them all layers are gathered once (`whole`), and
inside, each process may do as many passes as it needs.

Embeddings, the head, LoRA adapters and critics stay whole in every process. A weight that is trained and
sharded has sharded gradients and AdamW moments; all others are whole.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sarm_control.errors import ModelError
from sarm_control.training.distributed.processes import Processes

if TYPE_CHECKING:
    from torch import Tensor, nn


class Sharding:
    """The sharded decoder layers of a policy, and of its reference where that is a model of its own.

    Args:
        models: causal language models, changed in place before an optimizer is made for their weights.
        reshard: release a layer after its forward pass, and gather it again for the backward pass.

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
            # adapters are small, and their sums are taken by `Processes.all_reduce_gradients`
            fully_shard(layer, reshard_after_forward=reshard, ignored_params=adapters)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Gathers all layers once, for passes without gradients; inside another `whole` nothing is sent."""
        self._depth += 1
        if self._depth == 1:
            for layer in self.layers:
                # otherwise the first forward pass would release what `unshard` gathers
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
    """Whether this process holds only a part of the tensor."""
    return hasattr(tensor, "full_tensor")


def whole_tensor(tensor: "Tensor") -> "Tensor":
    """The whole tensor; a sharded one is gathered, in which all processes must take part."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def parted_like(tensor: "Tensor", other: "Tensor") -> "Tensor":
    """This process's part of a whole tensor, if `other` is sharded; nothing is sent."""
    tensor = tensor.to(other.device)
    if not in_parts(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = other
    # src_data_rank=None: every process has the same whole tensor, so none has to send it
    part: Tensor = distribute_tensor(tensor, sharded.device_mesh, sharded.placements, src_data_rank=None)
    return part


def clip_gradients(weights: "Sequence[Tensor]", limit: float, processes: Processes) -> float:
    """Scales gradients, some of them sharded, down to the norm `limit`; returns the norm before.

    Only the sharded gradients are summed over the processes: a whole one is the same in each, and would be
    counted once for every process.
    """
    import torch

    grads = [weight.grad for weight in weights if weight.grad is not None]
    # [2] of sharded gradients and of whole ones; in a large float32 sum a small square would be lost
    squares = torch.zeros(2, dtype=torch.float64)
    for grad in grads:
        sharded: Any = grad
        local = sharded.to_local() if in_parts(grad) else grad
        squares[0 if in_parts(grad) else 1] += local.double().square().sum().cpu()
    parts = squares[:1]
    processes.all_reduce([parts])
    norm = float((parts[0] + squares[1]).sqrt())
    for grad in grads:
        # 1e-6 as in PyTorch's clip_grad_norm_, so that runs with and without sharding clip alike
        grad.mul_(min(1.0, limit / (norm + 1e-6)))
    return norm


def _decoder_layers(model: Any) -> "list[nn.Module]":
    for name in ("layers", "h"):
        found = getattr(model.base_model, name, None)
        if found is not None:
            return list(found)
    raise ModelError(
        f"{type(model).__name__} has no list of layers that could be sharded",
        hint="launch without FSDP",
    )
