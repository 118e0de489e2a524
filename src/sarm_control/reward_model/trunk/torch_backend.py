"""Where bfloat16 is worth having, and float32 products at its speed where hardware and factors allow it.

Weights in memory of their own, where torch would have put them.

A weight read from a safetensors file may stay a view of the mapped file, at whatever address the file's
header leaves it. Matrix kernels take another path on such addresses and round differently, so that the
same weights would give other last bits in another file; and a file that is written over would change the
weights of a running program without a word, or kill it where the file gets shorter.

Devices by their names, and an error in words for those that are not here.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sarm_control.errors import ConfigError


@contextlib.contextmanager
def rounded_factors(enabled: bool = True) -> Iterator[None]:
    """Inside, float32 matrix products may round their factors, never their sums.

    Processors with bfloat16 matrix units (AMX, AVX-512) are then faster; GPUs use TF32.
    Others compute as before. Weights, sums and everything else stay float32.
    """
    with _fp32_precision(cpu="bf16", cuda="tf32") if enabled else contextlib.nullcontext():
        yield


def whole_factors() -> contextlib.AbstractContextManager[None]:
    """Inside, float32 matrix products keep their factors, whatever `rounded_factors` around it says.

    On a processor with bfloat16 but without matrix units rounding makes fused attention of a few rows slower.
    """
    return _fp32_precision(cpu="ieee", cuda="ieee")


@contextlib.contextmanager
def _fp32_precision(*, cpu: str, cuda: str) -> Iterator[None]:
    # Both attributes are missing from torch's own annotations, and older releases lack the setting.
    backends: list[Any] = [torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    changed = [backend for backend in backends if hasattr(backend, "fp32_precision")]
    before = [backend.fp32_precision for backend in changed]
    for backend in changed:
        backend.fp32_precision = cuda if backend is torch.backends.cuda.matmul else cpu
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


Module = TypeVar("Module", bound=nn.Module)

_BYTES = 64
"""What torch aligns its own memory to."""


def has_tiles() -> bool:
    """Whether this processor multiplies half-precision matrices in tiles (AMX), where torch can tell."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported()) if supported is not None else False


def with_own_memory(model: Module, views: Iterable[Tensor] | None = None) -> Module:
    """The model, each weight and buffer that is no memory of its own copied in place of the one it had.

    Args:
        model: its tensors on other devices than the processor stay.
        views: what was read from files and may still be views of them; None takes all tensors for views.
    """
    files = None if views is None else {view.untyped_storage().data_ptr() for view in views}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and (
            files is None or tensor.data_ptr() % _BYTES or tensor.untyped_storage().data_ptr() in files
        ):
            tensor.data = tensor.data.clone()
    return model


def usable_device(device: str | torch.device | None) -> str | torch.device:
    """The device that was asked for; by default a GPU when there is one. "auto" stays as it is.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    if device == "auto":
        return "auto"
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    # without its GPU parts torch fails by an assertion
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"there is no device {str(device)!r} here", hint=f"this machine has {', '.join(_here())}"
        ) from error
    return device


def _here() -> list[str]:
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
