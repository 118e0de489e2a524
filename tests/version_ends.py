"""The tests with the newest and with the oldest versions that `pyproject.toml` allows.

    python -m tests.version_ends newest|oldest|oldest-extras [pytest's arguments]

makes an environment in the user's cache (XDG_CACHE_HOME moves it), or finds it made, and runs the tests in
it: all of them, or those named. The newest is made anew when a day is over, because newer versions come out.
Of torch it is always the build the tests run with: other versions come with gigabytes for GPUs.

Some extras ask for more of numpy, pyarrow and others than the package does. So the oldest end has two
environments: `oldest` without those extras, and `oldest-extras` with them at their oldest and everything
else at its newest.
"""

import datetime
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
TOOLS = (
    "beartype>=0.20",
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "hatchling>=1.24",
    "httpx>=0.27",
    "hypothesis>=6.100",
    "statsmodels>=0.14",
)
DEMANDING = ("build", "data", "ray", "trl")
"""Extras whose own requirements have higher floors than the package's."""
WHOLE_SUITE = (
    *("-n", "2", "--dist", "loadfile", "-m", "not minutes and not engines"),
    "--ignore=tests/test_wheel.py",
)
"""All but the tests of the wheel: they build it from the checkout, and an end tests an installed copy."""
OF_DEMANDING = (
    *("tests/attaching", "tests/build", "tests/data", "tests/engines"),
    *("tests/lab/test_builder.py", "tests/latents/test_ray_latents.py"),
    *("tests/reward_model/test_trained_by_trl.py", "tests/training/test_trl_losses.py"),
    *("tests/server/test_ray.py", "tests/server/test_ray_requests.py"),
)
"""What uses those extras; the rest of the suite does not touch them."""


class End(NamedTuple):
    """What is installed, and which tests run where none are named.

    Args:
        extras: the package's extras that are installed with it.
        floors: whose requirements are at their oldest: `all`, those of the `extras`, or `none`.
        tools: what the tests need beside these.
        tests: pytest's arguments where none are given.
    """

    extras: tuple[str, ...]
    floors: str
    tools: tuple[str, ...] = TOOLS
    tests: tuple[str, ...] = WHOLE_SUITE


ENDS = {
    "newest": End(
        ("audit", "explore", "rl", "gguf", "ratio", "label", "report", "serve", "track", *DEMANDING),
        "none",
        (
            *TOOLS,
            "axe-playwright-python",
            "playwright",
            "polars",
            "schemathesis>=4.0",
            "transformers[serving]",
        ),
    ),
    "oldest": End(("audit", "explore", "rl", "gguf", "ratio", "label", "report", "serve", "track"), "all"),
    "oldest-extras": End(
        DEMANDING,
        "extras",
        (*TOOLS, "peft", "polars", "prometheus-client", "uvicorn[standard]"),
        (*WHOLE_SUITE, *OF_DEMANDING),
    ),
}
_FLOOR = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[\w,]+\])?>=(?P<floor>[\d.]+)")


def project() -> dict[str, Any]:
    """`[project]` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def requirements(end: str) -> list[str]:
    """The package's own requirements and its extras', pinned to the releases of their floors where asked."""
    said, asked = project(), ENDS[end]
    extras = [one for extra in asked.extras for one in said["optional-dependencies"][extra]]
    own = [one for one in said["dependencies"] if not one.startswith("torch")]
    if asked.floors == "none":
        return [*own, *extras]
    return [*(own if asked.floors == "extras" else map(floor, own)), *map(floor, extras)]


def floor(requirement: str) -> str:
    """`numpy>=1.26` to `numpy==1.26.*`: the last patch of the oldest release allowed."""
    match = _FLOOR.match(requirement)
    if match is None:
        raise ValueError(f"{requirement} has no floor")
    version = match["floor"]
    return f"{match['name']}{match['extras'] or ''}=={version}" + (".*" if version.count(".") < 2 else "")


def python_of(end: str) -> Path:
    """The Python of an end's environment, which is made where it is not there yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sarm-control" / "versions"
    base.mkdir(parents=True, exist_ok=True)
    wanted = [*requirements(end), *ENDS[end].tools]
    day = datetime.date.today().isoformat() if end == "newest" else ""
    stamp = hashlib.sha256(repr((sys.version, TORCH, wanted, day)).encode()).hexdigest()[:16]
    folder = base / end
    with (base / f"{end}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python, made = folder / "bin" / "python", folder / "made"
        if not made.exists() or made.read_text() != stamp:
            venv.create(folder, with_pip=True, clear=True)
            pip(python, "--upgrade", "pip")
            # torch first and alone, so that no other package's range picks another build of it
            pip(python, TORCH)
            pip(python, TORCH, *wanted)
            made.write_text(stamp)
        pip(python, "--no-deps", "--force-reinstall", str(ROOT))
    return python


def pip(python: Path, *words: str) -> None:
    """Installs; fails with pip's own words."""
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words], check=True
    )


def main(end: str, arguments: list[str]) -> int:
    """Makes the environment, says what is in it, and runs the tests."""
    python = python_of(end)
    subprocess.run([str(python), "-m", "pip", "freeze"], check=True)
    command = [str(python), "-m", "pytest", "-q", *(arguments or ENDS[end].tests)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ENDS:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
