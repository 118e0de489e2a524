"""Are the tests able to fail? Changes the source in one place at a time and runs the tests that reach it.

    python scripts/mutate.py [--mutants 200] [--seed 0] [--only statistics] [--json FILE] [--without FILE]

A *mutant* is the source with one small change (`<` for `<=`, `1` for `2`, `not` left out). A mutant that no
test notices *survives*: nobody would see that mistake. Places are drawn by chance, equally from all places of
the rooms where numbers are made, and then one change for each place, so that lines with many possible changes
do not count more. The share of killed mutants has an exact interval (Clopper and Pearson).

The tests of all rooms run once first, under coverage.py, which tells by which test each line is run. A
mutant runs only those of its room that reach its line, the quickest first and until one fails. A line at
the level of a module runs at import, so that all tests of the room follow. A line that no test reaches has
survived without a run. Runs are forks of a process that has the slow packages loaded.

With `--json` each row is written when its mutant is done, and the same command goes on with a file that is
there, as long as source and tests are the same. `--without` leaves out the places of an earlier run: tests
that were written for its survivors tell nothing about the rest when they are counted on the same places.

Mutants are made by cosmic-ray, which with coverage.py has an environment of its own under the user's cache
(XDG_CACHE_HOME moves it), and run in copies of the source. Changes that end in an error at once are left out,
since they say nothing about tests: bit operators for arithmetic ones, and unions in annotations.
"""

import argparse
import contextlib
import difflib
import hashlib
import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mutate_reach import STARTED, Reach, chosen, ordered

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
SOURCE = "src/sarm_control"
TOOLS = ("cosmic-ray==8.7.*", "coverage==7.*")
WORKERS = 2


class Room(NamedTuple):
    """Where numbers are made, and the tests that should notice a wrong one.

    Args:
        source: folders and files below src/sarm_control.
        tests: pytest's arguments; those outside the room of the source have a reason beside them.
    """

    source: tuple[str, ...]
    tests: tuple[str, ...]


ROOMS = {
    "statistics": Room(
        ("statistics",),
        (
            "tests/statistics",
            # intervals and multiplicity against the discoveries and comparisons that are made of them
            *("tests/discovery/test_effects.py", "tests/discovery/test_label_tests.py"),
            *("tests/discovery/test_detectability.py", "tests/discovery/test_targets.py"),
            *("tests/comparison", "tests/evaluation"),
        ),
    ),
    "control": Room(
        ("control",),
        (
            "tests/control",
            # dual ascent, the ledger and charges of a batch over the steps of a run
            *("tests/training/test_ledger.py", "tests/training/test_target_rate.py"),
            "tests/training/test_batch_charge.py",
            # the same reward asked by other trainers, and its state saved and loaded again
            *("tests/engines/test_controlled_reward.py", "tests/test_damaged_files.py"),
        ),
    ),
    "losses": Room(
        ("training/algorithm/losses.py", "training/algorithm/importance_weights.py"),
        (
            *("tests/training/test_losses.py", "tests/training/test_trl_losses.py"),
            "tests/training/test_details.py",
            # a second, short copy of the loop that has to give the same numbers
            "tests/training/test_minimal.py",
        ),
    ),
    "benchmarks": Room(("evaluation/benchmarks", "evaluation/preferences.py"), ("tests/evaluation",)),
}


