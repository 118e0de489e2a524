"""Imports packages of the extras where they are used; Ray is imported without telemetry."""

import importlib
import os
import warnings
from typing import Any

from sarm_control.errors import MissingExtraError


def install(extra: str, *, upgrade: bool = False) -> str:
    """The command that installs an extra, for hints; there is no release, so it is typed in the clone.

    Args:
        extra: its name.
        upgrade: whether older packages are there already.
    """
    return f'pip install {"--upgrade " if upgrade else ""}".[{extra}]" in the clone'


def import_extra(module: str, extra: str, *, needed: str, otherwise: str = "") -> Any:
    """A module that comes with an extra.

    Args:
        module: its name, such as `ray.data`.
        extra: the extra that installs it.
        needed: what needs it, as the start of a sentence: "a reward deployment needs Ray Serve".
        otherwise: a way to do without it, for the hint.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        # Such packages import libraries that warn about themselves; their users can do nothing about that.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{needed}, which cannot be imported: {error}",
            hint=install(extra) + otherwise,
        ) from error


_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry unless the user asks for it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; without it Ray warns
}


def import_ray(part: str, *, needed: str, otherwise: str = "") -> Any:
    """A part of Ray, such as `ray.data`; see `import_extra`.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    return import_extra(part, "ray", needed=needed, otherwise=otherwise)
