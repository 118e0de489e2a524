"""Ray, imported without telemetry and without its warnings about itself."""

import importlib
import os
import warnings
from typing import Any

from sarm_control.errors import MissingExtraError

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry unless the user asks for it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the behaviour to come; unset, Ray warns
}


def import_ray(part: str, *, needed: str, otherwise: str = "") -> Any:
    """A part of Ray, such as `ray.data`.

    Args:
        part: the module.
        needed: what needs it, as the beginning of a sentence: "a reward deployment needs Ray Serve".
        otherwise: a way without it, for the hint.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        # Ray and what it imports warn on import about themselves, not about us.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(part)
    except ImportError as error:
        raise MissingExtraError(
            f"{needed}, which cannot be imported: {error}",
            hint='pip install "sarm-control[ray]"' + otherwise,
        ) from error
