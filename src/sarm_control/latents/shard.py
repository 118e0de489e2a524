"""One shard of a latents folder: a Parquet table of data rows, and one of their answers.

Shapes: `N` answers, `L` latents of the autoencoder, `K` stored values of an answer, `D` hidden size.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.data import AUTOMATIC, Reason, Row, RowOptions, json_object, parse_row
from sarm_control.errors import DataError
from sarm_control.latents.rows import ScoredRows, roles
from sarm_control.reward_model import FloatArray, Kind, Scored, SparseLatents, not_finite_rows

if TYPE_CHECKING:
    import pyarrow

# Ascending indices take about 10 bits each when they are stored as differences. Floats compress better with
# their bytes split, since the exponents then stand together. Values do not repeat, so a dictionary would only
# add bytes.
_ENCODINGS = {
    "indices.list.element": "DELTA_BINARY_PACKED",
    "values.list.element": "BYTE_STREAM_SPLIT",
    "state.list.element": "BYTE_STREAM_SPLIT",
    "residual": "BYTE_STREAM_SPLIT",
}
_FEW_VALUES = ["role", "file", "kind", "read_as"]


class Head(NamedTuple):
    """The head of the scores: weights [L] float32, their fingerprint, and that of the model if known.

    `kind` is that of the reward model, `constant` what every answer gets; see `Scored`.
    """

    weight: FloatArray
    fingerprint: str
    model_fingerprint: str | None = None
    kind: Kind = "sarm"
    constant: float = 0.0


class ShardBytes(NamedTuple):
    """The two files of a shard."""

    rows: bytes
    answers: bytes


def encode_shard(
    found: ScoredRows,
    *,
    first: int,
    names: Mapping[Path, str],
    chosen: Sequence[int] | None = None,
    mark: Mapping[str, str] | None = None,
) -> ShardBytes:
    """The files of one shard; equal input gives equal bytes.

    Args:
        found: its rows and their scores, with states if these are kept.
        first: number of its first row in the whole data.
        names: the name of each data file in outputs.
        chosen: latents to keep; None keeps all. Rewards are always those of all latents.
        mark: written to the metadata of both files, so that shards of other runs are recognised.

    Raises:
        DataError: a reward or latent is NaN or infinite; the message names the row.
    """
    _check_finite(found)
    mark = dict(mark or {})
    rows = _rows_table(found.rows, first, names)
    answers = _answers_table(found, first, chosen)
    return ShardBytes(*(_parquet(table.replace_schema_metadata(mark)) for table in (rows, answers)))


def decode_rows(data: bytes) -> list[Row]:
    """The rows of a file of `encode_shard`, checked again by the reader of data files."""
    table = _table(data)
    columns = [table[name].to_pylist() for name in ("json", "file", "line", "kind")]
    # written only where a row needs them, so that plain folders keep the bytes they always had
    for name in ("read_as", "unit"):
        known = name in table.column_names
        columns.append(table[name].to_pylist() if known else [None] * table.num_rows)
    return [
        parse_row(
            _object(text),
            path=Path(file),
            line=line,
            want={kind},
            options=_options(how),
            unit="row" if unit == "row" else "line",
        )
        for text, file, line, kind, how, unit in zip(*columns, strict=True)
    ]


def _options(text: str | None) -> RowOptions:
    """What `_read_as` wrote."""
    if text is None:
        return AUTOMATIC
    found = _object(text)
    return RowOptions(tuple(found["columns"].items()), found["repeated"])


def _read_as(row: Row) -> str | None:
    """What has to be known to read the row's own fields again; None where they say it all."""
    if row.read_as == AUTOMATIC:
        return None
    return json.dumps({"columns": dict(row.read_as.columns), "repeated": row.read_as.repeated})


def _object(text: str) -> dict[str, Any]:
    try:
        return json_object(text.encode())
    except Reason as reason:
        raise ValueError(f"a row is {reason}") from None


