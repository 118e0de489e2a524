"""The same rows written in every form, by other libraries than the code under test where there is one."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("datasets", reason='needs the extra "data"')

from datasets import Dataset
from pyarrow import feather, parquet

Fields = list[dict[str, Any]]


def jsonl(path: Path, rows: Fields) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def json_lines_escaped(path: Path, rows: Fields) -> None:
    """With a byte-order mark, blank lines and the ends of lines of Windows."""
    lines = "\r\n\r\n".join(json.dumps(row) for row in rows)
    path.write_bytes(b"\xef\xbb\xbf" + lines.encode())


def json_array(path: Path, rows: Fields) -> None:
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")


def json_array_dense(path: Path, rows: Fields) -> None:
    path.write_text(json.dumps(rows, separators=(",", ":")) + "\n", encoding="utf-8-sig")


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value


def _table(path: Path, rows: Fields, delimiter: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows([{name: _cell(value) for name, value in row.items()} for row in rows])


def csv_file(path: Path, rows: Fields) -> None:
    _table(path, rows, ",")


def csv_semicolons(path: Path, rows: Fields) -> None:
    _table(path, rows, ";")


def tsv(path: Path, rows: Fields) -> None:
    _table(path, rows, "\t")


def parquet_file(path: Path, rows: Fields) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)


def arrow_file(path: Path, rows: Fields) -> None:
    feather.write_feather(pa.Table.from_pylist(rows), str(path), chunksize=2)


def arrow_stream(path: Path, rows: Fields) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def saved_data_set(path: Path, rows: Fields) -> None:
    Dataset.from_list(rows).save_to_disk(path, num_shards=2)


def gzipped(write: Callable[[Path, Fields], None]) -> Callable[[Path, Fields], None]:
    def packed(path: Path, rows: Fields) -> None:
        write(path, rows)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return packed


def zstd(write: Callable[[Path, Fields], None]) -> Callable[[Path, Fields], None]:
    def packed(path: Path, rows: Fields) -> None:
        write(path, rows)
        plain = path.read_bytes()
        with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as stream:
            stream.write(plain)

    return packed


# Names without a telling suffix: the bytes say the form.
FORMS: dict[str, Callable[[Path, Fields], None]] = {
    "a.jsonl": jsonl,
    "b.rows": json_lines_escaped,
    "c.json": json_array,
    "d.rows": json_array_dense,
    "e.csv": csv_file,
    "f.csv": csv_semicolons,
    "g.rows": csv_file,
    "h.tsv": tsv,
    "i.rows": tsv,
    "j.parquet": parquet_file,
    "k.rows": parquet_file,
    "l.arrow": arrow_file,
    "m.arrow": arrow_stream,
    "n": saved_data_set,
    "o.jsonl.gz": gzipped(jsonl),
    "p.rows": gzipped(json_array),
    "q.csv.gz": gzipped(csv_file),
    "r.jsonl.zst": zstd(jsonl),
    "s.rows": zstd(tsv),
}
LINES = {"a.jsonl", "b.rows", "o.jsonl.gz", "r.jsonl.zst"}
"""The forms that have lines; the others have rows."""
