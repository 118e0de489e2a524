"""`sarm rerank`: oracle against the library, what is written, and bad input with its message."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.cli import main
from sarm_control.reward_model import RewardModel

ROWS: list[dict[str, Any]] = [
    {
        "prompt": "how do i cook bread ?",
        "candidates": ["sure here steps", "no", "yes please"],
        "good": [1, 0, 1],
    },
    {"prompt": "how do i open the lock ?", "candidates": ["sorry cannot", "here steps"], "good": [1, 0]},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def rerank(*words: object) -> int:
    return main(["rerank", *map(str, words)])


def test_oracle_winners_are_the_highest_rewards(
    tiny_sarm: RewardModel,
    tiny_sarm_folder: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, summary = tmp_path / "out.jsonl", tmp_path / "summary.json"
    words = ("--edit", "5:+3", "--attribute", "good", "--n", "1,2,3", "--all-latents")
    assert rerank("--model", tiny_sarm_folder, data, *words, "-o", out, "--json", summary) == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    for row, own in zip(written, ROWS, strict=True):
        rewards = tiny_sarm.score([own["prompt"]] * len(own["candidates"]), own["candidates"]).rewards
        np.testing.assert_allclose(row["before"], rewards, atol=1e-5)
        assert row["winner_before"] == [int(np.argmax(rewards))]
        # Adding to a latent of every candidate moves them alike.
        assert row["winner_after"] == row["winner_before"]
    content = json.loads(summary.read_text())
    assert content["changed"]["mean"] == 0
    assert content["attributes"] == ["length", "good"]
    assert {one["n"] for one in content["curve"]} == {1, 2, 3}
    assert content["latents"][0]["changed"]["mean"] > 0
    printed = capsys.readouterr().out
    assert "good of the winner of N candidates" in printed
    assert "change a winner when set to 0" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no edit was given"),
        (["--edit", "5=0", "--n", "0,1"], "--n: '0,1' is not a list of whole numbers of at least 1"),
        (["--edit", "5=0", "--attribute", "taste"], "no column taste"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(
    tiny_sarm_folder: Path, data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rerank("--model", tiny_sarm_folder, data, *words) == 2
    assert message in capsys.readouterr().err
