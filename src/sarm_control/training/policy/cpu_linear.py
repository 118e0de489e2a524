"""Matrix products of a few rows with a large float32 weight on a CPU, as in decoding.

For one product of a few rows MKL uses one thread and leaves the others idle. For a batch of small products,
each of the rows with one block of the weight, it uses all threads. Only the result is copied.

Shapes: `M` rows (tokens), `K` inputs, `N` outputs.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

# With more rows the plain product uses all threads.
_MOST_ROWS = 64
# Fastest first.
_BLOCKS = (96, 48, 64, 32)


def blocked_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., K] times the transpose of [N, K], plus [N]: `torch.nn.functional.linear` within rounding."""
    flat, block = x.reshape(-1, x.shape[-1]), block_size(x, weight)
    if not block:
        return nn.functional.linear(x, weight, bias)
    # views only: the weight is read in place
    parts = weight.view(-1, block, weight.shape[1]).transpose(1, 2)
    # [N / block, M, K] by [N / block, K, block]
    product = torch.bmm(flat.expand(len(parts), *flat.shape), parts)
    out = product.transpose(0, 1).reshape(*x.shape[:-1], -1)
    return out if bias is None else out.add_(bias)


@contextlib.contextmanager
def blocked_products(layers: Sequence[nn.Linear]) -> Iterator[None]:
    """Inside the block, the layers compute `blocked_linear`; for passes without gradients."""
    # A layer with a forward of its own is hooked by another library and is left alone.
    changed = [layer for layer in layers if type(layer) is nn.Linear and "forward" not in vars(layer)]
    for layer in changed:
        vars(layer)["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in changed:
            del vars(layer)["forward"]


def block_size(x: Tensor, weight: Tensor) -> int:
    """Rows of the weight in a block; 0 where the plain product is the better one."""
    rows, outputs = x.numel() // x.shape[-1], len(weight)
    suitable = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if not suitable or not 0 < rows <= _MOST_ROWS or not weight.is_contiguous():
        return 0
    if not torch.backends.mkl.is_available():
        return 0
    threads = torch.get_num_threads()
    # at least one block for each thread, else some threads idle all the same
    return next((size for size in _BLOCKS if outputs % size == 0 and outputs // size >= threads), 0)


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return blocked_linear(x, layer.weight, layer.bias)
