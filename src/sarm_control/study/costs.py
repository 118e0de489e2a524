"""What a study will take: time and disk, from finished cells or from a probe.

A probe is two steps and a few answers of the first cell. Its second step counts: the first also fills caches.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sarm_control.bounded_json import read_json_object
from sarm_control.comparison import unique_prompts
from sarm_control.console import duration
from sarm_control.data import read_rows
from sarm_control.errors import OutputError
from sarm_control.study.arms import shared_documents
from sarm_control.study.cells import BEGUN, DONE, Cell, CellState
from sarm_control.study.study_config import StudyConfig
from sarm_control.training import Document, load_config

PROBE_FILE = "probe.json"


class StudyPlan(NamedTuple):
    """What is to be done, and what it takes.

    Args:
        cells: chosen ones.
        done: of them complete.
        begun: of them half done; they count as if they began anew.
        seconds: of the rest, all jobs together; None where nothing is known.
        jobs: processes at a time.
        bytes: that the rest adds.
        free: bytes on the disk.
        source: what the figures come from, in words.
    """

    cells: int
    done: int
    begun: int
    seconds: float | None
    jobs: int
    bytes: int | None
    free: int
    source: str

    def as_json(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        return dict(self._asdict())


def needs_probe(folder: Path, states: Sequence[CellState]) -> bool:
    """Whether nothing is known yet: no whole cell is done, and there was no probe."""
    return not _whole(states) and not (folder / PROBE_FILE).is_file()


def plan_study(
    folder: Path, study: StudyConfig, states: Sequence[CellState], chosen: Sequence[Cell], jobs: int
) -> StudyPlan:
    """The plan of the chosen cells.

    Args:
        folder: of the study.
        study: the study.
        states: of all its cells.
        chosen: which are meant.
        jobs: processes at a time, taken not to slow each other down.
    """
    known = {state.cell: state.status for state in states}
    left = [cell for cell in chosen if known.get(cell) != DONE]
    whole, path = _whole(states), folder / PROBE_FILE
    seconds: float | None = None
    size: int | None = None
    source = "nothing measured yet"
    if whole:
        # finished cells say more than a probe: their answers have the lengths that training leads to
        seconds = len(left) * float(np.mean([sum(one["seconds"].values()) for one in whole]))
        size = len(left) * int(np.mean([one["bytes"] for one in whole]))
        source = f"{len(whole)} finished cells"
    elif path.is_file():
        probe = read_json_object(path, hint=f"delete {path}", error=OutputError)
        seconds = sum(_of_probe(study, cell, probe) for cell in left)
        size = len(left) * int(probe["bytes"])
        source = "a probe of 2 steps"
    return StudyPlan(
        cells=len(chosen),
        done=len(chosen) - len(left),
        begun=sum(known.get(cell) == BEGUN for cell in left),
        seconds=None if seconds is None else seconds / jobs,
        jobs=jobs,
        bytes=size,
        free=shutil.disk_usage(folder).free,
        source=source,
    )


def _whole(states: Sequence[CellState]) -> list[dict[str, Any]]:
    """Records of cells that were trained in one go."""
    return [
        state.record
        for state in states
        # one that went on from a checkpoint knows only the seconds since then
        if state.status == DONE and state.record.get("steps_now") == state.record.get("steps")
    ]


def _of_probe(study: StudyConfig, cell: Cell, probe: dict[str, Any]) -> float:
    """Seconds of a cell; one that is stopped early counts like the run that it stops."""
    documents = [*shared_documents(study, cell.world), Document(study.arms[cell.arm].set, {}, "arm")]
    steps = load_config(study.base, documents).training.steps
    prompts = len(unique_prompts(read_rows(study.prompts_of(cell.world), want={"prompt"})))
    # the starting policy answers too, once for all arms of a seed; a run that ends early takes less
    arms = sum(cell.seed in study.seeds_of(name) for name in study.arms)
    answers = (len(study.measured_steps(steps)) + 1 / arms) * prompts * study.answers_per_prompt
    return float(probe["once"] + probe["step"] * steps + probe["answer"] * answers)


def plan_text(plan: StudyPlan) -> list[str]:
    """The plan in words, a fact a line."""
    half = f", {plan.begun} half done" if plan.begun else ""
    lines = [f"{plan.cells} cells: {plan.done} done{half}, {plan.cells - plan.done} to run"]
    if plan.seconds is None or plan.bytes is None:
        return [*lines, "time and disk: nothing measured yet"]
    how = "one at a time" if plan.jobs == 1 else f"{plan.jobs} at a time, if they do not slow each other down"
    lines.append(f"time: about {duration(plan.seconds)}, {how}")
    lines.append(f"disk: about {_size(plan.bytes)}; {_size(plan.free)} are free")
    return [*lines, f"both from {plan.source}, without the discoveries"]


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
