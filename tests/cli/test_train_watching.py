"""What `sarm train` looks at on its way: the ledger, evaluations, warnings, and stopping on one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from sarm_control.cli import main
from sarm_control.control import ReferenceStatistics
from sarm_control.reward_model import RewardModel
from sarm_control.training.run.checkpoint import list_checkpoints

STEPS = 10
BYTES = ("metrics.jsonl", "samples.jsonl", "evaluation.jsonl", "warnings.jsonl", "ledger.parquet")


@pytest.fixture(scope="module")
def run_file(
    tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path, tiny_sarm_folder: Path
) -> Path:
    """A run whose penalty on latent 5 no answer can reach: dead by construction."""
    folder = tmp_path_factory.mktemp("watching")
    prompts = [f"how do i {verb} the {thing} ?" for verb in ("cook", "open") for thing in ("bread", "door")]
    for name, part in (("prompts", prompts), ("held_out", prompts[::-1])):
        text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in part)
        (folder / f"{name}.jsonl").write_text(text)
    run = {
        "policy": {"model": str(tiny_policy_folder), "lora": None},
        "reward": {
            "model": str(tiny_sarm_folder),
            "edits": ["3:max=0.5"],
            "penalties": [
                "5:tau=1e9,alpha=0.5sd",
                "9:tau=0,alpha=0.2sd",
                "7:tau=1e9,alpha=0.1sd",
                "7:tau=0,alpha=0.1sd,form=hinge",
            ],
            "shaping": "par",
        },
        "data": {"prompts": str(folder / "prompts.jsonl")},
        "training": {
            "steps": STEPS,
            "prompts_per_step": 2,
            "max_new_tokens": 5,
            "micro_batch": 4,
            "learning_rate": 1e-2,
            "reference_answers": 8,
        },
        "checkpoints": {"every": 5},
        "evaluation": {
            "every": 4,
            "prompts": str(folder / "held_out.jsonl"),
            "should_respond": str(folder / "prompts.jsonl"),
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, run_file: Path) -> Path:
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", str(run_file), "-o", str(out)]) == 0
    return out


@pytest.mark.long
def test_a_charge_that_came_out_below_what_the_latent_pays_is_told_at_the_start(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = yaml.safe_load(run_file.read_text())
    amount = {"latent": 9, "tau": 0, "alpha": "0.2sd"}
    run["reward"]["edits"] = []
    run["reward"]["penalties"] = [{**amount, "pays": 1e6}, {**amount, "latent": 5, "pays": 1e-9}]
    run["training"]["steps"], run["evaluation"] = 1, {"every": 0}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert main(["train", str(tmp_path / "run.yaml"), "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    sd = ReferenceStatistics.load(tmp_path / "run" / "reference.json").sd
    assert f"warning: the penalty on latent 9 takes {0.2 * sd:.3g}, less than the 1e+06 that" in said
    assert "penalty on latent 5 takes" not in said


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.long
def test_the_ledger_of_every_evaluation_sums_to_the_change(whole: Path) -> None:
    ledger = pq.read_table(whole / "ledger.parquet").to_pylist()
    found = rows(whole / "evaluation.jsonl")
    assert [row["step"] for row in found] == [4, 8, 10]
    for row in found:
        entries = [entry for entry in ledger if entry["step"] == row["step"]]
        terms = {(entry["term"], entry["latent"]) for entry in entries if entry["term"] != "latent"}
        assert terms == {
            ("edits", None),
            ("penalty", 5),
            ("penalty", 7),
            ("penalty", 9),
            ("human_kl", None),
            ("missing_end", None),
            ("shaping", None),
            ("rounding", None),
        }
        assert sum(entry["change"] for entry in entries) == pytest.approx(row["evaluation/change"], abs=1e-6)
        total = sum(entry["after"] for entry in entries)
        assert total == pytest.approx(row["evaluation/reward/total"], abs=1e-6)


@pytest.mark.long
def test_every_check_that_the_run_allows_has_its_numbers(whole: Path) -> None:
    names = {name for row in rows(whole / "evaluation.jsonl") for name in row}
    for check in (
        "threshold-hugging/9",
        "crowding-out/9",
        "closing-sentence",
        "length",
        "over-refusal",
        "proxy-gap",
    ):
        assert f"monitor/{check}" in names
    for form in ("indicator", "hinge"):
        assert {f"monitor/threshold-hugging/7/{form}", f"monitor/crowding-out/7/{form}"} < names
    last = rows(whole / "metrics.jsonl")[-1]
    assert last["monitor/dead-penalty/5"] == last["monitor/dead-penalty/7/indicator"] == 0.0
    assert last["monitor/dead-penalty/7/hinge"] == pytest.approx(last["latent/7/rate"], abs=0.5)


@pytest.mark.long
def test_the_kl_on_the_evaluation_answers_is_told_beside_the_ledger(whole: Path) -> None:
    """From the untrained policy, whose is 0; it is charged to tokens, so no part of the reward."""
    found = [row["evaluation/kl"] for row in rows(whole / "evaluation.jsonl")]
    assert all(value != 0 for value in found)
    terms = {entry["term"] for entry in pq.read_table(whole / "ledger.parquet").to_pylist()}
    assert "kl" not in terms


@pytest.mark.long
def test_the_dead_penalty_is_told_once(whole: Path) -> None:
    told = [row for row in rows(whole / "warnings.jsonl") if row["check"] == "dead-penalty"]
    assert [(row["step"], row["latent"]) for row in told if row["latent"] == 5] == [(8, 5)]
    told_of = [(row["latent"], row.get("form")) for row in told]
    assert told_of.count((5, None)) == told_of.count((7, "indicator")) == 1


@pytest.mark.long
def test_reference_statistics_and_amounts_are_in_the_run_folder(whole: Path) -> None:
    reference = json.loads((whole / "reference.json").read_text())
    statistics = ReferenceStatistics.load(whole / "reference.json")
    assert statistics.n == 8
    assert reference["controls"]["penalties"][0]["alpha"] == pytest.approx(0.5 * statistics.sd)
    state = json.loads((list_checkpoints(whole)[-1] / "state.json").read_text())
    assert state["state"]["reward"]["statistics"] == statistics.to_dict()


@pytest.mark.long
def test_an_engine_pays_by_the_shaping_of_the_run(whole: Path, tiny_sarm: RewardModel) -> None:
    from sarm_control.engines.reward.open_reward import ControlFiles, open_reward

    reward = open_reward(tiny_sarm, ControlFiles(controls=whole))
    paid = reward.breakdown(tiny_sarm.score(["how do i cook ?"] * 2, ["never cook ?", "yes"]))
    statistics = ReferenceStatistics.load(whole / "reference.json")
    assert np.ptp(paid.columns["reward/total"]) > 0
    assert (paid.columns["reward/shaping"] != 0).all()
    inside = (paid.columns["reward/total"] - statistics.mean) / statistics.sd
    assert ((inside > 0) & (inside < 1)).all()


@pytest.mark.long
def test_a_run_stops_on_a_warning_and_goes_on_to_the_same_end(
    whole: Path, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", str(run_file), "-o", str(out), "--stop-on", "saturated,dead-penalty"]) == 3
    printed = capsys.readouterr()
    assert "stopped on a warning: the penalty on latent 5 is dead" in printed.out
    assert f"next: sarm train -o {out} --resume" in printed.err
    assert "warning: the penalty on latent 5 is dead" in printed.err
    assert list_checkpoints(out)[-1].name == "step-000008"
    assert not (out / "policy").exists()
    assert main(["train", "-o", str(out), "--resume"]) == 0
    for name in BYTES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.long
def test_an_evaluation_changes_nothing_the_policy_learns_from(
    whole: Path, run_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert main(["train", str(run_file), "-o", str(out), "--set", "evaluation.every=0"]) == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert not (out / "ledger.parquet").exists()
    assert not (out / "evaluation.jsonl").exists()


def test_a_check_that_does_not_exist_is_refused(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(run_file), "--dry-run", "--stop-on", "sturated"]) == 2
    assert "'sturated' is not 'dead-penalty', 'threshold-hugging'" in capsys.readouterr().err


@pytest.mark.long
def test_the_plan_says_what_evaluations_ask(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(run_file), "--dry-run", "-o", "never"]) == 0
    told = capsys.readouterr().err
    assert "evaluation every 4 steps and at the end: 4 of " in told
    assert "held_out.jsonl, 4 of which are trained on (--exclude leaves them out of training)" in told
    words = ["--set", "evaluation.prompts=null", "--set", "evaluation.should_respond=null"]
    assert main(["train", str(run_file), "--dry-run", "-o", "never", *words]) == 0
    told = capsys.readouterr().err
    assert "4 of the training prompts (give held-out ones with --set evaluation.prompts=FILE)" in told
