"""What a timing is recorded with: the processor, its threads, versions, and whether other work ran beside.

How busy the processor was is taken from the machine's own counters of processor time. The load average would
count the benchmark that ran just before.
"""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sarm_control.study.provenance import processor

BUSY = 0.25
"""Cores that other programs may keep busy beside a timing that is called quiet."""
_COUNTERS = Path("/proc/stat")


def peak_while(call: Callable[[], object]) -> int:
    """Peak resident bytes while `call` runs; building the model before it does not count (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    call()
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


class Watch:
    """Looks how many cores other programs keep busy, from when it is made.

    What this process computes, and its children that have ended, is not counted. On systems without
    /proc/stat the load average stands for it.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._before = _all_seconds(), _own_seconds()

    def others(self) -> float:
        """Cores that other programs kept busy on average until now."""
        total, own = _all_seconds(), _own_seconds()
        if total is None or self._before[0] is None:
            return os.getloadavg()[0]
        taken = time.perf_counter() - self._start
        return max(0.0, (total - self._before[0] - (own - self._before[1])) / taken)

    @classmethod
    def before(cls, seconds: float = 1.0) -> float:
        """Cores that are busy now, while this process sleeps for some seconds."""
        watch = cls()
        time.sleep(seconds)
        return watch.others()


def machine(others: float) -> dict[str, Any]:
    """The record.

    Args:
        others: cores that other programs kept busy, by a `Watch`.
    """
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cores_of_others": round(others, 3),
        "busy": others > BUSY,
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "commit": _commit(),
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _all_seconds() -> float | None:
    """Processor seconds of all programs, and of the host where it took the processor away."""
    if not _COUNTERS.is_file():
        return None
    counts = [int(word) for word in _COUNTERS.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
    # user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen; guests are in user
    idle = sum(counts[3:5])
    return (sum(counts[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])


def _commit() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return found or None
