"""Names of a room that load on first use: importing a room loads neither torch nor its other files."""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def of_later_room(room: str, name: str) -> Any:
    """What a room gives that comes after the caller's, imported when it is called.

    For methods that only show: they stand where users look for them, and their work is done in a room that
    knows more. `tests/test_house.py` lists all of them.

    Args:
        room: such as `explorer`.
        name: one that its door exports.
    """
    return getattr(importlib.import_module(f"sarm_control.{room}"), name)


def attributes_of(
    room: str, home_of: Mapping[str, str], renamed: Mapping[str, str] = _NONE
) -> Callable[[str], Any]:
    """The `__getattr__` of a package that re-exports names of its modules (PEP 562).

    Args:
        room: the package's `__name__`.
        home_of: for each name the module it lives in, relative to the package.
        renamed: former names of the package and what they are called now. A former name still gives its
            object, with a FutureWarning that says the new name.

    Returns:
        A function that imports the module of a name, keeps the value in the package and returns it;
        it raises AttributeError for other names.
    """

    def attribute(name: str) -> Any:
        if name in renamed:
            # not kept in the package: every use of the old name has to warn
            warnings.warn(f"{room}.{name} is now {room}.{renamed[name]}", FutureWarning, stacklevel=2)
            return getattr(sys.modules[room], renamed[name])
        if name not in home_of:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{room}.{home_of[name]}"), name)
        setattr(sys.modules[room], name, value)
        return value

    return attribute
