"""Runs the cells of a study, each in a process of its own, some at a time.

A cell that is done is never run again, a half-done one goes on from its last checkpoint, and one that fails
leaves the others alone. Cells wait for what they need: the discovery of their world, and the runs whose KL
they match.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.console import duration
from sarm_control.errors import OutputError
from sarm_control.files import check_writable, write_text
from sarm_control.study.arms import check_settings, controls_file
from sarm_control.study.cells import DONE, Cell, CellState, asked, cells_of, state_of
from sarm_control.study.study_config import StudyConfig
from sarm_control.study.worker import CELL, DISCOVERY, EXIT_BUSY, PROBE, STUDY_FILE, base_values
from sarm_control.training import dump_yaml

_POLL = 0.1
_TAIL = 4000


class Finished(NamedTuple):
    """How the cells ended.

    Args:
        done: cells that are complete, those of earlier times too.
        failed: cells that failed, and why.
        busy: cells that another process works on, and those that need them.
    """

    done: tuple[Cell, ...]
    failed: dict[Cell, str]
    busy: tuple[Cell, ...]


class Task(NamedTuple):
    """One process.

    Args:
        words: what it is told.
        log: where its output goes.
        cell: that it runs; None for a discovery.
    """

    words: tuple[str, ...]
    log: Path
    cell: Cell | None


def open_study(folder: Path, study: StudyConfig) -> list[CellState]:
    """Makes the folder of a study, or opens one, and says what is there of each cell.

    Raises:
        ConfigError: settings of a world or an arm that no run file could have.
        OutputError: the folder cannot be written, is no study, or a cell in it was made from other settings.
    """
    check_settings(study)
    check_writable(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STUDY_FILE).is_file():
        raise OutputError(f"{folder} exists and is not a study", hint="choose another folder with -o")
    base = base_values(study)
    # all cells are looked at before anything is written: one of other settings refuses the whole study
    states = [state_of(folder, cell, asked(study, base, cell)) for cell in cells_of(study)]
    folder.mkdir(parents=True, exist_ok=True)
    # the tasks read this copy: a study file that is changed meanwhile changes nothing that runs
    write_text(folder / STUDY_FILE, dump_yaml(study.model_dump(mode="json")))
    return states


def run_study(
    folder: Path,
    study: StudyConfig,
    states: Sequence[CellState],
    chosen: Sequence[Cell],
    *,
    jobs: int = 1,
    report: Callable[[str], None],
) -> Finished:
    """Runs the chosen cells that are not done.

    Args:
        folder: of the study, opened.
        study: the study.
        states: of all its cells.
        chosen: which to run, in order.
        jobs: processes at a time.
        report: gets a line for each task that ends.
    """
    schedule = _Schedule(folder, study, states, chosen, report)
    running: dict[subprocess.Popen[bytes], Task] = {}
    try:
        while schedule.waiting or running:
            while len(running) < jobs and (task := schedule.next()) is not None:
                running[start(folder, task, jobs)] = task
            for process in [one for one in running if one.poll() is not None]:
                end(process)
                schedule.ended(running.pop(process), process.returncode)
            if running:
                time.sleep(_POLL)
    finally:
        for process in running:
            end(process)
    return schedule.finished()


def probe(folder: Path, cell: Cell) -> str | None:
    """Runs the probe of a cell; None, or why it failed."""
    task = Task((PROBE, cell.world, cell.arm, str(cell.seed)), folder / "probe.log", cell)
    process = start(folder, task, 1)
    try:
        code = process.wait()
    finally:
        end(process)
    return None if code == 0 else reason(task.log, code)


def start(folder: Path, task: Task, jobs: int) -> "subprocess.Popen[bytes]":
    """Starts a task; it ends when this process does, since its standard input closes."""
    # shared out: by itself torch takes every core in every process, and they all wait for each other
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    # what the user has set wins
    environment = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", **os.environ}
    task.log.parent.mkdir(parents=True, exist_ok=True)
    # added to: what a cell printed before it was stopped says why
    with task.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sarm_control.study.worker", str(folder), *task.words],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stops a task and waits for it."""
    if process.poll() is None:
        process.terminate()
    if process.stdin is not None:
        # the task may be gone already
        with contextlib.suppress(OSError):
            process.stdin.close()
    process.wait()


