"""Weights in memory of their own, where torch would have put them.

A weight read from a safetensors file may stay a view of the mapped file, at whatever address the file's
header leaves it. Matrix kernels take another path on such addresses and round differently, so that the
same weights would give other last bits in another file; and a file that is replaced would pull the
weights from under a running program.
"""

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)

_BYTES = 64
"""What torch aligns its own memory to."""


def with_own_memory(model: Module) -> Module:
    """The model, each of its misaligned weights and buffers copied in place of the one it had."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _BYTES:
            tensor.data = tensor.data.clone()
    return model
