"""Oracle and property: a folder of files is read as one file of the same rows; doubtful ones are refused."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from sarm_control.cli import main
from sarm_control.data import check_rows, is_row_folder, read_records, read_rows, stream_rows
from sarm_control.data.files import Record
from sarm_control.errors import DataError
from sarm_control.files import sha256_file
from tests.data.forms import FORMS, jsonl, parquet_file

Fields = list[dict[str, Any]]
ROWS: Fields = [
    {"prompt": f"how do i bake {n} ?", "response": f"mix {n} .", "id": n, "tags": ["a"] * (n % 3)}
    for n in range(25)
]
SHARDED = [name for name in FORMS if Path(name).suffix not in ("", ".rows")]


def in_shards(folder: Path, name: str, rows: Fields, cuts: list[int]) -> None:
    """The rows in files of that form, cut before each of `cuts`; names sort as numbers, not as text."""
    folder.mkdir()
    edges = [0, *cuts, len(rows)]
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        FORMS[name](folder / f"part-{9 + number}{name[1:]}", rows[begin:end])


def fields(path: Path) -> Fields:
    return [record.fields for record in read_records(path) if isinstance(record, Record)]


@pytest.mark.parametrize("name", SHARDED)
def test_oracle_a_folder_has_the_rows_of_the_one_file(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name, ROWS)
    in_shards(tmp_path / "shards", name, ROWS, [10, 11])
    assert fields(tmp_path / "shards") == fields(tmp_path / name)
    rows = read_rows(tmp_path / "shards", want={"answer"})
    assert [row.raw["id"] for row in rows] == list(range(25))
    assert re.search(rf"shards/part-10{re.escape(name[1:])}(:| row )", rows[10].where)
    assert {row.path for row in rows} == {tmp_path / "shards"}


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 24), unique=True, max_size=6).map(sorted), begin=st.integers(0, 24))
@pytest.mark.parametrize("name", ["a.jsonl", "j.parquet", "e.csv", "c.json"])
def test_property_reading_goes_on_from_every_place(
    tmp_path_factory: pytest.TempPathFactory, name: str, cuts: list[int], begin: int
) -> None:
    folder = tmp_path_factory.mktemp("folder") / "shards"
    in_shards(folder, name, ROWS, cuts)
    placed = list(stream_rows(folder, want={"answer"}))
    assert [one.row.raw["id"] for one in placed] == list(range(25))
    assert list(stream_rows(folder, want={"answer"}, start=placed[begin].place)) == placed[begin:]


def test_bad_rows_name_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_shards(tmp_path / "shards", "a.jsonl", [*ROWS, {"prompt": "p"}, {"prompt": "q"}], [20])
    with pytest.raises(DataError, match=r"shards/part-10\.jsonl:6: no answer field"):
        read_rows(tmp_path / "shards", want={"answer"})
    aside = tmp_path / "bad.jsonl"
    assert len(read_rows(tmp_path / "shards", want={"answer"}, skip_bad_rows=aside)) == 25
    written = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [(one["file"], one["line"]) for one in written] == [("part-10.jsonl", 6), ("part-10.jsonl", 7)]
    jsonl(tmp_path / "shards" / "part-11.jsonl", [{"response": "no prompt"}])
    found = check_rows(tmp_path / "shards")
    assert found.problems[0].places(Path("shards")) == ["shards/part-11.jsonl:1"]
    assert main(["data", "check", str(tmp_path / "shards")]) == 2
    assert "(shards/part-11.jsonl:1)" in capsys.readouterr().out


def test_hidden_files_and_descriptions_are_left_out_and_others_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shards"
    in_shards(folder, "j.parquet", ROWS, [10])
    before = sha256_file(folder)
    for name in (".gitattributes", "_SUCCESS", ".part.jsonl.crc", "dataset_infos.json", "README.md"):
        (folder / name).write_text("{}")
    (folder / ".cache").mkdir()
    jsonl(folder / ".cache" / "rows.jsonl", ROWS)
    assert fields(folder) == ROWS
    said = capsys.readouterr().err
    assert f"{folder}: 2 files, part-9.parquet to part-10.parquet" in said
    assert said.count("not read: README.md, dataset_infos.json") == 1
    for name in ("_SUCCESS", "dataset_infos.json", "README.md"):
        (folder / name).unlink()
    assert sha256_file(folder) == before, "hidden files are no part of the data"


def test_links_are_followed_as_the_cache_of_the_hub_has_them(tmp_path: Path) -> None:
    in_shards(tmp_path / "blobs", "a.jsonl", ROWS, [10])
    (tmp_path / "snapshot").mkdir()
    for one in (tmp_path / "blobs").iterdir():
        os.symlink(one, tmp_path / "snapshot" / one.name)
    assert fields(tmp_path / "snapshot") == ROWS


def _two_forms(folder: Path) -> None:
    parquet_file(folder / "rows.parquet", ROWS)


def _packed_too(folder: Path) -> None:
    FORMS["o.jsonl.gz"](folder / "part-9.jsonl.gz", ROWS)


def _below(folder: Path) -> None:
    (folder / "more").mkdir()
    jsonl(folder / "more" / "rows.jsonl", ROWS)


def _splits(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    for split in ("test", "train"):
        jsonl(folder / f"{split}-00000-of-00001.jsonl", ROWS)


def _splits_unnumbered(folder: Path) -> None:
    """As HH-RLHF has them."""
    shutil.rmtree(folder)
    folder.mkdir()
    for split in ("test", "train"):
        FORMS["o.jsonl.gz"](folder / f"{split}.jsonl.gz", ROWS)


def _parts_of_a_split(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    for split in ("train_prefs", "train_sft"):
        jsonl(folder / f"{split}-00000-of-00001.jsonl", ROWS)


def _missing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    for number in (0, 2):
        jsonl(folder / f"train-{number:05d}-of-00003.jsonl", ROWS)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text("{}")


def _one_below(folder: Path) -> None:
    shutil.move(folder, folder.with_name("inner"))
    folder.mkdir()
    shutil.move(folder.with_name("inner"), folder / "data")


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (_two_forms, "more than one form: part-9.jsonl (JSON Lines), rows.parquet (Parquet)", "may be there"),
        (
            _packed_too,
            "part-9.jsonl.gz (JSON Lines in gzip)",
            "may be there twice",
        ),
        (_below, "holds data files, and folders of them: more", "into a folder of their own"),
        (_splits, "holds files of the splits test, train", "one split elsewhere"),
        (_splits_unnumbered, "holds files of the splits test, train", "give one file, such as"),
        (_parts_of_a_split, "holds files of the splits train_prefs, train_sft", "the files of one split"),
        (_missing, "file 2 of 3 is missing (train-00001-of-00003)", "download the folder again"),
        (_empty, "holds no data file: it has config.json, model.safetensors", "wants a folder of .jsonl"),
        (_one_below, "the data files lie in a folder below", "give "),
    ],
)
def test_what_would_lose_rows_or_read_them_twice_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, hint: str
) -> None:
    folder = tmp_path / "shards"
    in_shards(folder, "a.jsonl", ROWS, [10])
    spoil(folder)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_rows(folder, want={"answer"})
    assert hint in str(caught.value.hint)


def test_a_folder_of_latents_is_no_folder_of_rows(tmp_path: Path) -> None:
    in_shards(tmp_path / "shards", "a.jsonl", ROWS[:6], [3])
    latents = tmp_path / "latents"
    assert main(["latents", str(tmp_path / "shards"), "-o", str(latents), "--shard-size", "2"]) == 0
    assert (is_row_folder(tmp_path / "shards"), is_row_folder(latents)) == (True, False)
    with pytest.raises(DataError, match="latents or a run, not rows of text"):
        read_rows(latents, want={"answer"})
    assert main(["score", str(latents), "-o", str(tmp_path / "a.jsonl")]) == 0
    assert main(["score", str(tmp_path / "shards"), "-o", str(tmp_path / "b.jsonl")]) == 0
    stored, scored = (fields(tmp_path / f"{name}.jsonl") for name in "ab")
    assert [row["id"] for row in stored] == [row["id"] for row in scored]
    # in other batches: equal up to float32
    assert [row["reward"] for row in stored] == pytest.approx([row["reward"] for row in scored], abs=1e-6)
    files = parquet.read_table(latents / "rows-00001.parquet")["file"].to_pylist()
    assert files == ["shards/part-9.jsonl", "shards/part-10.jsonl"]


@pytest.mark.long
def test_a_url_of_a_file_is_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "two words"
    in_shards(folder, "a.jsonl", ROWS, [10])
    url = folder.as_uri()
    assert "%20" in url
    assert len(read_rows(url, want={"answer"})) == 25
    assert len(read_rows(Path(f"{url}/part-9.jsonl"), want={"answer"})) == 10
    assert main(["data", "check", f"{url}/part-9.jsonl"]) == 0
    assert "10 with one answer" in capsys.readouterr().out
    run = ["train", f"--prompts={url}", "--rows", "7", "--steps", "1", "--dry-run", "-o", str(tmp_path / "r")]
    assert main(run) == 0
    assert "; 7 prompts, each used" in capsys.readouterr().err


def test_memory_stays_flat_over_the_row_groups_of_parquet(tmp_path: Path) -> None:
    """What Arrow holds while a file is read does not grow with the file: row groups are not read ahead."""
    noise = [os.urandom(1 << 10).hex() for _ in range(6000)]
    table = pa.table({"prompt": noise, "response": noise})
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=300, compression="none")
    size = (tmp_path / "rows.parquet").stat().st_size
    before, most = pa.total_allocated_bytes(), 0
    for _ in read_records(tmp_path / "rows.parquet"):
        most = max(most, pa.total_allocated_bytes() - before)
    assert size > 10 << 20
    assert most < size / 3, "a row group is a twentieth of the file"
