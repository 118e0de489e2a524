"""Names of a room that load on first use: importing a room loads neither torch nor its other files."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attributes_of(room: str, home_of: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package that re-exports names of its modules (PEP 562).

    Args:
        room: the package's `__name__`.
        home_of: for each name the module it lives in, relative to the package.

    Returns:
        A function that imports the module of a name, keeps the value in the package and returns it;
        it raises AttributeError for other names.
    """

    def attribute(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{room}.{home_of[name]}"), name)
        setattr(sys.modules[room], name, value)
        return value

    return attribute
