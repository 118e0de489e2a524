"""Oracle: commands give equal rewards for the same rows in any form, to the bit; they write three forms.

`sarm data` reads every form of rows in every form of file.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from sarm_control.cli import main
from sarm_control.data import FORMS as SHAPES
from sarm_control.data import Form, read_rows
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


@pytest.mark.long
@pytest.mark.parametrize("name", FORMS)
def test_oracle_sarm_score_gives_the_bytes_of_json_lines(name: str, plain: Path, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name, ROWS)
    assert main(["score", str(tmp_path / name), "-o", str(tmp_path / "scores.jsonl")]) == 0
    assert (tmp_path / "scores.jsonl").read_bytes() == plain.read_bytes()
    inputs = json.loads((tmp_path / "scores.jsonl.manifest.json").read_text())["inputs"]
    assert list(inputs) == [name]


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_the_first_rows_alone(tmp_path: Path) -> None:
    FORMS["c.json"](tmp_path / "a.json", ROWS)
    assert main(["score", str(tmp_path / "a.json"), "--rows", "2", "-o", str(tmp_path / "s.jsonl")]) == 0
    assert [row["n"] for row in fields(tmp_path / "s.jsonl")] == [0, 1]
    assert json.loads((tmp_path / "s.jsonl.manifest.json").read_text())["config"]["first_rows"] == 2
    words = ["latents", str(tmp_path / "a.json"), "--rows", "3", "-o", str(tmp_path / "folder")]
    assert main([*words, "--shard-size", "2"]) == 0
    assert [row.raw["n"] for row in LatentsFolder(tmp_path / "folder").read().rows] == [0, 1, 2]


def ultrafeedback(row: dict[str, Any]) -> dict[str, Any]:
    asked = {"role": "user", "content": row["prompt"]}
    sides = {side: [asked, {"role": "assistant", "content": row[side][0]}] for side in ("chosen", "rejected")}
    return {"prompt": row["prompt"], **sides, "n": row["n"]}


@pytest.mark.long
@pytest.mark.parametrize("name", FORMS)
def test_oracle_data_convert_gives_the_same_plain_rows_of_every_form(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FORMS[name](tmp_path / name, [ultrafeedback(row) for row in ROWS])
    assert main(["data", "convert", str(tmp_path / name), "-o", str(tmp_path / "out.jsonl")]) == 0
    assert fields(tmp_path / "out.jsonl") == [
        {**row, "chosen": row["chosen"][0], "rejected": row["rejected"][0]} for row in ROWS
    ]
    assert f"{name} read as: UltraFeedback messages, 4 rows" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / name), "--rows", "3"]) == 0
    assert capsys.readouterr().out.startswith(
        f"{tmp_path / name} read as: UltraFeedback messages, 3 rows\n  3 pairs\n"
    )


@pytest.mark.long
@pytest.mark.parametrize("out", ["out.parquet", "out.csv", "out.tsv.gz", "out.jsonl.zst"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.name}: {shape.how[:20]}")
def test_plain_rows_are_written_by_the_suffix(shape: Form, out: str, tmp_path: Path) -> None:
    FORMS["a.jsonl"](tmp_path / "a.jsonl", [{**shape.example, "id": n} for n in range(3)])
    assert main(["data", "convert", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / out)]) == 0
    before, after = (
        read_rows(tmp_path / name, want=("pair", "candidates", "answer", "prompt"))
        for name in ("a.jsonl", out)
    )
    assert [(row.kind, row.prompt_text, row.answers, row.raw["id"]) for row in after] == [
        (row.kind, row.prompt_text, row.answers, row.raw["id"]) for row in before
    ]


def test_convert_refuses_a_form_that_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FORMS["a.jsonl"](tmp_path / "a.jsonl", ROWS)
    assert main(["data", "convert", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / "s.xlsx")]) == 2
    assert "s.xlsx: rows are not written in this form" in capsys.readouterr().err
    assert not (tmp_path / "s.xlsx").exists()


def test_rows_of_a_saved_data_set_are_set_aside_and_counted(tmp_path: Path) -> None:
    """A folder, and no latents folder, whose rows were checked before."""
    FORMS["n"](tmp_path / "n", [*ROWS, {**ROWS[0], "prompt": " "}])
    words = [
        "score",
        str(tmp_path / "n"),
        "-o",
        str(tmp_path / "s.jsonl"),
        "--json",
        str(tmp_path / "s.json"),
    ]
    assert main([*words, "--skip-bad-rows", str(tmp_path / "bad.jsonl")]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["rows_set_aside"] == 1
    assert [row["row"] for row in fields(tmp_path / "bad.jsonl")] == [5]


def test_check_names_the_rows_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, {"prompt": " ", "chosen": ["a"], "rejected": ["b"], "n": 4}]
    FORMS["j.parquet"](tmp_path / "a.parquet", rows)
    words = ["data", "check", str(tmp_path / "a.parquet"), "--json", str(tmp_path / "found.json")]
    assert main(words) == 2
    assert "1 cannot be used: prompt is empty (a.parquet: row 5)" in capsys.readouterr().out
    (problem,) = json.loads((tmp_path / "found.json").read_text())["problems"]
    assert (problem["lines"], problem["unit"]) == ([5], "row")


def test_columns_of_a_table_of_text_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing but --columns says that this is CSV, and that 7 is an answer."""
    (tmp_path / "log").write_text("q,a,n\nhow many ?,7,1\nsure ?,true,2\n")
    pipe_in(monkeypatch, tmp_path / "log")
    words = ["data", "convert", "-", "--columns", "prompt=q,response=a", "-o", str(tmp_path / "out.csv")]
    assert main(words) == 0
    assert (tmp_path / "out.csv").read_text() == 'prompt,response,n\nhow many ?,"7",1\nsure ?,"true",2\n'
    assert list(json.loads((tmp_path / "out.csv.manifest.json").read_text())["inputs"]) == ["-"]
    assert "- read as: plain rows, 2 rows, prompt from q, response from a" in capsys.readouterr().err


def test_rows_in_a_latents_folder_keep_the_name_of_their_place(tmp_path: Path) -> None:
    FORMS["j.parquet"](tmp_path / "a.parquet", [ultrafeedback(row) for row in ROWS])
    FORMS["a.jsonl"](tmp_path / "a.jsonl", ROWS)
    files = [str(tmp_path / name) for name in ("a.jsonl", "a.parquet")]
    assert main(["latents", *files, "-o", str(tmp_path / "folder")]) == 0
    rows = LatentsFolder(tmp_path / "folder").read().rows
    assert [row.where for row in rows] == [
        *(f"a.jsonl:{n}" for n in (1, 2, 3, 4)),
        *(f"a.parquet: row {n}" for n in (1, 2, 3, 4)),
    ]


def test_a_pickle_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.save(torch.zeros(2), tmp_path / "human_latents.pt")
    assert main(["score", str(tmp_path / "human_latents.pt")]) == 2
    said = capsys.readouterr().err
    assert "human_latents.pt: a pickle of torch" in said
    assert "hint: make the human buffer anew: sarm latents demonstrations.jsonl --as-human" in said
