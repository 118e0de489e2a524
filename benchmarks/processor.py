"""What the machine's processor is called and can do, for the record of a measurement (Linux)."""

import platform
from pathlib import Path
from typing import Any

WIDE = ("avx", "fma", "sse4", "amx")
"""Beginnings of the flags that change how fast, and in which order, products are summed."""


def processor() -> dict[str, Any]:
    """Its name and its flags for wide arithmetic."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = [one for one in fields.get("flags", "").split() if one.startswith(WIDE)]
    return {"processor": fields.get("model name", platform.machine()), "flags": flags}
