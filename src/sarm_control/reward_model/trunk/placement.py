"""Where a trunk lies and in which type, checked before it is loaded."""

import torch

from sarm_control.errors import ModelError


def dtype_of(dtype: torch.dtype | str | None) -> torch.dtype | str:
    """The type of a trunk's weights as transformers takes it; None is "auto", the checkpoint's.

    Raises:
        ModelError: no floating-point type has that name.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype or "auto"
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"unknown dtype {dtype}", hint="use float32, bfloat16 or float16")
    return found


def check_placement(device: str | None, dtype: str | None) -> None:
    """Refuses a device that this machine does not have, or a type that does not exist.

    Args:
        device: as typed; None and "auto" are found when they are needed.
        dtype: as typed; None is the checkpoint's.

    Raises:
        ModelError: naming it.
    """
    dtype_of(dtype)
    if device in (None, "auto"):
        return
    try:
        # torch has no function that asks: an empty tensor is made there
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no such device"
        raise ModelError(
            f"device {device} cannot be used: {reason}", hint="use cpu, cuda, cuda:1 or auto"
        ) from error
