"""Oracle: commands give equal rewards for the same rows in any form, to the bit; they write three forms."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from sarm_control.cli import main
from sarm_control.data.files import Record, read_records
from sarm_control.latents.folder import LatentsFolder
from tests.data.forms import FORMS

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"how do i bake {word} ?",
        "chosen": ["first mix the flour .", f"with {word} ."],
        "rejected": ["what a lovely question ! just buy one ."],
        "n": number,
    }
    for number, word in enumerate(["a cake", "bread", "a pie", "rolls"])
]


def fields(path: Path) -> list[dict[str, Any]]:
    return [record.fields for record in read_records(path) if isinstance(record, Record)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of plain JSON Lines."""
    folder = tmp_path_factory.mktemp("plain")
    FORMS["a.jsonl"](folder / "a.jsonl", ROWS)
    assert main(["score", str(folder / "a.jsonl"), "-o", str(folder / "scores.jsonl")]) == 0
    return folder / "scores.jsonl"


@pytest.mark.parametrize("name", FORMS)
def test_oracle_sarm_score_gives_the_bytes_of_json_lines(name: str, plain: Path, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name, ROWS)
    assert main(["score", str(tmp_path / name), "-o", str(tmp_path / "scores.jsonl")]) == 0
    assert (tmp_path / "scores.jsonl").read_bytes() == plain.read_bytes()
    inputs = json.loads((tmp_path / "scores.jsonl.manifest.json").read_text())["inputs"]
    assert list(inputs) == [name]


@pytest.mark.parametrize("name", ["s.parquet", "s.csv", "s.tsv.gz", "s.jsonl.zst"])
def test_rows_are_written_by_the_suffix(name: str, plain: Path, tmp_path: Path) -> None:
    FORMS["a.jsonl"](tmp_path / "a.jsonl", ROWS)
    assert main(["score", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / name)]) == 0
    expected, found = fields(plain), fields(tmp_path / name)
    if "csv" in name or "tsv" in name:
        scores = ("chosen_scores", "rejected_scores")
        found = [{**row, **{key: json.loads(row[key]) for key in scores}} for row in found]
    assert found == expected
    assert [list(row) for row in found] == [list(row) for row in expected]


@pytest.mark.parametrize(
    ("command", "more"),
    [("probe", ["--edit", "3=0"]), ("rerank", ["--edit", "3=0"])],
)
def test_other_commands_write_rows_by_the_suffix_too(command: str, more: list[str], tmp_path: Path) -> None:
    FORMS["j.parquet"](tmp_path / "a.parquet", ROWS)
    for name in ("out.jsonl", "out.parquet"):
        assert main([command, str(tmp_path / "a.parquet"), *more, "-o", str(tmp_path / name)]) == 0
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert json.loads(json.dumps(found)) == fields(tmp_path / "out.jsonl")


def test_a_form_that_is_not_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "lab:audit", "-o", str(tmp_path / "s.xlsx")]) == 2
    said = capsys.readouterr().err
    assert "s.xlsx: rows are not written in this form" in said
    assert "latents" not in said


def pipe_in(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr("sarm_control.embedded._COPIES", {})
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))


def test_a_hyphen_is_standard_input(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FORMS["j.parquet"](tmp_path / "a.parquet", ROWS)
    pipe_in(monkeypatch, tmp_path / "a.parquet")
    assert main(["score", "-", "-o", str(tmp_path / "scores.jsonl")]) == 0
    assert (tmp_path / "scores.jsonl").read_bytes() == plain.read_bytes()


@pytest.mark.slow
def test_oracle_a_latents_folder_of_standard_input_by_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process reads its shards from the copy."""
    FORMS["h.tsv"](tmp_path / "a.tsv", ROWS)
    assert main(["latents", str(tmp_path / "a.tsv"), "-o", str(tmp_path / "one"), "--shard-size", "1"]) == 0
    pipe_in(monkeypatch, tmp_path / "a.tsv")
    words = ["latents", "-", "-o", str(tmp_path / "two"), "--shard-size", "1", "--workers", "2"]
    assert main(words) == 0
    one, two = (LatentsFolder(tmp_path / name).read() for name in ("one", "two"))
    assert [row.raw for row in one.rows] == [row.raw for row in two.rows] == ROWS
    assert one.scored.rewards.tobytes() == two.scored.rewards.tobytes()


def test_the_first_rows_alone(tmp_path: Path) -> None:
    FORMS["c.json"](tmp_path / "a.json", ROWS)
    assert main(["score", str(tmp_path / "a.json"), "--rows", "2", "-o", str(tmp_path / "s.jsonl")]) == 0
    assert [row["n"] for row in fields(tmp_path / "s.jsonl")] == [0, 1]
    assert json.loads((tmp_path / "s.jsonl.manifest.json").read_text())["config"]["first_rows"] == 2
    words = ["latents", str(tmp_path / "a.json"), "--rows", "3", "-o", str(tmp_path / "folder")]
    assert main([*words, "--shard-size", "2"]) == 0
    assert [row.raw["n"] for row in LatentsFolder(tmp_path / "folder").read().rows] == [0, 1, 2]


def test_a_pickle_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.save(torch.zeros(2), tmp_path / "human_latents.pt")
    assert main(["score", str(tmp_path / "human_latents.pt")]) == 2
    said = capsys.readouterr().err
    assert "human_latents.pt: a pickle of torch" in said
    assert "hint: make the human buffer anew: sarm latents demonstrations.jsonl --as-human" in said
