"""Environments with the real engines, outside the repository, without what needs a GPU.

    python -m tests.engines.real.environments [openrlhf] [ms_swift] [verl]

makes them, or finds them made, and prints the Python of each.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
TORCH = "torch==2.13.0"


class Environment(NamedTuple):
    """What an engine's reward-calling code needs: `engine` comes without its dependencies."""

    engine: str
    needs: tuple[str, ...]


ENVIRONMENTS = {
    "openrlhf": Environment(
        "openrlhf==0.11.2",
        (
            "transformers==5.15.0",
            "aiohttp==3.14.5",
            "ray==2.55.0",
            "numpy==2.4.6",
            "pylatexenc==2.11",
            "sympy==1.14.0",
        ),
    ),
    "ms_swift": Environment(
        "ms-swift==4.6.0",
        (
            "transformers==5.19.0",
            "datasets==4.8.4",
            "modelscope==1.40.2",
            "accelerate==1.15.0",
            "peft==0.20.0",
            "pillow==13.0.0",
            "dacite==1.9.2",
            "json-repair==0.64.6",
            "msgspec==0.22.0",
            "aiohttp==3.14.5",
            "numpy==2.4.6",
        ),
    ),
    "verl": Environment(
        "verl==0.9.1",
        (
            "transformers==5.9.0",
            "tensordict==0.10.0",
            "ray==2.60.0",
            "hydra-core==1.3.8",
            "aiohttp==3.14.5",
            "codetiming==1.4.0",
            "dill==0.4.1",
            "numpy==2.4.6",
            "packaging==25.0",
            "pydantic==2.14.3",
        ),
    ),
}


def cache() -> Path:
    """Where the environments are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sarm-control" / "engines"


def python_of(name: str) -> Path:
    """The Python of an engine's environment, which is made where it is not there yet.

    This package is installed into it anew every time, as a user's `pip install` would, but without
    dependencies: an engine's worker needs none of them.
    """
    wanted = ENVIRONMENTS[name]
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _made(name, wanted)


def _made(name: str, wanted: Environment) -> Path:
    stamp = hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]
    folder = cache() / f"{name}-{stamp}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        _pip(python, TORCH)
        _pip(python, *wanted.needs)
        _pip(python, "--no-deps", wanted.engine)
        (folder / "complete").touch()
    _pip(python, "--no-deps", "--force-reinstall", str(ROOT))
    return python


def _pip(python: Path, *words: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{ended.stderr[-3000:]}")


if __name__ == "__main__":
    for each in sys.argv[1:] or ENVIRONMENTS:
        sys.stdout.write(f"{ENVIRONMENTS[each].engine}, with {TORCH}: made where it is not there yet ...\n")
        sys.stdout.flush()
        sys.stdout.write(f"  {python_of(each)}\n")