def decode_answers(data: bytes, head: Head, *, states: bool = False) -> Scored:
    """The scores in a file of `encode_shard`.

    Args:
        data: the file.
        head: the head it was scored with.
        states: whether to read the trunk's states, if the file has them.

    Raises:
        DataError: indices and values of different lengths, or a latent outside 0..L-1.
    """
    table = _table(data)
    latents = _sparse(table["indices"].combine_chunks(), table["values"].combine_chunks(), len(head.weight))
    return Scored(
        rewards=_numpy(table["reward"], np.float32),
        latents=latents,
        head=head.weight,
        truncated=_numpy(table["truncated"], np.int64),
        ended=_numpy(table["ended"], np.bool_),
        lengths=_numpy(table["length"], np.int64),
        fingerprint=head.fingerprint,
        states=_states(table) if states and "state" in table.column_names else None,
        model_fingerprint=head.model_fingerprint,
        **_own_parts(table, head),
    )


def _own_parts(table: "pyarrow.Table", head: Head) -> dict[str, Any]:
    """What a reward model's own head gives beside its latents."""
    if head.kind == "sarm":
        return {}
    if "residual" not in table.column_names:
        raise DataError("holds no residual, which rewards of such a model have")
    residual = _numpy(table["residual"], np.float64)
    return {"residual": residual, "constant": head.constant, "kind": head.kind}


def encode_head(weight: FloatArray) -> bytes:
    """The file of the head weights [L]."""
    from safetensors.numpy import save

    return save({"weight": np.ascontiguousarray(weight)})


def decode_head(data: bytes) -> FloatArray:
    """The head weights [L] float32 in a file of `encode_head`.

    Raises:
        ValueError: the bytes are not such a file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return np.asarray(load(data)["weight"], dtype=np.float32)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def metadata_of(data: bytes) -> dict[str, str]:
    """The `mark` that a file was written with; empty if it is not a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        found = parquet.read_schema(pyarrow.BufferReader(data)).metadata or {}
    except (pyarrow.ArrowException, OSError, ValueError):
        return {}
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in found.items()}


def index_type(size: int) -> "pyarrow.DataType":
    """The smallest unsigned type that holds 0..L-1."""
    import pyarrow

    return pyarrow.uint16() if size <= 1 << 16 else pyarrow.uint32()


def _check_finite(found: ScoredRows) -> None:
    bad = not_finite_rows(found.scored)
    if len(bad):
        owners = [row for row in found.rows for _ in row.answers]
        raise DataError(
            f"{owners[int(bad[0])].where}: the model gave a latent or reward that is NaN or infinite",
            hint="try another --dtype: float16 overflows where bfloat16 and float32 do not",
        )


def _rows_table(rows: Sequence[Row], first: int, names: Mapping[Path, str]) -> "pyarrow.Table":
    import pyarrow

    text, integer = pyarrow.string(), pyarrow.int64()
    columns = {
        "row": pyarrow.array(range(first, first + len(rows)), integer),
        "file": pyarrow.array([str(Path(names[row.path]) / row.file) for row in rows], text),
        "line": pyarrow.array([row.line for row in rows], integer),
        "kind": pyarrow.array([row.kind for row in rows], text),
        "json": pyarrow.array([json.dumps(row.raw, ensure_ascii=False) for row in rows], text),
    }
    read_as = [_read_as(row) for row in rows]
    if any(read_as):
        columns["read_as"] = pyarrow.array(read_as, text)
    if any(row.unit != "line" for row in rows):
        columns["unit"] = pyarrow.array([row.unit for row in rows], text)
    return pyarrow.table(columns)


