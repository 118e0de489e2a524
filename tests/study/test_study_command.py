"""`sarm study`: whole studies of tiny models, in processes of their own; kills, failures, resumption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sarm_control.cli import main
from sarm_control.locks import locked
from sarm_control.study import StudyConfig, crossed_interval, load_study, open_study
from sarm_control.study.cells import Cell
from sarm_control.study.measures import read_answers
from tests.present import present

pytestmark = pytest.mark.long

ARMS = ("none", "edited", "stopped")


def sarm(*words: object) -> int:
    return main(["study", *map(str, words)])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, asked: dict[str, Any]) -> Path:
    """A whole study, two cells at a time."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "study.yaml").write_text(yaml.safe_dump(asked, sort_keys=False))
    assert sarm(folder / "study.yaml", "-o", folder / "out", "--jobs", 2, "--json", folder / "copy.json") == 0
    return folder


@pytest.fixture(scope="session")
def found(made: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((made / "out" / "study.json").read_text())
    return report


def test_every_cell_is_an_ordinary_run_folder_and_a_row(made: Path, found: dict[str, Any]) -> None:
    assert [(cell["arm"], cell["seed"], cell["status"]) for cell in found["cells"]] == [
        *((arm, 0, "done") for arm in ARMS),
        *((arm, 1, "done") for arm in ("none", "edited")),
    ]
    for cell in found["cells"]:
        run = made / "out" / "cells" / cell["name"]
        assert {"config.yaml", "manifest.json", "metrics.jsonl", "policy"} <= {
            path.name for path in run.iterdir()
        }
        assert len(cell["config"]) == 16
        assert cell["versions"]["sarm-control"]
        assert cell["seconds"]["training"] > 0
    commits = {cell["commit"] for cell in found["cells"]}
    assert len(commits) == 1
    digests = {(cell["arm"], cell["config"]) for cell in found["cells"]}
    assert len(digests) == 5
    assert (made / "copy.json").read_bytes() == (made / "out" / "study.json").read_bytes()


def test_the_intervals_are_those_of_the_answers(made: Path, found: dict[str, Any]) -> None:
    differences = []
    for seed in (0, 1):
        ends = [
            present(read_answers(Cell("tiny", arm, seed).answers(made / "out")).by_prompt("reward", "end"))
            for arm in ("edited", "none")
        ]
        differences.append(ends[0] - ends[1])
    unit = found["worlds"]["tiny"]["units"]["reward"]
    shown = found["worlds"]["tiny"]["measures"]["reward"]["against"]["edited - none"]
    wanted = crossed_interval(np.stack(differences) / unit)
    assert shown == pytest.approx(wanted._asdict())
    assert shown["seeds"] == 2
    assert shown["prompts"] == 4
    assert set(found["worlds"]["tiny"]["measures"]) >= {"rate", "stripped_reward", "reward", "kl", "refuses"}
    assert "edited - stopped" in found["worlds"]["tiny"]["measures"]["rate"]["against"]
    assert found["over_worlds"] is None


def test_both_policies_of_a_seed_have_the_same_start(made: Path) -> None:
    starts = [
        present(read_answers(Cell("tiny", arm, 0).answers(made / "out")).by_prompt("reward", "start"))
        for arm in ARMS
    ]
    assert all((one == starts[0]).all() for one in starts)


def test_a_stopped_arm_is_the_beginning_of_the_baseline(made: Path, found: dict[str, Any]) -> None:
    for cell in found["cells"]:
        if cell["arm"] == "stopped":
            tiny = made / "out" / "cells" / "tiny"
            runs = [tiny / arm / f"seed-{cell['seed']}" for arm in ("stopped", "none")]
            one, two = ((run / "metrics.jsonl").read_text().splitlines() for run in runs)
            assert one == two[: cell["steps"]]


def test_what_is_done_is_not_run_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (made / "out" / "cells").rglob("*.json")}
    assert sarm(made / "study.yaml", "-o", made / "out") == 0
    assert {path: path.stat().st_mtime_ns for path in (made / "out" / "cells").rglob("*.json")} == before
    shown = capsys.readouterr()
    assert "tiny: 4 prompts" in shown.out
    assert "edited - none" in shown.out
    assert "next: sarm config show" in shown.err


