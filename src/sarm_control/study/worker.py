"""One task of a study in a process of its own: the discovery of a world, a cell, or a probe.

`python -m sarm_control.study.worker FOLDER TASK...` is started by `study.runner`. A failure here, even a
kill, is one failed task and leaves all others alone. When the process that started it is gone, its end of
standard input closes, and this process ends at once: a killed study leaves nobody behind that still writes.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.console import progress, say
from sarm_control.errors import OutputError, SarmError
from sarm_control.files import manifest, write_json, write_jsonl
from sarm_control.study.cells import BEGUN, DONE, Cell, asked, digest
from sarm_control.study.provenance import commit, processor
from sarm_control.study.study_config import StudyConfig, folder_name, load_study
from sarm_control.training import Role, RunConfig, read_document

DISCOVERY, CELL, PROBE = "discovery", "cell", "probe"
EXIT_FAILED, EXIT_BUSY = 2, 75
"""75 is `EX_TEMPFAIL` of sysexits.h: another process holds the cell."""
STUDY_FILE = "study.yaml"
PROBE_STEPS, PROBE_PROMPTS = 2, 16


def main(words: Sequence[str]) -> int:
    """Does one task and returns its exit code."""
    # first of all: a parent that is killed while models load would leave this process behind
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder, task, *further = words
    try:
        study = load_study(Path(folder) / STUDY_FILE)
        if task == DISCOVERY:
            _discovery(Path(folder), study, further[0])
        else:
            world, arm, seed = further
            cell = Cell(world, arm, int(seed))
            (run_cell if task == CELL else run_probe)(Path(folder), study, cell)
    except SarmError as error:
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"error: {error}{hint}\n")
        # by the words and not by `BEING_WRITTEN`, whose module loads torch
        busy = isinstance(error, OutputError) and "is being written by another process" in str(error)
        return EXIT_BUSY if busy else EXIT_FAILED
    return 0


def _end_with_parent() -> None:
    """Waits for the end of standard input, which comes when the process that started this one is gone."""
    while os.read(0, 4096):
        continue
    # `sys.exit` would end this thread alone
    os._exit(EXIT_FAILED)


def _discovery(folder: Path, study: StudyConfig, world: str) -> None:
    from sarm_control.study.arms import write_controls

    write_controls(folder, study, world, progress=progress)


def run_cell(folder: Path, study: StudyConfig, cell: Cell) -> None:
    """Trains a cell, or goes on with it, and measures its answers.

    Raises:
        OutputError: another process works on it.
        SarmError: a model, file or setting that cannot be used.
    """
    from sarm_control.study.arms import controls_about, controls_file, role_of_cell, run_config
    from sarm_control.study.measures import CellAnswers
    from sarm_control.training import hold_run

    run = cell.run(folder)
    run.parent.mkdir(parents=True, exist_ok=True)
    # one lock a cell: two studies in one folder share the work
    hold_run(run)
    wanted = asked(study, base_values(study), cell)
    record: dict[str, Any] = {"asked": wanted, "status": BEGUN, **cell._asdict(), "commit": commit()}
    # before the run: of a cell that is killed it is known what was asked
    if not cell.record(folder).is_file():
        write_json(cell.record(folder), record)
    config = run_config(folder, study, cell)
    trained = train_and_measure(folder, study, cell, config, role_of_cell(study, cell, config))
    # before the record: a cell counts as done by its record, and what is done has its answers
    write_jsonl(cell.answers(folder), trained.rows)
    controls = controls_file(folder, study, cell)
    write_json(
        cell.record(folder),
        {
            **record,
            "status": DONE,
            "config": digest(config.to_dict()),
            "versions": manifest("study", config={})["versions"],
            "steps": trained.step,
            "stopped": trained.stopped,
            "kl_coef": config.training.kl_coef,
            "kl_target": config.training.kl_target,
            "controls": [str(one) for one in config.reward.edits]
            + [_penalty(one) for one in config.reward.penalties],
            "discovery": None if controls is None else dict(controls_about(controls)),
            "measures": CellAnswers(trained.rows).means(),
            "monitors": monitors(run),
            "seconds": trained.seconds,
            **processor(),
            "steps_now": trained.steps_now,
            "answers": len(trained.rows),
            "bytes": size_of(run),
        },
    )
    # last, when their rows are in the answers: a kill before leaves them to the process that goes on
    for path in cell.measurements(folder):
        path.unlink()


class Trained(NamedTuple):
    """A run and its measured answers.

    Args:
        rows: of the starting policy, of those measured on the way, and of the last one, in this order.
        step: the last one.
        steps_now: done by this process.
        stopped: why the run ended before its last step, or None.
        seconds: `training` and `measuring`, of this process.
    """

    rows: list[dict[str, Any]]
    step: int
    steps_now: int
    stopped: str | None
    seconds: dict[str, float]


def train_and_measure(
    folder: Path, study: StudyConfig, cell: Cell, config: RunConfig, role: Role | None
) -> Trained:
    """Trains from one measurement to the next, up to the first beyond the study's largest KL level.

    What was measured by an earlier process is read. The starting policy is measured last: by then another arm
    of the seed has often done it.
    """
    from sarm_control.study.equal_kl import mean_kl, policy_at
    from sarm_control.study.measures import END, Measuring, read_rows_of
    from sarm_control.training import settled_days

    run = cell.run(folder)
    seconds, now, stopped = {"training": 0.0, "measuring": 0.0}, 0, None
    measuring: Measuring | None = None
    found: dict[int, list[dict[str, Any]]] = {}
    for mark in study.measured_steps(config.training.steps):
        path, begin = cell.measurement(folder, mark), time.monotonic()
        if path.is_file():
            step, found[mark] = mark, read_rows_of(path)
        else:
            # the only setting of a run that may grow is its last step
            until = config.training.model_copy(update={"steps": mark})
            summary = train(run, config.model_copy(update={"training": until}), role)
            step, now, stopped = summary["step"], now + summary["steps_now"], summary["stopped"]
            seconds["training"] += time.monotonic() - begin
            begin = time.monotonic()
            measuring = measuring or Measuring(
                study, cell.world, settled_days(run, config), progress=progress
            )
            found[mark] = measuring.of_run(run, policy_at(step))
            write_jsonl(path, found[mark])
            seconds["measuring"] += time.monotonic() - begin
        # beyond the largest level nothing is compared, so that further steps would be trained for nothing
        if stopped is not None or (study.kl_levels and mean_kl(found[mark]) >= study.kl_levels[-1]):
            break
    begin = time.monotonic()
    measuring = measuring or Measuring(study, cell.world, settled_days(run, config), progress=progress)
    start = measuring.of_start(folder / "starts" / folder_name(cell.world))
    seconds["measuring"] += time.monotonic() - begin
    found[mark] = [{**row, "policy": END} for row in found[mark]]
    return Trained([*start, *(row for rows in found.values() for row in rows)], step, now, stopped, seconds)


def _penalty(penalty: Any) -> str:
    amount = penalty.alpha if penalty.alpha is not None else f"target rate {penalty.target_rate}"
    return f"{penalty.latent}: {penalty.form} above {penalty.tau}, {amount}"


def base_values(study: StudyConfig) -> dict[str, Any]:
    """The values of the base file; none without one."""
    return {} if study.base is None else dict(read_document(study.base).values)


def train(run: Path, config: RunConfig, role: Role | None = None) -> dict[str, Any]:
    """Trains a run folder to its end from where it is; the summary of `run_training`."""
    from sarm_control.training import finished_run, record_role, run_training, start_run

    known = finished_run(run, config) if (run / "config.yaml").is_file() else None
    if known is not None:
        record_role(run, role)
        return known.summary()
    asked_files = config.evaluation
    data = config.data
    further = (
        data.human,
        config.evaluation_prompts if asked_files.every else None,
        asked_files.should_respond,
    )
    inputs = [data.prompts, *data.exclude, *(path for path in further if path is not None)]
    start = start_run(run, config, resume=True, inputs=inputs, role=role)
    for note in start.notes:
        say(note)
    return run_training(config, start, progress=progress, report=say)


def monitors(run: Path) -> list[dict[str, Any]]:
    """The monitors that fired in a run, with the step and what they said."""
    return _rows(run / "warnings.jsonl")


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_probe(folder: Path, study: StudyConfig, cell: Cell) -> None:
    """Two steps and a few answers of a cell, to see what the others will take; kept in `probe.json`.

    Raises:
        SarmError: as `run_cell`.
    """
    import tempfile

    from sarm_control.study.arms import run_config
    from sarm_control.study.measures import END, Measuring

    config = run_config(folder, study, cell)
    short = config.training.model_copy(update={"steps": min(PROBE_STEPS, config.training.steps)})
    config = config.model_copy(update={"training": short})
    # in the folder of the study and not in the system's, which may be a small disk or one in memory
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        run = Path(scratch) / "run"
        begin = time.monotonic()
        train(run, config)
        trained = time.monotonic()
        rows = Measuring(study, cell.world, config, limit=PROBE_PROMPTS).of_run(run, END)
        measured = time.monotonic() - trained
        steps = [float(row["seconds/step"]) for row in _rows(run / "timing.jsonl")]
        values = {
            "cell": cell._asdict(),
            "commit": commit(),
            # the first step also fills caches
            "step": steps[-1],
            # what a run takes beside its steps, such as loading
            "once": trained - begin - sum(steps),
            "answer": measured / len(rows),
            "bytes": size_of(run),
        }
    write_json(folder / "probe.json", values)


def _rows(path: Path) -> list[dict[str, Any]]:
    from sarm_control.data import json_object, read_lines

    return [json_object(line.data) for line in read_lines(path)] if path.is_file() else []


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(sys.argv[1:]))
