"""Benchmark rows from the formats their authors publish; bad input with its message."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from sarm_control.data.rows import read_rows
from sarm_control.errors import DataError
from sarm_control.evaluation.benchmarks.data import local_rows
from tests.evaluation.benchmark_rows import reward_bench_rows

ROWS = reward_bench_rows()


def test_parquet_and_json_give_the_rows_of_json_lines(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name in ("a.parquet", "b.json", "c.jsonl"):
        (path,) = local_rows(str(tmp_path / name), ())
        assert [row.raw for row in read_rows(path, want={"pair"})] == ROWS
    for name in ("lab:audit", "-", "hf:owner/name"):
        assert local_rows(name, ()) == [Path(name)]
    assert local_rows(str(tmp_path), ()) == [tmp_path]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b"{", r"x.json:1: not JSON"),
        ("x.json", b'{"a": 1}', r"x.json:1: no prompt field: has keys \[a\]"),
        ("x.json", b"[[]]", r"x.json: row 1: not an object but an empty list"),
        ("x.parquet", b"PAR0", r"x.parquet: not a Parquet file"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        [read_rows(path, want={"pair"}) for path in local_rows(str(tmp_path / name), ())]


def test_a_file_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.parquet: no such file"):
        local_rows(str(tmp_path / "none.parquet"), ())


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "source",
    ["rows", "allenai/reward-bench-2/rows", "./rows", "~/rows", "rows/test.parquet", "rows/test.jsonl"],
)
def test_what_cannot_be_an_id_is_never_asked_of_the_hub(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^{re.escape(source)}: no such file$") as caught:
        local_rows(source, ())
    assert "allenai/reward-bench-2" in str(caught.value.hint)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "nobody/nothing",
            "^nobody/nothing is neither a file nor in the local cache, and the hub cannot be reached$",
        ),
        ("nobody/no--thing", "^nobody/no--thing is neither a file nor a data set on the hub: .*no--thing"),
    ],
)
def test_a_data_set_that_cannot_be_had_is_said(
    source: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=message):
        local_rows(source, ("*.parquet",))


@pytest.mark.usefixtures("no_network")
def test_of_a_data_set_in_the_cache_the_files_that_match_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "datasets--owner--rows"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    data = kept / "snapshots" / ("0" * 40) / "data"
    data.mkdir(parents=True)
    for name in ("b.parquet", "a.parquet", "README.md"):
        (data / name).write_bytes(b"")
    assert local_rows("owner/rows", ("data/*.parquet",)) == [data / "a.parquet", data / "b.parquet"]
    assert local_rows("owner/rows", ("data/*.md", "data/b*")) == [data / "README.md", data / "b.parquet"]
    with pytest.raises(DataError, match=r"^owner/rows holds no \*\.json or \*\.csv$"):
        local_rows("owner/rows", ("*.json", "*.csv"))
