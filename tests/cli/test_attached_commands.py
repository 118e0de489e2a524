"""Every command on a reward model with a dictionary attached, end to end (oracle: the library's own parts).

The model is the embedded world's `lab:attached`, which has the world's rows for its own.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sarm_control.cli import main
from sarm_control.latents import read_latents
from sarm_control.reward_model import RewardModel

MODEL = ["--model", "lab:attached"]


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's pairs, scored once, with states."""
    folder = tmp_path_factory.mktemp("attached") / "latents"
    assert main(["-q", "latents", "lab:audit", *MODEL, "--states", "-o", str(folder)]) == 0
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(list(words))
    found = capsys.readouterr()
    assert code == 0, found.err
    return found.out + found.err


@pytest.mark.long
def test_discovery_from_a_folder_says_what_lies_outside(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, controls = tmp_path / "found", tmp_path / "controls.yaml"
    words = [str(latents), *MODEL, "-o", str(out), "--json", str(tmp_path / "found.json"), "--levels", "3"]
    text = " ".join(said(capsys, "discover", *words, "--write-controls", str(controls)).split())
    assert "The residual, which no latent holds, adds" in text
    assert "lies outside the dictionary (residual)" in text
    assert "for a linear probe on the state" in text or "AUROC" in text
    values = json.loads((tmp_path / "found.json").read_text())
    assert values["residual"]["effect"]["low"] < values["residual"]["effect"]["high"]
    assert {one["level"] for one in values["levels"]} == {"L1", "L2", "L3"}
    assert controls.is_file()
    labels = ["label", str(out / "features.json"), "--data", str(latents), *MODEL]
    said(capsys, *labels, "-o", str(tmp_path / "labels.json"))
    assert json.loads((tmp_path / "labels.json").read_text())


@pytest.mark.long
def test_probe_and_rerank_edit_its_latents(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = read_latents(latents).scored
    latent = int(np.bincount(scored.latents.indices).argmax())
    probed = tmp_path / "probe.json"
    said(capsys, "probe", str(latents), *MODEL, "--edit", f"{latent}=0", "--json", str(probed))
    assert str(latent) in probed.read_text()
    text = said(capsys, "rerank", str(latents), *MODEL, "--all-latents")
    assert "residual" not in text.lower() or "latent" in text.lower()
    edits = tmp_path / "edits.json"
    head = RewardModel.from_pretrained("lab:attached", device="cpu").fingerprint
    edits.write_text(json.dumps({"head": head, "edits": [{"latent": latent, "scale": 0}]}))
    said(capsys, "convert", "lab:attached", "--apply", str(edits), "-o", str(tmp_path / "edited"))
    pointer = json.loads((tmp_path / "edited" / "attached.json").read_text())["source"]["model"]
    assert pointer == "lab:classifier"
    edited = RewardModel.from_pretrained(tmp_path / "edited", device="cpu")
    assert edited.head.weight[latent] == 0


@pytest.mark.long
def test_a_policy_trains_under_every_control_and_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["--penalize", "residual:tau=q0.9,alpha=0.5sd,form=hinge"]
    words += ["--penalize", "9:tau=0.0,target_rate=0.1", "--edit", "28:scale=0.5", "--beta", "0.05sd"]
    words += ["--human", "lab:human", "--set", "reward.human_kl.latents=[3,9,28]"]
    sizes = {
        "prompts_per_step": 8,
        "answers_per_prompt": 2,
        "max_new_tokens": 8,
        "minibatches": 1,
        "micro_batch": 16,
        "reference_answers": 32,
    }
    for name, value in sizes.items():
        words += ["--set", f"training.{name}={value}"]
    words += ["--set", "policy.lora=null", "--set", "evaluation.every=1", "--set", "evaluation.answers=16"]
    said(capsys, "train", *MODEL, "--steps", "2", *words, "-o", str(run))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all("reward/penalty/residual" in row and "penalty/residual/rate" in row for row in rows)
    evaluated: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "evaluation.jsonl").read_text().splitlines()
    ]
    assert all("monitor/residual" in row for row in evaluated)
    ledger = pq.read_table(run / "ledger.parquet").to_pylist()
    for step, row in zip((1, 2), evaluated, strict=True):
        entries = [entry for entry in ledger if entry["step"] == step]
        assert sum(entry["term"] == "residual" for entry in entries) == 1
        assert sum(entry["change"] for entry in entries) == pytest.approx(row["evaluation/change"], abs=1e-5)
    compared = tmp_path / "compared"
    said(capsys, "compare", str(run), "--rows", "16", "-o", str(compared))
    (arm,) = json.loads((compared / "report.json").read_text())["arms"]
    assert arm["ledger"]["outside"]["kind"] == "residual"
    assert abs(arm["ledger"]["residual"]) < 1e-6
    labels = {row["label"] for row in arm["measures"]}
    assert "Penalty on the residual" in labels
    assert any("penalty on the residual: hinge" in line for line in arm["controls"])


def test_what_a_sarm_has_not_is_refused_before_it_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--penalize", "residual:tau=0,alpha=1", "-o", str(tmp_path / "run"), "--dry-run"]
    assert main(words) == 2
    assert "rewards of a SARM are its latents' alone, so there is no residual" in capsys.readouterr().err
