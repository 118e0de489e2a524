"""Ray, imported without telemetry."""

import os
from typing import Any

from sarm_control.extras import import_extra

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry unless the user asks for it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the behaviour to come; unset, Ray warns
}


def import_ray(part: str, *, needed: str, otherwise: str = "") -> Any:
    """A part of Ray, such as `ray.data`; see `import_extra`.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    return import_extra(part, "ray", needed=needed, otherwise=otherwise)
