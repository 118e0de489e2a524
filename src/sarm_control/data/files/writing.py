"""Rows into a file: JSON Lines, Parquet, CSV or TSV by its name; the text forms packed by `.gz` or `.zst`.

What cannot be read back as it was is refused: a column of numbers and text in Parquet, a column of lists
and text in CSV.
"""

import contextlib
import gzip
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from sarm_control.bounded_json import parse_json
from sarm_control.data.files.arrow_tables import BATCH
from sarm_control.data.files.csv_tables import csv_line, row_of_cells
from sarm_control.data.files.forms import plain_suffix
from sarm_control.errors import OutputError
from sarm_control.files import atomic_file

if TYPE_CHECKING:
    import pyarrow

OutputForm = Literal["JSON Lines", "Parquet", "CSV", "TSV"]
Rows = Iterable[Mapping[str, Any]]
_Again = Callable[[], Iterator[Mapping[str, Any]]]

_FORMS: dict[str, OutputForm] = {".parquet": "Parquet", ".csv": "CSV", ".tsv": "TSV"}
_NOT_WRITTEN = (".arrow", ".feather", ".xlsx", ".xls", ".pkl", ".pt", ".npz", ".db", ".sqlite")
_AS_JSON_LINES = "write JSON Lines, which holds any row: a name that ends with .jsonl"


def output_form(path: Path) -> OutputForm:
    """The form that rows are written in to a file of this name; JSON Lines where the suffix says nothing.

    Raises:
        OutputError: a suffix of a form that is not written.
    """
    suffix = plain_suffix(path)
    form = _FORMS.get(suffix, "JSON Lines")
    if suffix in _NOT_WRITTEN or (form == "Parquet" and path.suffix.lower() != ".parquet"):
        raise OutputError(
            f"{path}: rows are not written in this form",
            hint="name it .jsonl, .parquet, .csv or .tsv; the text forms also with .gz or .zst",
        )
    return form


def write_rows(path: Path, rows: Rows) -> int:
    """Writes rows whole or not at all; their fields keep their order, and memory does not grow with them.

    Args:
        path: the file; its suffix says the form, see `output_form`.
        rows: of JSON values. In Parquet and CSV, which have columns, a field that a row lacks is null.

    Returns:
        How many rows there were.

    Raises:
        OutputError: it cannot be written, or the form cannot hold a value so that it is read back.
    """
    form = output_form(path)
    with atomic_file(path) as temporary:
        if form == "JSON Lines":
            with _packed(temporary, path) as stream:
                return _write_lines(stream, rows)
        # columns come first in these forms, and their names and types are known only after the last row
        with _twice(rows) as again:
            if form == "Parquet":
                return _write_parquet(temporary, path, again)
            with _packed(temporary, path) as stream:
                return _write_csv(stream, path, again, "," if form == "CSV" else "\t")


def _write_lines(stream: IO[bytes], rows: Rows) -> int:
    count = 0
    for row in rows:
        stream.write(_line(row))
        count += 1
    return count


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextlib.contextmanager
def _packed(temporary: Path, path: Path) -> Iterator[IO[bytes]]:
    """The stream into a file, by the suffix of the name it will have; equal rows give equal bytes."""
    suffix = path.suffix.lower()
    with temporary.open("wb") as raw:
        if suffix in (".gz", ".gzip"):
            # neither name nor time, which would differ from one writing to the next
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
                yield cast("IO[bytes]", stream)
        elif suffix in (".zst", ".zstd"):
            import pyarrow

            with pyarrow.CompressedOutputStream(pyarrow.PythonFile(raw, mode="w"), "zstd") as stream:
                yield cast("IO[bytes]", stream)
        else:
            yield raw


@contextlib.contextmanager
def _twice(rows: Rows) -> Iterator[_Again]:
    """Rows that can be gone through again: what comes only once waits in a temporary file."""
    if isinstance(rows, Sequence):
        yield lambda: iter(rows)
        return
    with tempfile.TemporaryFile() as spool:
        _write_lines(spool, rows)

        def again() -> Iterator[Mapping[str, Any]]:
            spool.seek(0)
            return (parse_json(line.decode()) for line in spool)

        yield again


