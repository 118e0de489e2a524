"""Matrix products with weights that were laid out for them once, as in decoding on a CPU.

A product of a few rows reads the whole weight for little arithmetic, and PyTorch's own product reads it in
the layout of a table. oneDNN has faster kernels for a layout of its own, in blocks as wide as a register
(`packing` in benchmarks/rollout.py). To lay a weight out takes as long as some products, so it pays where a
weight is used for many tokens. The operations are those of PyTorch's compiler, inductor.

Shapes: `K` inputs, `N` outputs.
"""

import contextlib
import platform
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn


def can_pack() -> bool:
    """Whether this processor and this build of PyTorch have products with packed weights."""
    # elsewhere oneDNN stands for other libraries, and nobody measured them
    known = platform.machine().lower() in ("x86_64", "amd64")
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return known and torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, n) for n in names)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a product and nothing else: one that another library hooked is left alone."""
    return type(layer) is nn.Linear and "forward" not in vars(layer)


@contextlib.contextmanager
def packed_products(layers: Sequence[nn.Linear], weight_of: Callable[[nn.Linear], Tensor]) -> Iterator[None]:
    """Inside the block layers multiply in float32 with packed weights; for passes without gradients.

    Args:
        layers: plain ones.
        weight_of: the [N, K] float32 weight that a layer is to multiply with. It is not kept.
    """
    try:
        for layer in layers:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight_of(layer).contiguous())
            bias = None if layer.bias is None else layer.bias.detach().float()
            vars(layer)["forward"] = partial(_product, packed, bias)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _product(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x.float(), packed, bias, "none", [], "")
    return found
