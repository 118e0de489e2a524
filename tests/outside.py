"""Modules that stand outside the package: scripts and examples."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


def load(file: Path) -> ModuleType:
    """Imports a file with its siblings at hand, as Python does for a script; once for each name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(file.parent))
        return import_module(file.stem)
