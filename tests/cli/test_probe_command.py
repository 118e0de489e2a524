"""`sarm probe`: oracle against the library, what is written, and bad input with its message."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.cli import main
from sarm_control.control import Edit, edit_delta, load_edits
from sarm_control.control.edits.edit_files import read_edit_file
from sarm_control.reward_model import RewardModel

ROWS: list[dict[str, Any]] = [
    {"prompt": "how do i cook bread ?", "chosen": "sure here steps one two three", "rejected": ["no", "yes"]},
    {"prompt": "how do i open the lock ?", "chosen": "sorry cannot", "rejected": "here steps"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def probe(*words: object) -> int:
    return main(["probe", *map(str, words)])


def test_oracle_rows_and_summary_hold_the_exact_changes(
    tiny_sarm: RewardModel,
    tiny_sarm_folder: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, summary = tmp_path / "out.jsonl", tmp_path / "summary.json"
    assert probe(
        "--model", tiny_sarm_folder, data, "--edit", "5=0", "--edit", "11:+1", "-o", out, "--json", summary
    ) == 0  # fmt: skip
    texts = [ROWS[0]["chosen"], *ROWS[0]["rejected"], ROWS[1]["chosen"], ROWS[1]["rejected"]]
    scored = tiny_sarm.score([ROWS[0]["prompt"]] * 3 + [ROWS[1]["prompt"]] * 2, texts)
    delta = edit_delta(scored, [Edit(5, set=0.0), Edit(11, add=1.0)])
    written = [json.loads(line) for line in out.read_text().splitlines()]
    found = [one for row in written for side in ("chosen", "rejected") for one in row[f"{side}_probe"]]
    np.testing.assert_allclose([one["delta"] for one in found], delta, atol=1e-6)
    np.testing.assert_allclose([one["before"] for one in found], scored.rewards, atol=1e-5)
    content = json.loads(summary.read_text())
    assert content["edits"] == ["5:set=0.0", "11:add=1.0"]
    assert content["sides"]["chosen"]["delta"]["mean"] == pytest.approx((delta[0] + delta[3]) / 2)
    assert json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["command"] == "probe"
    assert "pair accuracy" in capsys.readouterr().out


def test_verify_scores_again_and_agrees(
    tiny_sarm_folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe("--model", tiny_sarm_folder, data, "--edit", "5:max=0.1", "--edit", "9:*2", "--verify") == 0
    assert "verified: scored again with the edits inside the model" in capsys.readouterr().out


@pytest.mark.long
def test_edits_are_saved_with_their_head_and_used_by_probe_and_score(
    tiny_sarm: RewardModel, tiny_sarm_folder: Path, data: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "edits.json"
    model = ("--model", tiny_sarm_folder)
    assert probe(*model, data, "--edit", "5:max=0.1", "--save-edits", saved) == 0
    assert read_edit_file(saved).head == tiny_sarm.fingerprint
    assert probe(*model, data, "--edits-file", saved, "--json", tmp_path / "a.json") == 0
    assert probe(*model, data, "--edit", "5:max=0.1", "--json", tmp_path / "b.json") == 0
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads((tmp_path / "b.json").read_text())
    assert (
        main(["score", *map(str, model), str(data), "--edits-file", str(saved), "-o", str(tmp_path / "s")])
        == 0
    )
    content = json.loads(saved.read_text())
    saved.write_text(json.dumps({**content, "head": "of another model"}))
    assert probe(*model, data, "--edits-file", saved) == 2
    assert main(["score", *map(str, model), str(data), "--edits-file", str(saved)]) == 2
    assert load_edits(saved) == [Edit(5, max=0.1)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--edit", "500=0"], "latent 500 does not exist: this reward model has 64 latents"),
        (["--edit", "5=0", "--edit", "5:+1"], "latent 5 has two edits"),
        (["--edit", "five=0"], "'five=0' does not begin with a latent number"),
        (["--edit", "@none.json#harms=0"], "none.json: No such file"),
        ([], "no edit was given"),
    ],
)
def test_bad_edits_are_one_line_and_a_hint(
    tiny_sarm_folder: Path, data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe("--model", tiny_sarm_folder, data, *words) == 2
    assert message in capsys.readouterr().err


def test_an_output_that_is_an_input_is_refused(
    tiny_sarm_folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe("--model", tiny_sarm_folder, data, "--edit", "5=0", "-o", data) == 2
    assert "is an input too" in capsys.readouterr().err


def test_another_model_needs_data(tiny_sarm_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe("--model", tiny_sarm_folder, "--edit", "5=0") == 2
    assert "no file of answers was given" in capsys.readouterr().err