def _batches(rows: Iterator[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    while batch := list(itertools.islice(rows, BATCH)):
        yield batch


def _names(again: _Again) -> list[str]:
    """Every field, in the order of appearance."""
    return list(dict.fromkeys(name for row in again() for name in row))


def _write_csv(stream: IO[bytes], path: Path, again: _Again, delimiter: str) -> int:
    names = _names(again)
    if not names:
        return 0
    stream.write(csv_line(names, delimiter, header=True))
    count = 0
    for count, row in enumerate(again(), start=1):
        line = row_of_cells(row, names, delimiter)
        # a reader takes an empty line for none, and the row would be gone
        if not line.strip(b" \r\n"):
            raise OutputError(f"{path}: row {count} is empty, which CSV cannot hold", hint=_AS_JSON_LINES)
        stream.write(line)
    _check_lists(path, names, again)
    return count


def _check_lists(path: Path, names: Sequence[str], again: _Again) -> None:
    """Whether lists and text are told apart when the file is read."""
    from sarm_control.data.files.csv_tables import is_list_cell
    from sarm_control.data.files.forms import LIST_COLUMNS

    for name in LIST_COLUMNS.intersection(names):
        values = [value for row in again() if (value := row.get(name)) is not None and value != ""]
        lists = sum(isinstance(value, list) for value in values)
        looks = sum(isinstance(value, str) and is_list_cell(value) for value in values)
        if (lists and lists < len(values)) or (looks and looks == len(values)):
            raise OutputError(
                f"{path}: {name} holds text and lists, which CSV cannot tell apart", hint=_AS_JSON_LINES
            )


def _write_parquet(temporary: Path, path: Path, again: _Again) -> int:
    import pyarrow
    from pyarrow import parquet

    names = _names(again)
    if not names and next(again(), None) is not None:
        raise _cannot(path, "rows without fields have no column")
    try:
        schema = _schema(names, again, path)
        # with checksums, which the reader of Parquet checks: a damaged page is an error and no other
        # row
        with parquet.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
            count = 0
            for batch in _batches(again()):
                table = _table(batch, schema)
                # types were widened until one held the whole column: whether every value came
                # through unchanged is seen only here
                _check_same(batch, table, count, path)
                writer.write_table(table)
                count += len(batch)
    except (pyarrow.ArrowException, OverflowError, TypeError) as error:
        raise _cannot(path, str(error)) from error
    return count


def _schema(names: Sequence[str], again: _Again, path: Path) -> "pyarrow.Schema":
    import pyarrow

    schema = pyarrow.schema([])
    for batch in _batches(again()):
        for name in names:
            values = [row.get(name) for row in batch]
            try:
                # of every batch: a column may be whole numbers for thousands of rows before
                # the first fraction
                kind = pyarrow.array(values).type
                one = pyarrow.schema([(name, kind)])
                schema = pyarrow.unify_schemas([schema, one], promote_options="permissive")
            except (pyarrow.ArrowException, OverflowError, TypeError) as error:
                raise _cannot(path, f"{name}: {error}") from error
    return pyarrow.schema([schema.field(name) for name in names])


def _table(batch: Sequence[Mapping[str, Any]], schema: "pyarrow.Schema") -> "pyarrow.Table":
    import pyarrow

    columns = [
        pyarrow.array([row.get(name) for row in batch], schema.field(name).type) for name in schema.names
    ]
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _check_same(batch: Sequence[Mapping[str, Any]], table: "pyarrow.Table", before: int, path: Path) -> None:
    for number, (row, kept) in enumerate(zip(batch, table.to_pylist(), strict=True), start=before + 1):
        name = next((name for name in kept if not _same(row.get(name), kept[name])), None)
        if name is not None:
            raise _cannot(path, f"{name} of row {number} would change")


def _same(value: Any, kept: Any) -> bool:
    """Whether a value was kept; in objects, null and absent are one, and 1 is 1.0."""
    if isinstance(value, Mapping) and isinstance(kept, Mapping):
        return all(_same(value.get(name), kept.get(name)) for name in {**value, **kept})
    if isinstance(value, list | tuple) and isinstance(kept, list):
        return len(value) == len(kept) and all(map(_same, value, kept))
    # for Python 1 == True
    return bool(value == kept) and isinstance(value, bool) == isinstance(kept, bool)


def _cannot(path: Path, reason: str) -> OutputError:
    first = (reason.splitlines() or ["?"])[0]
    return OutputError(f"{path}: Parquet has one type a column: {first}", hint=_AS_JSON_LINES)
