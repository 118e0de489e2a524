"""The former place of `sarm_control.server.ray`, for one version: names are found, with a warning."""

import importlib
import warnings
from typing import Any

_PLACE = "sarm_control.server.ray"


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACE), name)
    warnings.warn(f"{__name__}.{name} is {_PLACE}.{name} now", DeprecationWarning, stacklevel=2)
    return value
