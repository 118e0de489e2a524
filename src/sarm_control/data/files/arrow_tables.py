"""Parquet and Arrow files, and folders that `datasets` saved, batch by batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sarm_control.bounded_json import read_json_object
from sarm_control.data.files.records import AnyRecord, BadRecord, Record
from sarm_control.data.files.values import plain_fields
from sarm_control.data.lines import START, Place, Reason
from sarm_control.errors import DataError

if TYPE_CHECKING:
    import pyarrow

BATCH: Final = 1000
"""Rows that are in memory at a time."""

_RELEASE_AFTER = 10
"""Batches of Parquet after which freed memory goes back to the system."""

_AGAIN = "copy or download the file again"


def parquet_records(file: Path, path: Path, start: Place = START) -> Iterator[AnyRecord]:
    """The rows of a Parquet file, from `start` on; row groups before it are not read.

    Args:
        file: where it lies.
        path: its name, for messages.
        start: the place of a row.

    Raises:
        DataError: the file is damaged, or two columns have one name.
    """
    yield from batch_records(_parquet_batches(file, path, start.line - 1), path, start)


def ipc_records(file: Path, path: Path, start: Place = START) -> Iterator[AnyRecord]:
    """The same of an Arrow IPC file or stream (`.arrow`, `.feather`).

    Raises:
        DataError: see `parquet_records`.
    """
    yield from batch_records(_ipc_batches(file, path), path, start)


def saved_records(folder: Path, path: Path, start: Place = START) -> Iterator[AnyRecord]:
    """The rows of a folder that `datasets.Dataset.save_to_disk` wrote.

    Raises:
        DataError: see `parquet_records`; a folder of several splits, or of something else.
    """
    files = _saved_files(folder, path)
    batches = (batch for file in files for batch in _ipc_batches(file, path / file.name))
    yield from batch_records(batches, path, start)


def batch_records(
    batches: "Iterator[tuple[int, pyarrow.RecordBatch]] | Iterator[pyarrow.RecordBatch]",
    path: Path,
    start: Place = START,
) -> Iterator[AnyRecord]:
    """The rows of batches; a batch may come with the number of its first row, from 0."""
    first = 0
    for item in batches:
        first, batch = item if isinstance(item, tuple) else (first, item)
        skip = max(0, start.line - 1 - first)
        if skip < batch.num_rows:
            yield from _rows(batch.slice(skip), first + skip, path)
        first += batch.num_rows


def _rows(batch: "pyarrow.RecordBatch", first: int, path: Path) -> Iterator[AnyRecord]:
    names = batch.schema.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}", hint="rename one of them")
    for begin in range(0, batch.num_rows, BATCH):
        part = batch.slice(begin, BATCH)
        try:
            found: list[dict[str, Any] | None] = part.to_pylist()
        # one value that Python cannot hold spoils the whole batch: its rows are then read one by one
        except (ValueError, OverflowError):
            found = [None] * part.num_rows
        for number, fields in enumerate(found):
            place = Place(first + begin + number + 1, 0, "row")
            yield _record(place, part, number, fields)


def _record(
    place: Place, part: "pyarrow.RecordBatch", number: int, fields: dict[str, Any] | None
) -> AnyRecord:
    try:
        return Record(place, plain_fields(_one_row(part.slice(number, 1)) if fields is None else fields))
    except Reason as reason:
        return BadRecord(place, reason, str(fields))


def _one_row(one: "pyarrow.RecordBatch") -> dict[str, Any]:
    fields = {}
    for name in one.schema.names:
        try:
            (fields[name],) = one.column(name).to_pylist()
        except UnicodeDecodeError:
            raise Reason(f"{name} is not UTF-8", "write the column as text in UTF-8") from None
        except (ValueError, OverflowError) as error:
            raise Reason(f"{name} cannot be read: {error}") from None
    return fields


def _parquet_batches(file: Path, path: Path, skip: int) -> "Iterator[tuple[int, pyarrow.RecordBatch]]":
    import pyarrow
    from pyarrow import parquet

    try:
        # buffered, so that memory does not grow with the size of a row group; buffered ahead (`pre_buffer`),
        # all row groups of the file would be in memory at once
        with parquet.ParquetFile(
            file, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
        ) as table:
            first, groups = 0, list[int]()
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if not groups and first + rows <= skip:
                    first += rows
                else:
                    groups.append(group)
            # one thread: each would keep pages of its own, and making Python objects takes most of the time
            batches = table.iter_batches(BATCH, row_groups=groups, use_threads=False) if groups else ()
            for number, batch in enumerate(batches, start=1):
                yield first, batch
                first += batch.num_rows
                if number % _RELEASE_AFTER == 0:
                    # Arrow's pool keeps what batches freed: peak memory then grows for the first 100 batches
                    pyarrow.default_memory_pool().release_unused()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, "a Parquet", error) from error


def _ipc_batches(file: Path, path: Path) -> "Iterator[pyarrow.RecordBatch]":
    import pyarrow

    try:
        with pyarrow.OSFile(str(file)) as source:
            # files begin with this, streams do not; a name such as .arrow may be either
            if source.read(6) == b"ARROW1":
                with pyarrow.ipc.open_file(source) as table:
                    for number in range(table.num_record_batches):
                        yield _checked(table.get_batch(number))
                return
            source.seek(0)
            with pyarrow.ipc.open_stream(source) as stream:
                for batch in stream:
                    yield _checked(batch)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise _damaged(path, "an Arrow", error) from error


def _checked(batch: "pyarrow.RecordBatch") -> "pyarrow.RecordBatch":
    """Offsets of a damaged file may point outside it: told before they are followed."""
    batch.validate(full=True)
    return batch


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: No such file or directory", hint="check the file's name")
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"{path}: not {kind} file, or a damaged one: {reason}", hint=_AGAIN)


def _saved_files(folder: Path, path: Path) -> list[Path]:
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = read_json_object(splits).get("splits")
        known = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        raise DataError(
            f"{path}: a folder of the splits {', '.join(known)}",
            hint=f"give one of them: {path / known[0]}" if known else "give the folder of one split",
        )
    listed = read_json_object(folder / "state.json").get("_data_files")
    names = (
        [one.get("filename") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    )
    # names alone, no paths: the list is somebody else's JSON
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise DataError(f"{path}: state.json names no files of rows", hint="save the data set again")
    return [folder / str(name) for name in names]
