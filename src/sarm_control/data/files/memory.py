"""Rows that are in memory already: a list of dicts, a pandas or polars frame, an Arrow table, a data set."""

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sarm_control.data.files.arrow_tables import BATCH, batch_records
from sarm_control.data.files.records import AnyRecord, BadRecord, Record
from sarm_control.data.files.values import plain_fields
from sarm_control.data.lines import START, Place, Reason
from sarm_control.embedded import local_path
from sarm_control.errors import DataError

_WANTS = (
    "a path, a list of dicts, a pandas or polars frame, an Arrow table, or a Dataset of the package datasets"
)


def is_in_memory(source: Any) -> bool:
    """Whether a source is rows, and not the name of a file."""
    return not isinstance(source, str | Path)


def name_of(source: Any) -> Path:
    """What messages call a source: a file's path, or `<list>`, `<DataFrame>`, `<Table>`."""
    return Path(f"<{type(source).__name__}>") if is_in_memory(source) else local_path(source)


def repeatable(source: Any) -> Any:
    """The same source; where it can be gone through only once, its rows in a list or table.

    Raises:
        DataError: it is a stream of Arrow batches that cannot be read.
    """
    if not is_in_memory(source) or not isinstance(source, Iterator):
        return source
    if not hasattr(source, "__arrow_c_stream__"):
        return list(source)
    import pyarrow

    try:
        return pyarrow.table(source)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{name_of(source)}: {str(error).splitlines()[0]}") from error


def memory_records(source: Any, start: Place = START) -> Iterator[AnyRecord]:
    """The rows of something in memory, from `start` on, with `row 1` as the first.

    Raises:
        DataError: it is nothing that rows can be read from, or a frame whose column has no one type.
    """
    batches = _batches(source)
    if batches is not None:
        yield from batch_records(batches, name_of(source), start)
        return
    if not isinstance(source, Iterable) or isinstance(source, Mapping | bytes | bytearray):
        raise DataError(f"rows cannot be read from {name_of(source)}", hint=f"give {_WANTS}")
    for number, item in enumerate(source, start=1):
        if number >= start.line:
            yield _record(item, Place(number, 0, "row"))


def _record(item: Any, place: Place) -> AnyRecord:
    try:
        if not isinstance(item, Mapping):
            raise Reason(f"not a dict but a {type(item).__name__}", "give a list of dicts")
        return Record(place, plain_fields(item))
    except Reason as reason:
        # shortened, since a row in memory may be of any size
        return BadRecord(place, reason, reprlib.repr(item))


def _batches(source: Any) -> Any:
    """Arrow batches of a table or frame; None for what is not one."""
    import pyarrow

    # by name: importing these packages only to ask for a type takes seconds
    package = type(source).__module__.split(".")[0]
    try:
        if package == "datasets" and hasattr(source, "with_format") and hasattr(source, "select"):
            # whatever format the user set for training: tensors are no rows
            whole = source.with_format("arrow")
            return (batch for table in whole.iter(batch_size=BATCH) for batch in table.to_batches())
        if package == "pandas":
            # before the general way, which would add the index as a column
            return iter(pyarrow.Table.from_pandas(source, preserve_index=False).to_batches())
        if hasattr(source, "__arrow_c_stream__"):
            return iter(pyarrow.table(source).to_batches())
        if isinstance(source, pyarrow.RecordBatch):
            return iter([source])
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"{name_of(source)}: {str(error).splitlines()[0]}",
            hint="a column has one type; frame.to_dict('records') gives a list of dicts, where it need not",
        ) from error
    return None
