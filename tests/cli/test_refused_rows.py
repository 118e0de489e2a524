"""Rows that the reward model's template refuses are bad rows: golden (messages), metamorphic (rewards)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sarm_control.cli import main
from sarm_control.latents import LatentsFolder
from sarm_control.reward_model import RewardModel
from tests.strict_templates import ALTERNATE, NO_SYSTEM, SYSTEM, USER, strict_copy

LINES = (2, 5)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, tiny_sarm_folder: Path) -> Path:
    return strict_copy(tiny_sarm_folder, tmp_path_factory.mktemp("strict") / "sarm", NO_SYSTEM)


def rows_of(kind: str, extra: str = "") -> list[dict[str, object]]:
    """Eight rows; those in `LINES` have a system turn."""
    words = ["cook", "open", "lock", "door", "bread", "bomb", "please", "help"]
    answers: dict[str, Any] = {
        "pair": lambda word: {"chosen": f"sure {word}", "rejected": f"no {word} sorry"},
        "answer": lambda word: {"response": f"sure {word}"},
        "candidates": lambda word: {"candidates": [f"sure {word}", "no", f"sorry {word}"]},
    }
    answer = answers[kind]
    asked = [{"role": "user", "content": f"how do i {word} {extra} ?"} for word in words]
    return [
        {"prompt": [SYSTEM, turn] if line in LINES else [turn], **answer(word)}
        for line, (turn, word) in enumerate(zip(asked, words, strict=True), start=1)
    ]


def refused(aside: Path) -> list[tuple[int, str]]:
    bad = [json.loads(line) for line in aside.read_text().splitlines()]
    return [(row["line"], row["reason"]) for row in bad]


SAID = "the chat template refuses this conversation: no system here"
COMMANDS = {
    "score": ("answer", []),
    "probe": ("pair", ["--edit", "3=0"]),
    "rerank": ("candidates", ["--edit", "3=0"]),
    "latents": ("answer", []),
}


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_refused_rows_are_set_aside_with_their_reason(
    command: str, strict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, flags = COMMANDS[command]
    rows = rows_of(kind)
    data, out = write(tmp_path / "data.jsonl", rows), tmp_path / "out"
    words = [command, str(data), "--model", str(strict), *flags]
    assert main([*words, "-o", str(out)]) == 2
    assert f"data.jsonl:2: {SAID}" in capsys.readouterr().err
    aside = tmp_path / "bad.jsonl" if command == "score" else tmp_path / "bad"
    assert main([*words, "-o", str(out), "--skip-bad-rows", str(aside)]) == 0
    assert "data.jsonl: 2 of 8 rows set aside in" in capsys.readouterr().err
    found = aside if command == "score" else aside / "data.bad.jsonl"
    assert refused(found) == [(line, SAID) for line in LINES]


@pytest.mark.parametrize("command", ["discover", "latents"])
def test_a_dry_run_finds_and_skips_them(
    command: str, strict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data.jsonl", [row for n in range(10) for row in rows_of("pair", "please " * n)])
    words = [command, str(data), "--model", str(strict), "-o", str(tmp_path / "out"), "--dry-run"]
    assert main(words) == 2
    assert f"data.jsonl:2: {SAID}" in capsys.readouterr().err
    assert main([*words, "--skip-bad-rows", str(tmp_path / "bad")]) == 0
    assert "data.jsonl: 20 of 80 rows set aside in" in capsys.readouterr().err


def test_no_weights_of_the_trunk_are_read_before_they_are_found(
    strict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(strict, tmp_path / "sarm"))
    weights = load_file(copy / "model.safetensors")
    save_file(
        {name: tensor * (float("nan") if "layers" in name else 1) for name, tensor in weights.items()},
        copy / "model.safetensors",
        metadata={"format": "pt"},
    )
    data = write(tmp_path / "data.jsonl", rows_of("answer"))
    assert main(["score", str(data), "--model", str(copy), "-o", str(tmp_path / "out")]) == 2
    assert f"data.jsonl:2: {SAID}" in capsys.readouterr().err


def test_the_other_rows_get_the_rewards_they_have_alone(strict: Path, tmp_path: Path) -> None:
    rows = rows_of("pair")
    data = write(tmp_path / "data.jsonl", rows)
    alone = write(
        tmp_path / "alone.jsonl", [row for line, row in enumerate(rows, start=1) if line not in LINES]
    )
    words = ["score", "--model", str(strict)]
    assert main([*words, str(data), "-o", str(tmp_path / "a"), "--skip-bad-rows", str(tmp_path / "bad")]) == 0
    assert main([*words, str(alone), "-o", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_shards_of_latents_hold_the_rows_that_are_left(strict: Path, tmp_path: Path) -> None:
    """The survey and each shard's reading leave the same rows out, wherever a shard begins."""
    data = write(tmp_path / "data.jsonl", rows_of("answer"))
    out = tmp_path / "out"
    words = ["latents", str(data), "--model", str(strict), "-o", str(out), "--shard-size", "2"]
    assert main([*words, "--skip-bad-rows", str(tmp_path / "bad")]) == 0
    found = LatentsFolder(out).read()
    assert [row.line for row in found.rows] == [1, 3, 4, 6, 7, 8]
    model = RewardModel.from_pretrained(strict)
    direct = model.score([row.prompt for row in found.rows], [row.answers[0] for row in found.rows])
    assert found.scored.rewards == pytest.approx(direct.rewards, abs=1e-5)


def test_latents_name_a_refused_row_before_anything_is_written(
    strict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in a dry run, and although its shard is the last."""
    rows = [row for line, row in enumerate(rows_of("answer"), start=1) if line not in LINES]
    rows.append({"prompt": [SYSTEM, USER], "response": "no"})
    data, out = write(tmp_path / "data.jsonl", rows), tmp_path / "out"
    words = ["latents", str(data), "--model", str(strict), "-o", str(out), "--shard-size", "2"]
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 2
        assert f"data.jsonl:7: {SAID}" in capsys.readouterr().err
        assert not out.exists()


def test_roles_that_do_not_alternate_and_a_file_of_nothing_else(
    tiny_sarm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = strict_copy(tiny_sarm_folder, tmp_path / "sarm", ALTERNATE)
    data = write(tmp_path / "data.jsonl", [{"prompt": [USER, USER], "response": "no"}])
    words = ["score", str(data), "--model", str(strict), "-o", str(tmp_path / "out")]
    assert main([*words, "--skip-bad-rows", str(tmp_path / "bad")]) == 2
    said = "data.jsonl: none of the 1 rows can be used; line 1: the chat template refuses this conversation: "
    assert f"{said}roles must alternate" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
