"""Are the tests able to fail? Changes the source in one place at a time and runs the tests of that room.

    python scripts/mutate.py [--mutants 200] [--seed 0] [--only statistics] [--json FILE]

A *mutant* is the source with one small change (`<` for `<=`, `1` for `2`, `not` left out). A mutant that no
test notices *survives*: nobody would see that mistake. Places are drawn by chance, equally from all places of
the rooms where numbers are made, and then one change for each place, so that lines with many possible changes
do not count more. The share of killed mutants has an exact interval (Clopper and Pearson).

Mutants are made by cosmic-ray, in an environment of its own under the user's cache (XDG_CACHE_HOME moves it),
in copies of the source. Changes that end in an error at once are left out, since they say nothing about
tests: bit operators for arithmetic ones, and unions in annotations.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TOOL = "cosmic-ray==8.7.*"
WORKERS = 2
_TRIVIAL = re.compile(r"(?:_BitOr|_BitAnd|_BitXor|_RShift|_LShift)|ReplaceBinaryOperator_Bit")
_LEFT_OUT = ("core/AddNot", "core/RemoveDecorator", "core/VariableInserter", "core/VariableReplacer")
"""`AddNot` doubles what other operators do; decorators and variables mostly end in an error."""


class Room(NamedTuple):
    """Where numbers are made, and the tests that should notice a wrong one.

    Args:
        source: folders and files below src/sarm_control.
        tests: pytest's arguments.
    """

    source: tuple[str, ...]
    tests: tuple[str, ...]


ROOMS = {
    "statistics": Room(
        ("statistics",),
        ("tests/statistics", "tests/discovery/test_effects.py", "tests/comparison", "tests/evaluation"),
    ),
    "control": Room(("control",), ("tests/control", "tests/training/test_ledger.py")),
    "losses": Room(
        ("training/algorithm/losses.py", "training/algorithm/importance_weights.py"),
        (
            "tests/training/test_losses.py",
            "tests/training/test_trl_losses.py",
            "tests/training/test_details.py",
        ),
    ),
    "benchmarks": Room(("evaluation/benchmarks", "evaluation/preferences.py"), ("tests/evaluation",)),
}


def tool_python() -> Path:
    """The Python of the environment that has cosmic-ray, which is made where it is not there yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sarm-control" / "mutate"
    python = base / "bin" / "python"
    if not (base / "made").exists():
        venv.create(base, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", TOOL]
        subprocess.run(pip, check=True)
        (base / "made").touch()
    return python


def places(names: Sequence[str]) -> list[tuple[str, Any]]:
    """A room's name and a mutation for every change that is not trivial (in cosmic-ray's Python)."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import WorkDB, use_db

    found = []
    for room in names:
        modules = []
        for part in ROOMS[room].source:
            path = Path("src/sarm_control") / part
            modules += [path] if path.is_file() else sorted(path.rglob("*.py"))
        with (
            tempfile.TemporaryDirectory() as scratch,
            use_db(str(Path(scratch) / "session.sqlite"), WorkDB.Mode.create) as database,
        ):
            init([one for one in modules if one.name != "__init__.py"], database, {})
            every = [item.mutations[0] for item in database.work_items]
        found += [(room, one) for one in every if not _trivial(one.operator_name)]
    return found


def _trivial(operator: str) -> bool:
    return bool(_TRIVIAL.search(operator)) or operator.startswith(_LEFT_OUT)


def drawn(found: Sequence[tuple[str, Any]], count: int, seed: int) -> list[tuple[str, Any]]:
    """Places by chance, and one change for each."""
    by_place: dict[tuple[str, tuple[int, int]], list[tuple[str, Any]]] = {}
    for room, one in found:
        by_place.setdefault((str(one.module_path), one.start_pos), []).append((room, one))
    rng = random.Random(seed)
    chosen = rng.sample(sorted(by_place), min(count, len(by_place)))
    return [rng.choice(sorted(by_place[place], key=lambda pair: pair[1].operator_name)) for place in chosen]


def work(part: str, python: str, seconds: float) -> None:
    """Runs the mutants of a file, one after the other, in the current folder; a line of JSON for each."""
    from cosmic_ray.mutating import mutate_and_test
    from cosmic_ray.work_item import MutationSpec

    os.environ["PYTHONPATH"] = str(Path.cwd() / "src")
    for line in Path(part).read_text(encoding="utf-8").splitlines():
        room, fields = json.loads(line)
        tests = " ".join(ROOMS[room].tests)
        command = f"{python} -m pytest -x -q -p no:cacheprovider --hypothesis-seed=0 {tests}"
        # examples that hypothesis remembers would make one mutant's outcome depend on another's
        shutil.rmtree(".hypothesis", ignore_errors=True)
        start = time.monotonic()
        result = mutate_and_test([MutationSpec(**fields)], command, seconds)
        killed = result.is_killed
        row = {
            "room": room,
            "file": fields["module_path"],
            "line": fields["start_pos"][0],
            "operator": fields["operator_name"],
            "killed": killed,
            "by": "time" if result.output == "timeout" else _failed(result.output or ""),
            "diff": "" if killed else result.diff,
            "seconds": round(time.monotonic() - start, 1),
        }
        print(json.dumps(row), flush=True)


def _failed(output: str) -> str:
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, flags=re.MULTILINE)
    return found[1] if found else ""


def baseline(python: str, names: Sequence[str]) -> float:
    """Seconds of the slowest room's tests on the source as it is.

    Raises:
        SystemExit: they fail, so that every mutant would count as killed.
    """
    slowest = 0.0
    for room in names:
        start = time.monotonic()
        words = [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *ROOMS[room].tests]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the tests of {room} fail without any change:\n{done.stdout[-2000:]}")
        slowest = max(slowest, time.monotonic() - start)
        print(f"{room}: {time.monotonic() - start:.0f} s without any change", flush=True)
    return slowest


def share(rows: Sequence[dict[str, Any]]) -> str:
    """Killed of all, with the exact interval."""
    from scipy.stats import binomtest

    killed = sum(row["killed"] for row in rows)
    ends = binomtest(killed, len(rows)).proportion_ci(method="exact")
    return f"{killed} of {len(rows)} killed, {killed / len(rows):.0%} [{ends.low:.0%}, {ends.high:.0%}]"


def main() -> None:
    """Draws mutants, runs them in copies of the source, prints the share and every survivor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=ROOMS, default=list(ROOMS))
    parser.add_argument("--json", type=Path, help="every mutant, with the change of those that survived")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--draw", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], os.environ["MUTATE_PYTHON"], float(options.work[1]))
        return
    if options.draw:
        chosen = drawn(places(options.only), options.mutants, options.seed)
        lines = [json.dumps([room, _fields(one)]) for room, one in chosen]
        options.draw.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    rows = mutate(options.only, options.mutants, options.seed)
    for row in rows:
        if not row["killed"]:
            print(f"\nsurvived: {row['file']}:{row['line']} ({row['operator']})\n{row['diff']}")
    print()
    for room in options.only:
        own = [row for row in rows if row["room"] == room]
        if own:
            print(f"{room}: {share(own)}")
    print(f"in all: {share(rows)}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _fields(one: Any) -> dict[str, Any]:
    names = ("operator_name", "occurrence", "start_pos", "end_pos", "operator_args")
    return {"module_path": str(one.module_path), **{name: getattr(one, name) for name in names}}


def mutate(names: Sequence[str], count: int, seed: int) -> list[dict[str, Any]]:
    """The outcome of every mutant."""
    tool, python = str(tool_python()), sys.executable
    environment = {
        **os.environ,
        "MUTATE_PYTHON": python,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    script = str(Path(__file__).resolve())
    with tempfile.TemporaryDirectory() as scratch:
        copies = [Path(scratch) / f"copy-{number}" for number in range(WORKERS)]
        for copy in copies:
            copy_of_source(copy)
        environment["PYTHONPATH"] = str(copies[0] / "src")
        os.environ.update(environment)
        os.chdir(copies[0])
        limit = max(60.0, 5 * baseline(python, names))
        drawing = Path(scratch) / "drawn.jsonl"
        words = [tool, script, "--only", *names, "--mutants", str(count), "--seed", str(seed)]
        subprocess.run([*words, "--draw", str(drawing)], check=True)
        lines = drawing.read_text(encoding="utf-8").splitlines()
        print(f"{len(lines)} mutants by {WORKERS} processes, at most {limit:.0f} s each", flush=True)
        running = []
        for number, copy in enumerate(copies):
            part = Path(scratch) / f"part-{number}.jsonl"
            part.write_text("".join(f"{line}\n" for line in lines[number::WORKERS]), encoding="utf-8")
            words = [tool, script, "--work", str(part), str(limit)]
            running.append(
                subprocess.Popen(words, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True)
            )
        rows = [json.loads(line) for one in running for line in one.communicate()[0].splitlines()]
        if any(one.returncode for one in running) or len(rows) < len(lines):
            raise SystemExit("a process ended before its mutants were done; see above")
        return rows


def copy_of_source(folder: Path) -> None:
    """What tests read, without compiled files."""
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("src", "tests", "examples", "docs", "benchmarks", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (folder.parent / "shared").unlink(missing_ok=True)
        (folder.parent / "shared").symlink_to(shared.resolve())


if __name__ == "__main__":
    main()
