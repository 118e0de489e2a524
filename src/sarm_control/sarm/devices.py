"""Devices by their names, and an error in words for those that are not here."""

import torch

from sarm_control.errors import ConfigError


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
