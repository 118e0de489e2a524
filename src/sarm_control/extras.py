"""Packages of the extras, imported where they are used."""

import importlib
import warnings
from typing import Any

from sarm_control.errors import MissingExtraError


def import_extra(module: str, extra: str, *, needed: str, otherwise: str = "") -> Any:
    """A module that comes with an extra.

    Args:
        module: its name, such as `ray.data`.
        extra: that brings it.
        needed: what needs it, as the beginning of a sentence: "a reward deployment needs Ray Serve".
        otherwise: a way without it, for the hint.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        # Such packages pull in libraries that warn on import about themselves, not about us.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{needed}, which cannot be imported: {error}",
            hint=f'pip install "sarm-control[{extra}]"' + otherwise,
        ) from error
