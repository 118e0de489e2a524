"""Bad input: forms that are not read, cut or damaged files, with the message and the next step of each."""

import gzip
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

pytest.importorskip("datasets", reason='needs the extra "data"')

from datasets import Dataset, DatasetDict
from pyarrow import parquet

from sarm_control.data.files import read_records
from sarm_control.data.rows import read_rows
from sarm_control.errors import DataError

BUFFER = "sarm latents demonstrations.jsonl --as-human"
ROWS = [{"prompt": f"p{number}", "response": "r" * 50} for number in range(4000)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(path: Path) -> list[Any]:
    return read_rows(path, want={"answer"})


def refused(path: Path, data: bytes, message: str) -> str:
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    return caught.value.hint or ""


def saved(value: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **how)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["human_latents.pt", "rows.jsonl"])
@pytest.mark.parametrize(
    "data",
    [
        saved(torch.zeros(2, 3)),
        saved({"latents": torch.zeros(2)}, _use_new_zipfile_serialization=False),
        *(pickle.dumps([{"prompt": "p"}], protocol=protocol) for protocol in (2, 3, 4, 5)),
    ],
)
def test_a_pickle_is_refused_and_how_the_buffer_is_made_anew_is_said(
    tmp_path: Path, name: str, data: bytes
) -> None:
    assert BUFFER in refused(tmp_path / name, data, rf"{name}: a .*pickle.*, not a data file")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "loaded"),)

    for protocol in range(6):
        refused(tmp_path / "evil.pkl", pickle.dumps(Evil(), protocol=protocol), "evil.pkl: a .*pickle")
    assert not (tmp_path / "loaded").exists()


def archive(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr(name, b"x")
    return stream.getvalue()


def array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (array(), "a NumPy array", "rows of text"),
        (archive("xl/workbook.xml"), "a spreadsheet", "save it as CSV"),
        (archive("rows.jsonl"), "a zip archive", "unpack it"),
        (b"\xfd7zXZ\x00abc", "compressed by xz", "xz -d"),
        (b"BZh91AY&SY", "compressed by bzip2", "bzip2 -d"),
        (b"SQLite format 3\x00", "an SQLite data base", "CSV"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a": {}}', "a safetensors file", "data.human"),
        ("é{}".encode("utf-16"), "the text is UTF-16, wants UTF-8", "iconv -f UTF-16 -t UTF-8"),
        (json.dumps(ROWS[0]).encode("utf-16-le"), "the text is UTF-16LE, wants UTF-8", "iconv"),
        (json.dumps(ROWS[0]).encode("utf-16-be"), "the text is UTF-16BE, wants UTF-8", "iconv"),
        (json.dumps(ROWS[0]).encode("utf-32"), "the text is UTF-32, wants UTF-8", "iconv"),
    ],
)
def test_other_forms_are_named(tmp_path: Path, data: bytes, message: str, hint: str) -> None:
    assert hint in refused(tmp_path / "rows.data", data, rf"rows\.data: .*{message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows.parquet", "not a Parquet file, though it is called one"),
        ("rows.arrow", "not an Arrow file, though it is called one"),
        ("rows.pkl", "a pickle, or no data file at all"),
    ],
)
def test_a_name_that_promises_what_the_bytes_do_not_hold(tmp_path: Path, name: str, message: str) -> None:
    refused(tmp_path / name, b"nothing of the kind", message)


@pytest.mark.parametrize("cut", [5, 60, 500])
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed_data_that_end_early(tmp_path: Path, suffix: str, cut: int) -> None:
    """An error of the file, also where bad rows are skipped: rows are missing, and nobody knows which."""
    packed = gzip.compress(LINES)
    if suffix == "zst":
        packed = pa.compress(LINES, "zstd", asbytes=True)
    path = tmp_path / f"rows.jsonl.{suffix}"
    assert "again" in refused(path, packed[:-cut], "the compressed data are damaged") or suffix == "zst"
    with pytest.raises(DataError, match="the compressed data are damaged"):
        read_rows(path, want={"answer"}, skip_bad_rows=tmp_path / "bad.jsonl")


def test_damaged_compressed_data(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(LINES))
    packed[-6] ^= 0xFF  # of the checksum
    refused(tmp_path / "rows.jsonl.gz", bytes(packed), "the compressed data are damaged")


