"""`sarm study`: arms x seeds x worlds over one run file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT
from sarm_control.cli._next import say_next
from sarm_control.console import say

if TYPE_CHECKING:
    from sarm_control.study import Cell, CellState, Finished, StudyConfig

EXIT_NOT_ALL = 1


def study(
    config: Annotated[Path, Parameter(group=INPUT, help="YAML file of a study: arms, seeds, worlds.")],
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder. Default: studies/ and the file's name."),
    ] = None,
    jobs: Annotated[
        int,
        Parameter(
            group=COMPUTE,
            name=["--jobs", "-j"],
            validator=validators.Number(gte=1),
            help="Cells trained at a time, each in a process of its own; the cores are shared out.",
        ),
    ] = 1,
    only: Annotated[
        list[str] | None,
        Parameter(
            group=COMPUTE,
            help="Run only these, may be repeated: an arm, a world, or a cell such as 'lab/none/seed-*'.",
        ),
    ] = None,
    plan: Annotated[
        bool,
        Parameter(
            group=COMPUTE,
            negative="",
            help="Say what it takes, in time and disk, and run no cell: from finished cells, else from a "
            "probe of two steps.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="Also write study.json to this file.")
    ] = None,
) -> int:
    """Train many arms with many seeds, and compare them with intervals.

    The intervals are over seeds and prompts, or over worlds.

    An arm is a way to train: no control, the controls of a discovery, a placebo from shuffled labels, a
    run stopped at another arm's KL. A world is a reward model with its data. Every cell is a run folder of
    its own. The same command goes on after a stop or a kill: what is done is never run again, what is half
    done goes on.

    A cell that fails leaves the others alone; the exit code is then 1. study.json holds every cell with its
    settings' digest, its commit, its measures and the monitors that fired, and the tables with their
    intervals.
    """
    from sarm_control.files import check_writable
    from sarm_control.study import cells_of, chosen_cells, load_study, open_study, run_study

    asked = load_study(config)
    folder = out or Path("studies") / config.stem
    if json_file is not None:
        check_writable(json_file)
    chosen = chosen_cells(cells_of(asked), only or [])
    states = open_study(folder, asked)
    if plan:
        _plan(folder, asked, states, chosen, jobs, json_file)
        _next(config, out, jobs, only)
        return 0
    try:
        finished = run_study(folder, asked, states, chosen, jobs=jobs, report=say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted\n  go on with: sarm study {config} -o {folder}") from None
    return _report(folder, asked, finished, chosen, json_file, config)


def _plan(
    folder: Path,
    asked: "StudyConfig",
    states: "Sequence[CellState]",
    chosen: "Sequence[Cell]",
    jobs: int,
    json_file: Path | None,
) -> None:
    from sarm_control.errors import TrainingError
    from sarm_control.files import write_json
    from sarm_control.study import first_to_probe, needs_probe, plan_study, plan_text, probe

    # only where nothing is known: a probe loads every model of its cell
    if needs_probe(folder, states):
        cell = first_to_probe(asked, chosen)
        if cell is not None:
            say(f"a probe of two steps: {cell.name}")
            why = probe(folder, cell)
            if why is not None:
                raise TrainingError(f"the probe of {cell.name} failed: {why}", hint="mend that first")
    found = plan_study(folder, asked, states, chosen, jobs)
    for line in plan_text(found):
        print(line)
    if json_file is not None:
        write_json(json_file, found.as_json())


def _next(config: Path, out: Path | None, jobs: int, only: "Sequence[str] | None") -> None:
    where = () if out is None else ("-o", out)
    some = [word for one in only or () for word in ("--only", one)]
    say_next("study", config, *where, *(() if jobs == 1 else ("--jobs", str(jobs))), *some)


def _report(
    folder: Path,
    asked: "StudyConfig",
    finished: "Finished",
    chosen: "Sequence[Cell]",
    json_file: Path | None,
    config: Path,
) -> int:
    from sarm_control.files import write_json
    from sarm_control.study import failed_rows, open_study, study_tables, study_text

    # opened again: cells have ended since, in other processes too
    found: dict[str, Any] = study_tables(folder, asked, open_study(folder, asked))
    found["failed"] = failed_rows(finished.failed)
    for path in (folder / "study.json", json_file):
        if path is not None:
            write_json(path, found)
    print(study_text(found))
    for cell, why in finished.failed.items():
        print(f"failed: {cell.name}: {why}")
    print(folder / "study.json")
    sys.stdout.flush()
    missing = [cell for cell in chosen if cell not in finished.done]
    if missing:
        say_next("study", config, "-o", folder)
        return EXIT_NOT_ALL
    run = chosen[0].run(folder)
    say_next("config", "show", run / "config.yaml")
    return 0