def cache() -> Path:
    """The folder of what is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sarm-control" / "mutate"


def tool_python() -> Path:
    """The Python of the environment of cosmic-ray and coverage.py, made where it is not there yet."""
    base = cache()
    python = base / "bin" / "python"
    made = base / "made"
    if not made.exists() or made.read_text(encoding="utf-8") != " ".join(TOOLS):
        venv.create(base, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, TOOLS[0]], check=True)
        # apart from the rest: the environment of the tests takes nothing else from here
        subprocess.run([*pip, "--target", str(base / "coverage"), TOOLS[1]], check=True)
        (base / "coverage" / "sitecustomize.py").write_text(STARTED, encoding="utf-8")
        made.write_text(" ".join(TOOLS), encoding="utf-8")
    return python


def modules(names: Sequence[str]) -> dict[str, list[str]]:
    """The files of each room, relative to the copy of the source."""
    found = {}
    for room in names:
        paths: list[Path] = []
        for part in ROOMS[room].source:
            path = ROOT / SOURCE / part
            paths += [path] if path.is_file() else sorted(path.rglob("*.py"))
        found[room] = [one.relative_to(ROOT).as_posix() for one in paths if one.name != "__init__.py"]
    return found


class Mutant(NamedTuple):
    """One change that was drawn; see `mutate_draw.py`.

    Args:
        number: in the order of the draw.
        room: whose tests should notice it.
        file: its path below the root.
        line: counted from 1.
        place: file, text of the line and column.
        operator: cosmic-ray's name of the change.
        text: the whole file with the change.
    """

    number: int
    room: str
    file: str
    line: int
    place: list[Any]
    operator: str
    text: str


class Draw(NamedTuple):
    """Mutants, and the number of places they are drawn from."""

    mutants: list[Mutant]
    places: int


def draw(folder: Path, names: Sequence[str], count: int, seed: int, without: Sequence[Any]) -> Draw:
    """Mutants by chance, of a copy of the source."""
    request = folder.with_suffix(".request")
    asked = {"modules": modules(names), "mutants": count, "seed": seed, "without": without}
    request.write_text(json.dumps(asked), encoding="utf-8")
    words = [str(tool_python()), str(SCRIPTS / "mutate_draw.py"), str(request)]
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    head, *rows = (json.loads(line) for line in done.stdout.splitlines())
    return Draw([Mutant(**row) for row in rows], head["places"])


def reach(folder: Path, names: Sequence[str], environment: dict[str, str]) -> Reach:
    """By which tests each line of the source is run; kept until source or tests change.

    Raises:
        SystemExit: the tests fail as they are, so that every mutant would count as killed.
    """
    start = time.monotonic()
    kept = cache() / f"reach-{'-'.join(names)}-{of_the_code()['code']}.json"
    if kept.exists():
        return Reach(**json.loads(kept.read_text(encoding="utf-8")))
    out = folder.with_suffix(".reach")
    tests = dict.fromkeys(one for room in names for one in ROOMS[room].tests)
    coverage = str(tool_python().parents[1] / "coverage")
    words = [sys.executable, str(SCRIPTS / "mutate_reach.py"), str(out), SOURCE, "--", *tests]
    path = os.pathsep.join([environment["PYTHONPATH"], coverage])
    done = subprocess.run(
        words,
        cwd=folder,
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the tests fail without any change:\n{(done.stdout + done.stderr)[-2000:]}")
    found = Reach(**json.loads(out.read_text(encoding="utf-8")))
    for old in cache().glob("reach-*"):
        old.unlink()
    shutil.copy(out, kept)
    print(f"{len(found.seconds)} tests of {len(names)} rooms: {time.monotonic() - start:.0f} s", flush=True)
    return found


class Server:
    """A process that runs tests on a copy of the source; see `mutate_server.py`.

    Args:
        folder: the copy.
        found: by which tests its lines are run.
        environment: of the process, without PYTHONPATH.
    """

    def __init__(self, folder: Path, found: Reach, environment: dict[str, str]) -> None:
        self.folder, self.found = folder, found
        files = sorted({test.partition("::")[0] for test in found.seconds})
        # other runs of pytest on this machine throw away all but the newest folders of the usual place
        temporary = folder.with_suffix(".tests")
        temporary.mkdir()
        paths = {"PYTHONPATH": str(folder / "src"), "PYTEST_DEBUG_TEMPROOT": str(temporary)}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPTS / "mutate_server.py"), *files],
            cwd=folder,
            env={**environment, **paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, tests: Sequence[str], seconds: float, change: dict[str, Any]) -> dict[str, Any]:
        """How a run of some tests ended.

        Raises:
            SystemExit: the process is gone.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"tests": tests, "seconds": seconds, **change}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the process that runs the tests ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def control(self) -> None:
        """Runs tests on the source as it is, in both ways.

        Raises:
            SystemExit: one fails, so that every mutant would count as killed.
        """
        tests = ordered(list(self.found.seconds), self.found.seconds)
        of_each_file = list({test.partition("::")[0]: test for test in reversed(tests)}.values())
        for fresh, some in ((False, of_each_file), (True, tests[:1])):
            same = {"file": "pyproject.toml", "before": "", "after": "", "fresh": fresh}
            answer = self.ask(some, 600, same)
            if answer["status"] != 0:
                raise SystemExit(f"the tests fail without any change:\n{answer['output'][-2000:]}")

    def outcome(self, mutant: Mutant) -> dict[str, Any]:
        """The row of a mutant."""
        path = self.folder / mutant.file
        before, stamp = path.read_text(encoding="utf-8"), path.stat()
        room = ROOMS[mutant.room].tests
        tests, because = chosen(self.found, room, mutant.file, before, mutant.line)
        start = time.monotonic()
        answer: dict[str, Any] = {"status": 0, "output": ""}
        if tests:
            path.write_text(mutant.text, encoding="utf-8")
            change = {
                "file": mutant.file,
                "before": before,
                "after": mutant.text,
                "fresh": because == "import",
            }
            try:
                answer = self.ask(tests, 30 + 5 * sum(self.found.seconds[one] for one in tests), change)
            finally:
                path.write_text(before, encoding="utf-8")
                # as it was to the importer too, which trusts bytecode by time and size
                os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        killed = answer["status"] != 0
        lines = difflib.unified_diff(
            before.splitlines(), mutant.text.splitlines(), mutant.file, mutant.file, "", "", 3, ""
        )
        return {
            **{name: value for name, value in mutant._asdict().items() if name != "text"},
            "killed": killed,
            "by": "time" if answer["status"] is None else _failed(answer["output"]) if killed else "",
            "status": answer["status"],
            "reached": because,
            "tests": len(tests),
            "seconds": round(time.monotonic() - start, 1),
            "diff": "\n".join(lines),
        }


