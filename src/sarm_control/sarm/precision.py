"""Where bfloat16 is worth having, and float32 products at its speed where hardware and factors allow it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def rounded_factors(enabled: bool = True) -> Iterator[None]:
    """Inside, float32 matrix products may round their factors, never their sums.

    Processors with bfloat16 matrix units (AMX, AVX-512) are then faster; GPUs use TF32.
    Others compute as before. Weights, sums and everything else stay float32.
    """
    # Both attributes are missing from torch's own annotations, and older releases lack the setting.
    backends: list[Any] = [torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    changed = [backend for backend in backends if enabled and hasattr(backend, "fp32_precision")]
    before = [backend.fp32_precision for backend in changed]
    for backend in changed:
        backend.fp32_precision = "tf32" if backend is torch.backends.cuda.matmul else "bf16"
    try:
        yield
    finally:
        for backend, value in zip(changed, before, strict=True):
            backend.fp32_precision = value


def has_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 run on units made for them.

    True for GPUs. Processors without such units go through float32 and back at every product.
    """
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