def _answers_table(found: ScoredRows, first: int, chosen: Sequence[int] | None) -> "pyarrow.Table":
    import pyarrow

    rows, scored = found
    latents = scored.latents if chosen is None else _only(scored.latents, chosen)
    counts = [len(row.answers) for row in rows]
    number = [place for count in counts for place in range(count)]
    integer = pyarrow.int32()
    columns = {
        "row": pyarrow.array(np.repeat(np.arange(first, first + len(rows)), counts)),
        "answer": pyarrow.array(number, integer),
        "role": pyarrow.array([role for row in rows for role in roles(row)], pyarrow.string()),
        "reward": pyarrow.array(scored.rewards),
        "truncated": pyarrow.array(scored.truncated, integer),
        "ended": pyarrow.array(scored.ended),
        "length": pyarrow.array(scored.lengths, integer),
        "indices": _lists(latents.indptr, latents.indices, index_type(latents.size)),
        "values": _lists(latents.indptr, latents.values, pyarrow.float32()),
    }
    if scored.kind != "sarm":
        columns["residual"] = pyarrow.array(scored.residual)
    if scored.states is not None:
        flat = pyarrow.array(scored.states.astype(np.float32).reshape(-1))
        columns["state"] = pyarrow.FixedSizeListArray.from_arrays(flat, scored.states.shape[1])
    return pyarrow.table(columns)


def _only(latents: SparseLatents, chosen: Sequence[int]) -> SparseLatents:
    kept = np.isin(latents.indices, np.asarray(chosen))
    # the kept pairs before every pair; at the old ends of rows these are the new ends
    indptr = np.concatenate([[0], np.cumsum(kept)])[latents.indptr]
    return SparseLatents(indptr, latents.indices[kept], latents.values[kept], latents.size)


def _lists(indptr: NDArray[np.int64], items: NDArray[Any], kind: "pyarrow.DataType") -> "pyarrow.Array":
    import pyarrow

    element = pyarrow.field("element", kind, nullable=False)
    # pyarrow casts, since older releases need pandas to find the numpy type of an Arrow type
    values = pyarrow.array(items).cast(kind)
    return pyarrow.ListArray.from_arrays(
        pyarrow.array(indptr, pyarrow.int32()), values, pyarrow.list_(element)
    )


def _parquet(table: "pyarrow.Table") -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    encodings = {name: kind for name, kind in _ENCODINGS.items() if name.split(".")[0] in table.column_names}
    few = [name for name in _FEW_VALUES if name in table.column_names]
    parquet.write_table(
        table, sink, compression="zstd", use_dictionary=few, column_encoding=encodings or None
    )
    return bytes(sink.getvalue())


def _table(data: bytes) -> "pyarrow.Table":
    import pyarrow
    from pyarrow import parquet

    # In this thread alone. Arrow's own threads would hold `data`, a Python object, for a moment longer than
    # the read takes; if Python ends within it, they abort the process (exit code 134) after all its work.
    with parquet.ParquetFile(pyarrow.BufferReader(data), pre_buffer=False) as file:
        return file.read(use_threads=False)


def _numpy(column: "pyarrow.ChunkedArray", dtype: Any) -> NDArray[Any]:
    # a copy: what Arrow gives may be a read-only view that keeps the whole file in memory
    return np.array(column.to_numpy(), dtype=dtype)


def _states(table: "pyarrow.Table") -> FloatArray:
    """[N, D] float32."""
    column = table["state"].combine_chunks()
    values = np.array(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    return values.reshape(len(column), column.type.list_size)


def _sparse(indices: "pyarrow.ListArray", values: "pyarrow.ListArray", size: int) -> SparseLatents:
    lengths, others = (np.asarray(lists.value_lengths()) for lists in (indices, values))
    ids = np.asarray(indices.flatten().to_numpy(zero_copy_only=False))
    # the hash says that the bytes are those that were written, not that they make sense: indices are checked
    # before they are used as places in the head
    if not np.array_equal(lengths, others) or (len(ids) and int(ids.max()) >= size):
        raise DataError(f"holds no (index, value) pairs of {size} latents")
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    stored = np.array(values.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    return SparseLatents(indptr, ids.astype(np.int32), stored, size)
