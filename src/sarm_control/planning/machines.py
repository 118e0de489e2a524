"""What a machine has and how fast it is: this one, or one of a table.

Rates of the table are those of the makers' data sheets (dense, no sparsity), times the share that programs of
this kind usually reach. They were not measured here.
"""

import contextlib
import ctypes
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sarm_control.errors import ConfigError

MIB = 2**20
# of version 2, which says `max` without a limit, and of version 1, which says a number beyond any memory
_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_LIBRARIES = {
    "train": ("peft", "pyarrow.parquet"),
    "latents": ("pyarrow.parquet",),
    "attach": ("pyarrow.parquet", "sae_lens"),
    "serve": ("fastapi", "uvicorn"),
}
"""What the work of each kind loads beside this package."""
_REACHED = 0.4
_REACHED_BANDWIDTH = 0.6


@dataclass(frozen=True)
class Machine:
    """Where a run is to take place.

    Args:
        name: as it is shown.
        kind: what holds the models.
        memory: bytes that a run can have there; None where that is not known.
        flops: multiply-adds times two a second, float32.
        half_flops: the same in bfloat16.
        bytes_a_second: that products of few rows read weights at.
        half: whether bfloat16 runs on units made for it.
        program: bytes that are taken before any weight is there.
        measured: whether the rates were measured on it.
    """

    name: str
    kind: Literal["cpu", "cuda"]
    memory: int | None
    flops: float
    half_flops: float
    bytes_a_second: float
    half: bool
    program: int
    measured: bool = False

    @property
    def rates(self) -> str:
        """Where its rates come from, in words."""
        return f"the rates of {self.name}" if self.measured else f"a table of rates, {self.name}"


def _gpu(name: str, gib: int, tera: float, half_tera: float, gigabytes: float) -> Machine:
    # a context and the libraries' own buffers, about 0.8 GiB on the cards that we know of
    return Machine(
        name,
        "cuda",
        gib * 2**30,
        tera * 1e12 * _REACHED,
        half_tera * 1e12 * _REACHED,
        gigabytes * 1e9 * _REACHED_BANDWIDTH,
        half=True,
        program=int(0.8 * 2**30),
    )


MACHINES = {
    "h200": _gpu("h200", 141, 67, 989, 4800),
    "h100": _gpu("h100", 80, 67, 989, 3350),
    "a100": _gpu("a100", 80, 19.5, 312, 2039),
    "4090": _gpu("4090", 24, 82.6, 165, 1008),
}
NAMES = (*MACHINES, "cpu")
"""What `machine` takes."""
Work: TypeAlias = Literal["train", "latents", "attach", "serve"]
"""What is planned: each loads other libraries."""


def machine(name: str | None = None, work: Work = "train") -> Machine:
    """A machine of the table; "cpu" is this machine's processor, None its GPU where it has one.

    Args:
        name: of the table, "cpu" or None.
        work: whose libraries are loaded, where the machine is this one's processor.

    Raises:
        ConfigError: no machine of that name.
    """
    if name in MACHINES:
        return MACHINES[name]
    if name not in (None, "cpu"):
        raise ConfigError(f"no machine is called {name}", hint=f"the known ones are {', '.join(NAMES)}")
    import torch

    if name is None and torch.cuda.is_available():
        return _this_gpu()
    return _this_processor(work)


def memory_of_this_machine() -> int | None:
    """Bytes of main memory that this process can have: the machine's, or its container's limit."""
    found = [_total()]
    for path in _CGROUPS:
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        found.append(int(text) if text.isdigit() else None)
    # a container's limit is what kills a run, however much the machine has
    known = [bytes_ for bytes_ in found if bytes_]
    return min(known, default=None)


def resident() -> int:
    """Bytes of main memory that this process holds now; on systems without /proc its peak so far."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    return peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.platform)


def growth(work: Callable[[], object]) -> int | None:
    """Bytes that this process takes at the peak of some work, beyond what it holds before.

    None on systems that do not tell: Linux with glibc does.

    Args:
        work: what is run, once.
    """
    marks, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None or not status.is_file():
        return None
    # free memory of the heap would be used again without a trace
    trim(0)
    try:
        # "5" sets the peak back to what is held now (proc(5))
        marks.write_text("5", encoding="ascii")
    except OSError:
        return None
    before = resident()
    work()
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
    return None if found is None else max(0, int(found[1]) * 1024 - before)


def peak_bytes(reported: int, platform: str) -> int:
    """Bytes of `ru_maxrss`, which macOS counts in bytes and Linux in KiB.

    Args:
        reported: what `getrusage` says.
        platform: as `sys.platform` names it.
    """
    return reported if platform == "darwin" else reported * 1024


def _total() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _this_gpu() -> Machine:
    import torch

    name = torch.cuda.get_device_name().lower()
    # a card that is not in the table is taken for the slowest of its big ones
    known = next((one for key, one in MACHINES.items() if key in name), MACHINES["a100"])
    total = torch.cuda.get_device_properties(0).total_memory
    return Machine(
        name,
        "cuda",
        total,
        known.flops,
        known.half_flops,
        known.bytes_a_second,
        half=True,
        program=known.program,
    )


def _this_processor(work: Work) -> Machine:
    """Its rates are measured, in about half a second."""
    import torch

    from sarm_control.reward_model import has_bfloat16

    half = has_bfloat16(torch.device("cpu"))
    rates = {
        dtype: _product_rate(dtype)
        for dtype in (torch.float32, torch.bfloat16)
        if half or dtype.itemsize == 4
    }
    program = program_bytes(work)
    return Machine(
        "this processor",
        "cpu",
        memory_of_this_machine(),
        rates[torch.float32],
        rates.get(torch.bfloat16, rates[torch.float32]),
        _copy_rate(),
        half=half,
        program=program,
        measured=True,
    )


def program_bytes(work: Work = "train") -> int:
    """What Python and the libraries of some work hold: this process loads them as the work would."""
    from transformers import AutoModel, AutoModelForCausalLM

    from sarm_control.reward_model import RewardModel

    # looked up, since packages load what they export on first use
    del AutoModel, AutoModelForCausalLM, RewardModel
    if work == "train":
        from sarm_control.training import Policy, run_training

        del Policy, run_training
    for name in _LIBRARIES[work]:
        # an extra that is not installed says so when the work starts
        with contextlib.suppress(ImportError):
            import_module(name)
    return resident()


def _product_rate(dtype: Any, size: int = 1024, seconds: float = 0.15) -> float:
    import torch

    times: list[float] = []
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    # the first product also sets up the library
    a @ b
    while sum(times) < seconds:
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    # the quickest: other programs can only make a product slower
    return 2 * size**3 / min(times)


def _copy_rate(mib: int = 64, seconds: float = 0.15) -> float:
    """Bytes a second that a product of one row reads a weight at."""
    import torch

    times: list[float] = []
    # a row times a matrix uses each weight once: memory sets the pace, not arithmetic
    weight, row = torch.ones(mib * MIB // 4 // 1024, 1024), torch.ones(1024)
    weight @ row
    while sum(times) < seconds:
        start = time.perf_counter()
        weight @ row
        times.append(time.perf_counter() - start)
    return weight.numel() * 4 / min(times)
