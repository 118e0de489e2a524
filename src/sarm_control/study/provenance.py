"""Which source and which processor made a row."""

import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

WIDE = ("avx", "fma", "sse4", "amx")
"""Beginnings of the flags that change how fast, and in which order, products are summed."""


@cache
def commit() -> str | None:
    """The commit of this checkout, `+` behind it where tracked files differ; None where there is none."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = _output([*git, "rev-parse", "HEAD"])
        changed = _output([*git, "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


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
