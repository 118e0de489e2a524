"""Benchmark rows from the formats their authors publish; bad input with its message."""

import json
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
    work = tmp_path / "work"
    work.mkdir()
    for name in ("a.parquet", "b.json", "c.jsonl"):
        (path,) = local_rows(str(tmp_path / name), (), work)
        assert [row.raw for row in read_rows(path, want={"pair"})] == ROWS
    assert local_rows("lab:audit", (), work) == [Path("lab:audit")]
    assert local_rows(str(work), (), work) == [work]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b"{", r"x.json: not JSON"),
        ("x.json", b'{"a": 1}', r"x.json: not a list of rows"),
        ("x.parquet", b"PAR0", r"x.parquet: not a Parquet file"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        local_rows(str(tmp_path / name), (), tmp_path)


def test_a_file_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.parquet: no such file"):
        local_rows(str(tmp_path / "none.parquet"), (), tmp_path)


@pytest.mark.usefixtures("no_network")
def test_a_data_set_that_cannot_be_reached_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="nobody/nothing is neither a file nor"):
        local_rows("nobody/nothing", ("*.parquet",), tmp_path)