def reason(log: Path, code: int) -> str:
    """Why a task failed: the last error it wrote, or the signal that ended it."""
    if code < 0:
        return f"ended by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    with log.open("rb") as stream:
        # only the end, since the log of a long cell holds every line of its training
        stream.seek(max(0, log.stat().st_size - _TAIL))
        lines = stream.read().decode("utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    last = errors[-1].removeprefix("error: ") if errors else (lines[-1] if lines else "no output")
    return f"{last}; see {log}"


class _Schedule:
    """What may be started, and what became of the rest."""

    def __init__(
        self,
        folder: Path,
        study: StudyConfig,
        states: Sequence[CellState],
        chosen: Sequence[Cell],
        report: Callable[[str], None],
    ) -> None:
        self.folder, self.study, self.report = folder, study, report
        self.done = {state.cell for state in states if state.status == DONE}
        self.waiting = [cell for cell in chosen if cell not in self.done]
        self.failed: dict[Cell, str] = {}
        self.busy: list[Cell] = []
        self.started: set[Cell] = set()
        self.worlds: dict[str, str] = {}
        self.total, self.ran, self.begin = len(self.waiting), 0, time.monotonic()

    def next(self) -> Task | None:
        """The next task that can be started now; cells that can never be are failed."""
        # first those that can never be run, or a study would wait for them for ever
        for cell in list(self.waiting):
            held = next((other for other in self._followed(cell) if other in self.busy), None)
            if held is not None:
                self.waiting.remove(cell)
                self.busy.append(cell)
                self._say(cell, f"it matches the KL of {held.name}, on which another process works")
                continue
            missing = self._needs(cell)
            if missing is not None:
                self.waiting.remove(cell)
                self._fail(cell, missing)
        for cell in self.waiting:
            path = controls_file(self.folder, self.study, cell)
            if path is not None and not path.is_file():
                # one discovery makes the controls of all arms of a world; their cells wait for it
                if cell.world not in self.worlds:
                    self.worlds[cell.world] = "running"
                    log = self.folder / "controls" / f"{cell.name.split('/')[0]}.log"
                    return Task((DISCOVERY, cell.world), log, None)
                continue
            if set(self._followed(cell)) <= self.done:
                self.waiting.remove(cell)
                self.started.add(cell)
                return Task((CELL, cell.world, cell.arm, str(cell.seed)), cell.log(self.folder), cell)
        return None

    def ended(self, task: Task, code: int) -> None:
        """Notes how a task ended."""
        if task.cell is None:
            world = task.words[1]
            self.worlds[world] = "done" if code == 0 else reason(task.log, code)
            self.report(f"discovery in {world}: {self.worlds[world]}")
            return
        self.ran += 1
        if code == 0:
            self.done.add(task.cell)
            self._say(task.cell, "done")
        elif code == EXIT_BUSY:
            self.busy.append(task.cell)
            self._say(task.cell, "another process works on it")
        else:
            self._fail(task.cell, reason(task.log, code))

    def finished(self) -> Finished:
        """How the cells ended."""
        return Finished(
            tuple(cell for cell in cells_of(self.study) if cell in self.done), self.failed, tuple(self.busy)
        )

    def _needs(self, cell: Cell) -> str | None:
        """Why a cell can never be run, if so."""
        state = self.worlds.get(cell.world)
        path = controls_file(self.folder, self.study, cell)
        if path is not None and not path.is_file() and state not in (None, "running"):
            return f"its controls were not made: {state}"
        for other in self._followed(cell):
            if other in self.failed:
                return f"it matches the KL of {other.name}, which is not done"
            # left out by --only: nothing of this process will ever make it
            if other not in self.done and other not in self.waiting and other not in self.started:
                return f"it matches the KL of {other.name}, which is not done; run that too"
        return None

    def _followed(self, cell: Cell) -> Iterator[Cell]:
        """The cells that must be done before this one."""
        arm = self.study.arms[cell.arm]
        if arm.follows is not None:
            yield Cell(cell.world, arm.follows, cell.seed)
        if arm.stop_at_kl_of is not None:
            yield Cell(cell.world, self.study.baseline, cell.seed)

    def _fail(self, cell: Cell, why: str) -> None:
        self.failed[cell] = why
        self._say(cell, f"failed: {why}")

    def _say(self, cell: Cell, what: str) -> None:
        left = ""
        if self.ran and self.waiting:
            # by the wall clock and not by the sum of cells, so that jobs at the same time are counted in
            seconds = (time.monotonic() - self.begin) / self.ran * (self.total - self.ran)
            left = f", about {duration(seconds)} left"
        self.report(f"{self.total - len(self.waiting)}/{self.total} {cell.name}: {what}{left}")


def failed_rows(failed: dict[Cell, str]) -> list[dict[str, Any]]:
    """The failed cells as JSON."""
    return [{**cell._asdict(), "why": why} for cell, why in failed.items()]