@pytest.mark.parametrize("cut", [1, 4, 100, 2000])
def test_tables_that_end_early(tmp_path: Path, cut: int) -> None:
    table = pa.Table.from_pylist(ROWS)
    parquet.write_table(table, tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    refused(tmp_path / "rows.parquet", whole[:-cut], r"rows\.parquet: not a Parquet file, or a damaged one")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    whole = bytes(sink.getvalue())
    refused(tmp_path / "rows.arrow", whole[:-cut], r"rows\.arrow: not an Arrow file, or a damaged one")


def test_a_flipped_bit_of_a_page_is_told_by_its_checksum(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    parquet.write_table(
        table, tmp_path / "a.parquet", compression="none", write_page_checksum=True, use_dictionary=False
    )
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[data.index(b"p2000") + 2] ^= 1
    refused(tmp_path / "a.parquet", bytes(data), "a.parquet: not a Parquet file, or a damaged one: .*CRC")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"prompt": "p", "response": "r"}', "row 1: the list has no end"),
        (b'[{"prompt": "p", "response": "r"}, {"prompt": "x', "row 2: the list has no end"),
        (b"[1, 2]", "row 1: not an object but a number"),
        (b'[{"prompt": "p", "response": "r"}, {"prompt": "p" "response": "r"}]', "row 2: not JSON"),
        (b'[{"prompt": "p", "response": "r"},]', "row 2: not JSON"),
        (b'[{"prompt": "p", "response": "r"},, {}]', "row 2: not JSON"),
        (b'[{"prompt": "p", "response": NaN}]', "row 1: not JSON: NaN is not a JSON number"),
        (b'[{"prompt": "p", "prompt": "q", "response": "r"}]', "row 1: not JSON: the key 'prompt'"),
        (b'[{"prompt": "p", "response": "\xff"}]', "row 1: not UTF-8 at byte 30 of the row"),
        (b'[{"prompt": "p", "response": "r"}] [', "something follows the list: '\\['"),
        (b"[" * 100_000, "row 1: the list has no end"),
        (b"[" * 200 + b"]" * 200, "row 1: not JSON: nested more than 100 deep"),
        (b"[]", "the file has no rows"),
    ],
)
def test_bad_arrays(tmp_path: Path, data: bytes, message: str) -> None:
    refused(tmp_path / "rows.json", data, rf"rows\.json: {message}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"prompt,prompt\na,b\n", "two columns are called 'prompt'"),
        (b"prompt,response\np,r,x\n", "row 1: 3 cells where the header has 2"),
        (b"prompt,response\np,r\np\n", "row 2: 1 cells where the header has 2"),
        (b'prompt,response\np,r\n"p,r\nq,s\n', "row 2: a quote is never closed"),
        (b'prompt,response\n"p"x,r\n', "row 1: text after the closing quote of cell 1"),
        (b"prompt,response\np,\xff\n", "row 1: not UTF-8 at byte 3 of the row"),
        ("prompt,response\nä,ö\n".encode("latin-1"), "row 1: not UTF-8 at byte 1 of the row"),
        (b"pr\xffompt,response\np,r\n", "the header: not UTF-8"),
        (b'prompt,"response\np,r\n', "the header: a quote is never closed"),
        (b"prompt,response\n", "the file has no rows"),
    ],
)
def test_bad_tables_of_text(tmp_path: Path, data: bytes, message: str) -> None:
    refused(tmp_path / "rows.csv", data, rf"rows\.csv: {message}")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0, float("nan")]), "row 2: x is nan, which is no number"),
        (pa.array([1.0, float("inf")]), "row 2: x is inf, which is no number"),
        (pa.array([None, b"\x00\x01"]), "row 2: x is bytes, which is no text"),
        (pa.array([[b"a"], None]), "row 1: x is bytes, which is no text"),
        (pa.array([b"ok", b"\xff"]).view(pa.string()), "row 2: x is not UTF-8"),
    ],
)
def test_values_of_tables_that_no_row_can_hold(tmp_path: Path, column: pa.Array, message: str) -> None:
    table = pa.table({"prompt": ["p", "q"], "response": ["r", "s"], "x": column})
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=rf"rows\.parquet: {message}"):
        read(tmp_path / "rows.parquet")


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["p"]), pa.array(["q"])], names=["prompt", "prompt"])
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="two columns are called 'prompt'"):
        read(tmp_path / "rows.parquet")


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no data file"):
        read(tmp_path)
    DatasetDict({"train": Dataset.from_list(ROWS[:2]), "test": Dataset.from_list(ROWS[:1])}).save_to_disk(
        tmp_path / "both"
    )
    with pytest.raises(DataError, match="both: a folder of the splits train, test") as caught:
        read(tmp_path / "both")
    assert caught.value.hint == f"give one of them: {tmp_path / 'both' / 'train'}"
    assert len(read(tmp_path / "both" / "test")) == 1
    (tmp_path / "both" / "test" / "state.json").write_text('{"_data_files": [{"filename": "../x"}]}')
    with pytest.raises(DataError, match=r"state\.json names no files of rows"):
        read(tmp_path / "both" / "test")
    (tmp_path / "both" / "test" / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')
    with pytest.raises(DataError, match=r"x\.arrow: No such file"):
        read(tmp_path / "both" / "test")


def test_a_table_inside_gzip(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS[:2]), tmp_path / "a.parquet")
    packed = gzip.compress((tmp_path / "a.parquet").read_bytes())
    assert refused(tmp_path / "a.parquet.gz", packed, "Parquet inside gzip") == "unpack the file"


@pytest.mark.long
def test_a_row_of_more_than_64_mib(tmp_path: Path) -> None:
    long = b'"' + b"x" * (64 << 20) + b'"'
    refused(tmp_path / "a.json", b"[" + long + b"]", "a.json: row 1: more than 67108864 bytes")
    refused(tmp_path / "a.csv", b"prompt,response\np," + long, "a.csv: row 1: more than 67108864 bytes")
    refused(tmp_path / "a.jsonl", b"{" + long, "a.jsonl:1: a line of more than 67108864 bytes")


def test_what_is_not_there(tmp_path: Path) -> None:
    for name in ("none.jsonl", "none.parquet", "none.arrow", "none.csv"):
        with pytest.raises(DataError, match=rf"{name}: No such file or directory"):
            list(read_records(tmp_path / name))