def test_the_plan_is_made_from_finished_cells(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sarm(made / "study.yaml", "-o", made / "out", "--plan") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 cells: 5 done, 0 to run"
    assert lines[1] == "time: about 0 s, one at a time"
    assert lines[3].startswith("both from 5 finished cells")


def test_other_settings_in_the_same_folder_are_refused(
    made: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = made / "other.yaml"
    other.write_text(yaml.safe_dump({**asked, "set": {"training": {"steps": 3}}}))
    assert sarm(other, "-o", made / "out") == 2
    assert "was made with other settings or data than the study file names now" in capsys.readouterr().err


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory, made: Path, asked: dict[str, Any]) -> tuple[Path, int]:
    """The study with one more arm, which fails; the other cells are done. And the exit code."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(made / "out", folder / "out")
    arms = {**asked["arms"], "bad": {"set": {"policy": {"model": "nowhere/at-all/x"}}, "seeds": [0]}}
    (folder / "study.yaml").write_text(yaml.safe_dump({**asked, "arms": arms}, sort_keys=False))
    return folder, sarm(folder / "study.yaml", "-o", folder / "out", "--jobs", 2)


def test_a_cell_that_fails_leaves_the_others_alone(broken: tuple[Path, int]) -> None:
    folder, code = broken
    assert code == 1
    found = json.loads((folder / "out" / "study.json").read_text())
    status = {(cell["arm"], cell["seed"]): cell["status"] for cell in found["cells"]}
    assert status[("none", 1)] == "done"
    assert status[("bad", 0)] == "begun"
    assert [(one["arm"], one["seed"]) for one in found["failed"]] == [("bad", 0)]
    assert "nowhere/at-all/x" in found["failed"][0]["why"]


def test_what_a_match_needs_is_named(
    tmp_path: Path, study_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sarm(study_file, "-o", tmp_path / "out", "--only", "stopped") == 1
    why = "it matches the KL of tiny/edited/seed-0, which is not done; run that too"
    assert f"failed: tiny/stopped/seed-0: {why}" in capsys.readouterr().out


def test_what_waits_for_a_cell_of_another_process_has_not_failed(
    tmp_path: Path, study_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run = out / "cells/tiny/edited/seed-0"
    open_study(out, load_study(study_file))
    run.parent.mkdir(parents=True)
    with locked(run):
        words = ("tiny/edited/seed-0", "tiny/stopped/seed-0", "tiny/none/seed-0")
        assert sarm(study_file, "-o", out, *(part for one in words for part in ("--only", one))) == 1
    shown = capsys.readouterr()
    assert "tiny/edited/seed-0: another process works on it" in shown.err
    why = "it matches the KL of tiny/edited/seed-0, on which another process works"
    assert f"tiny/stopped/seed-0: {why}" in shown.err
    assert "failed:" not in shown.out
    assert json.loads((out / "study.json").read_text())["failed"] == []


def test_a_study_killed_with_its_cell_half_done_goes_on_to_the_same_bytes(
    tmp_path: Path, made: Path, asked: dict[str, Any]
) -> None:
    """kill -9 of the command: its cell ends with it, the lock is free, and the run goes on."""
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(asked, sort_keys=False))
    words = [sys.executable, "-m", "sarm_control", "study", str(path), "-o", str(out), "--only", "none"]
    run, whole = out / "cells/tiny/none/seed-0", made / "out/cells/tiny/none/seed-0"
    process = subprocess.Popen([*words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 240
    while not (run / "checkpoints/step-000000").exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # the cell notices that it is alone: its lock becomes free
    states = open_study(out, StudyConfig.model_validate(asked))
    assert {state.status for state in states if state.cell == Cell("tiny", "none", 0)} == {"begun"}
    while sarm(path, "-o", out, "--only", "tiny/none/seed-0") != 0:
        assert time.monotonic() < limit
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (
        read_answers(Cell("tiny", "none", 0).answers(out)).rows
        == read_answers(Cell("tiny", "none", 0).answers(made / "out")).rows
    )
