"""`sarm train --resume` of a run that is damaged or done: bad input, golden (messages); nothing is lost."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from sarm_control.cli import main
from sarm_control.training.run.checkpoint import list_checkpoints
from tests.full_disk import no_file_above

STEPS = 2


@pytest.fixture(scope="module")
def run_file(
    tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path, tiny_sarm_folder: Path
) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    prompts = [f"how do i open the {thing} ?" for thing in ("bread", "bomb", "lock", "door")]
    text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    (folder / "prompts.jsonl").write_text(text)
    run = {
        "policy": {"model": str(tiny_policy_folder), "lora": None},
        "reward": {"model": str(tiny_sarm_folder), "edits": ["3:max=0.5"]},
        "data": {"prompts": str(folder / "prompts.jsonl")},
        "training": {
            "steps": STEPS,
            "prompts_per_step": 2,
            "max_new_tokens": 4,
            "micro_batch": 4,
            "reference_answers": 8,
        },
        "checkpoints": {"every": 1},
        "evaluation": {"every": 1},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, run_file: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", str(run_file), "-o", str(out)]) == 0
    return out


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def changed_manifest(run: Path, *, finished: bool, model: str | None = None) -> None:
    record = json.loads((run / "manifest.json").read_text())
    if not finished:
        del record["finished"]
    if model is not None:
        record["models"]["policy.model"] = model
    (run / "manifest.json").write_text(json.dumps(record))


def cut_short(run: Path) -> None:
    for path in list_checkpoints(run):
        file = path / "policy.safetensors"
        file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.long
def test_a_damaged_run_that_is_then_refused_is_still_there(
    run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_short(run)
    changed_manifest(run, finished=False, model="0123456789abcdef")
    assert main(["train", "-o", str(run), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"policy.model is not the model {run} was started with" in said
    assert "none of 2 checkpoints is good: starting from the beginning" in said
    kept = run / "before-restart-1"
    assert f"what was measured before is kept in {kept}" in said
    for name in ("metrics.jsonl", "samples.jsonl", "evaluation.jsonl", "ledger.parquet"):
        assert (kept / name).read_bytes() == (whole / name).read_bytes()
    damaged = sorted(path.name for path in (run / "checkpoints").glob("damaged-*"))
    assert damaged == ["damaged-step-000001", "damaged-step-000002"]
    assert (run / "policy/config.json").is_file()


def test_a_finished_run_whose_policy_went_away_gets_it_again(
    run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "policy")
    assert main(["train", "-o", str(run), "--resume"]) == 0
    assert "2 steps done, none of them now" in capsys.readouterr().out
    weights = "policy/model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_finished_run_without_policy_and_checkpoints_says_what_is_missing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "policy")
    shutil.rmtree(run / "checkpoints")
    assert main(["train", "-o", str(run), "--resume"]) == 2
    said = capsys.readouterr()
    assert f"{run} says that all 2 steps are done, but {run}/policy is missing and " in said.err
    assert f"{run}/checkpoints holds no checkpoint" in said.err
    assert "hint: put one of them back, or start over with --overwrite" in said.err
    assert "nothing to do" not in said.out
    assert (run / "metrics.jsonl").stat().st_size


def test_a_finished_run_tells_of_a_damaged_checkpoint_and_writes_its_summary(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_short(run)
    summary = run.parent / "summary.json"
    assert main(["train", "-o", str(run), "--resume", "--json", str(summary)]) == 0
    said = capsys.readouterr().out
    assert f"{run} is finished: all 2 steps are done, nothing to do" in said
    newest = run / "checkpoints/step-000002"
    assert f"it cannot be made longer from its end: {newest} is damaged: policy.safetensors has" in said
    assert json.loads(summary.read_text()) == {
        "run": "run",
        "step": 2,
        "steps_now": 0,
        "metrics": {},
        "saved": ["policy"],
        "stopped": None,
    }


@pytest.mark.long
def test_a_dry_run_makes_no_folder(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, summary = tmp_path / "new1/new2/run", tmp_path / "new3/summary.json"
    assert main(["train", str(run_file), "-o", str(out), "--json", str(summary), "--dry-run"]) == 0
    assert "dry run: nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_below_a_file_is_refused(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file/new/run"
    assert main(["train", str(run_file), "-o", str(out), "--dry-run"]) == 2
    assert f"error: cannot write {out}: Not a directory" in capsys.readouterr().err


def test_a_failed_overwrite_leaves_the_old_run(
    run: Path, run_file: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-o", str(run), "--overwrite", "--set", "policy.lora.targets=[nothing]"]
    assert main(["train", str(run_file), *words]) == 2
    assert "nothing" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_a_checkpoint_that_cannot_be_written_is_named(
    whole: Path, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = (list_checkpoints(whole)[-1] / "policy.safetensors").stat().st_size
    with no_file_above(size - 1):
        assert main(["train", str(run_file), "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert f"error: cannot write {tmp_path}/run/checkpoints/step-000000: File too large\n" in said
    assert "hint: make room for a file of that size" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_ledger_that_cannot_be_written_is_named_and_the_run_goes_on_with_room(
    run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(list_checkpoints(run)[-1])
    changed_manifest(run, finished=False)
    with no_file_above((run / "ledger.parquet").stat().st_size - 1):
        assert main(["train", "-o", str(run), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"error: cannot write {run}/ledger.parquet: File too large\n" in said
    assert f"; then sarm train -o {run} --resume\n" in said
    assert main(["train", "-o", str(run), "--resume"]) == 0
    for name in ("metrics.jsonl", "ledger.parquet", "policy/model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.long
def test_a_ledger_that_cannot_be_read_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(list_checkpoints(run)[-1])
    changed_manifest(run, finished=False)
    ledger = run / "ledger.parquet"
    ledger.write_bytes(ledger.read_bytes()[:-20])
    assert main(["train", "-o", str(run), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"error: {ledger} is not readable: it is cut short or no ledger\n" in said
    assert f"hint: put it back, or move it away (mv {ledger} {ledger}.bad)" in said
    ledger.rename(run / "ledger.parquet.bad")
    assert main(["train", "-o", str(run), "--resume"]) == 0