def _failed(output: str) -> str:
    """The test that failed, or where there is none the last line: pytest itself came to no end."""
    lines = [line.split() for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return lines[0][1] if lines else (output.strip().splitlines() or [""])[-1]


class Rows:
    """The rows of a run, in a file from which it can go on.

    Args:
        path: a line of JSON that says which run it is, and one for each mutant; None keeps no file.
        head: what the run is.

    Raises:
        SystemExit: the file is of another run.
    """

    def __init__(self, path: Path | None, head: dict[str, Any]) -> None:
        self.path, self.rows = path, []
        if path is None or not path.exists():
            self._write(head, "w")
            return
        before, *self.rows = read(path)
        differ = [
            name for name in ("rooms", "mutants", "seed", "places", "code") if before[name] != head[name]
        ]
        if differ:
            raise SystemExit(f"{path} is of a run with other {', '.join(differ)}: name another file")

    def add(self, row: dict[str, Any]) -> None:
        """Keeps a row, and writes it at once."""
        self.rows.append(row)
        self._write(row, "a")

    def _write(self, row: dict[str, Any], mode: str) -> None:
        if self.path is not None:
            with self.path.open(mode, encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """A run's head and its rows; a last line that a stop has cut is left out, and cut from the file."""
    whole, _, cut = path.read_text(encoding="utf-8").rpartition("\n")
    if cut:
        path.write_text(f"{whole}\n", encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def share(rows: Sequence[dict[str, Any]]) -> str:
    """Killed of all, with the exact interval."""
    from scipy.stats import binomtest

    killed = sum(row["killed"] for row in rows)
    ends = binomtest(killed, len(rows)).proportion_ci(method="exact")
    return f"{killed} of {len(rows)} killed, {killed / len(rows):.0%} [{ends.low:.0%}, {ends.high:.0%}]"


def of_the_code() -> dict[str, Any]:
    """The commit, whether files differ from it, a digest of what is changed and run, and the processor."""
    digest = hashlib.sha256()
    own = [one for room in ROOMS.values() for one in room.tests]
    tests = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if not path.name.startswith("test_") or any((ROOT / one) in (path, *path.parents) for one in own)
    ]
    for path in sorted([*(ROOT / "src").rglob("*.py"), *tests]):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "commit": git("rev-parse", "--short", "HEAD"),
        "uncommitted": bool(git("status", "--porcelain", "src", "tests")),
        "code": digest.hexdigest()[:16],
        "processor": f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores",
    }


def mutate(names: Sequence[str], count: int, seed: int, kept: Path | None, without: Path | None) -> Rows:
    """The outcome of every mutant, with a line of progress for each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # the first run's bytecode is what makes the others quick
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    barred = [row["place"] for row in read(without)[1:]] if without else []
    with tempfile.TemporaryDirectory() as scratch:
        copies = [Path(scratch) / f"copy-{number}" for number in range(WORKERS)]
        copy_of_source(copies[0])
        mutants, places = draw(copies[0], names, count, seed, barred)
        head = {"rooms": list(names), "mutants": count, "seed": seed, "places": places, **of_the_code()}
        rows = Rows(kept, head)
        done = {row["number"] for row in rows.rows}
        found = reach(copies[0], names, {**environment, "PYTHONPATH": str(copies[0] / "src")})
        for copy in copies[1:]:
            # with the bytecode of the run before
            shutil.copytree(copies[0], copy)
        left = [one for one in mutants if one.number not in done]
        print(f"{len(left)} mutants of {places} places, by {WORKERS} processes", flush=True)
        start = time.monotonic()
        for number, row in enumerate(outcomes(left, copies, found, environment), 1):
            rows.add(row)
            killed = sum(one["killed"] for one in rows.rows)
            minutes = (time.monotonic() - start) / number * (len(left) - number) / 60
            said = "" if row["killed"] else f"; survived: {row['file']}:{row['line']} ({row['reached']})"
            print(
                f"{len(rows.rows)} of {len(mutants)} done, {killed} killed, {minutes:.0f} min left{said}",
                flush=True,
            )
    rows.rows.sort(key=lambda row: row["number"])
    return rows


def outcomes(
    mutants: Sequence[Mutant], copies: Sequence[Path], found: Reach, environment: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Rows as they come, from one server for each copy.

    Raises:
        SystemExit: a server failed.
    """
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    answers: queue.SimpleQueue[dict[str, Any] | BaseException] = queue.SimpleQueue()
    for one in mutants:
        waiting.put(one)

    def serve(server: Server) -> None:
        try:
            server.control()
            while True:
                answers.put(server.outcome(waiting.get_nowait()))
        except queue.Empty:
            pass
        except BaseException as error:
            answers.put(error)

    with contextlib.ExitStack() as stack:
        for copy in copies:
            server = Server(copy, found, environment)
            stack.enter_context(server.process)
            stack.callback(server.process.terminate)
            threading.Thread(target=serve, args=[server], daemon=True).start()
        for _ in mutants:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer


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


def main() -> None:
    """Draws mutants, runs them in copies of the source, prints the share and every survivor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=ROOMS, default=list(ROOMS))
    parser.add_argument("--json", type=Path, help="a line for each mutant as it is done; goes on with it")
    parser.add_argument("--without", type=Path, help="a --json of another run, whose places are left out")
    options = parser.parse_args()
    rows = mutate(options.only, options.mutants, options.seed, options.json, options.without).rows
    why = {"line": "reached", "import": "runs at import", "nothing": "no test reaches it"}
    for row in rows:
        if not row["killed"]:
            reached = why[row["reached"]]
            print(f"\nsurvived: {row['file']}:{row['line']} ({reached}, {row['operator']})\n{row['diff']}")
    print()
    for room in options.only:
        own = [row for row in rows if row["room"] == room]
        if own:
            print(f"{room}: {share(own)}")
    print(f"in all: {share(rows)}")


if __name__ == "__main__":
    main()
