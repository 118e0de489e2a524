"""Runs in a report: named by the role in their manifest, earlier ones by their folder (golden); bad input."""

import json
from pathlib import Path

import pytest

from sarm_control.cli import main
from sarm_control.errors import TrainingError
from sarm_control.report.sources import read_sources
from sarm_control.training import Role, RunConfig, start_run


def run(folder: Path, reward: dict[str, object], role: Role | None = None) -> Path:
    """A run before its first step."""
    values = {"policy": {"model": "policy"}, "reward": reward, "data": {"prompts": "prompts.jsonl"}}
    start_run(folder, RunConfig.model_validate(values), role=role)
    return folder


def without_role(folder: Path) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["role"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_golden_runs_are_named_by_their_roles(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "none", {}),
        run(tmp_path / "ours", {"edits": ["3=0"]}),
        run(tmp_path / "pattern", {"patterns": {"never": 1.0}}),
        run(tmp_path / "shuffled", {"edits": ["4=0"]}, "placebo"),
        run(tmp_path / "random", {"edits": ["4=0"]}, "controlled"),
    ]
    assert [one.title for one in read_sources(runs).runs] == [
        "no control",
        "ours",
        "pattern",
        "shuffled (placebo)",
        "random",
    ]


def test_golden_runs_of_an_earlier_version_are_named_by_folder_and_controls(tmp_path: Path) -> None:
    runs = [
        without_role(run(tmp_path / "seed1", {})),
        without_role(run(tmp_path / "ours", {"edits": ["3=0"]})),
        without_role(run(tmp_path / "random", {"edits": ["4=0"]})),
    ]
    (runs[1] / "manifest.json").unlink()
    titles = [one.title for one in read_sources(runs).runs]
    assert titles == ["seed1 (no control)", "ours", "random (placebo)"]


def test_the_report_holds_the_role_of_each_run(tmp_path: Path) -> None:
    runs = [run(tmp_path / "none", {}), run(tmp_path / "shuffled", {"edits": ["4=0"]}, "placebo")]
    assert main(["--quiet", "report", *map(str, runs), "-o", str(tmp_path / "r")]) == 0
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    assert [one["role"] for one in content["runs"]] == ["no control", "placebo"]
    assert "shuffled (placebo)" in (tmp_path / "r" / "report.html").read_text()


def test_a_role_that_there_is_not_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = run(tmp_path / "none", {})
    manifest = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps({**manifest, "role": "control"}))
    allowed = "'no control', 'controlled', 'placebo'"
    message = f"{damaged}/manifest.json: role is 'control'; it may be {allowed}"
    with pytest.raises(TrainingError) as caught:
        _ = read_sources([damaged]).runs[0].role
    assert str(caught.value) == message
    assert main(["report", str(damaged), "-o", str(tmp_path / "r")]) != 0
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
