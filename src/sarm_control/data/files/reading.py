"""Records of a data file of any form, or of rows in memory: the one reader of all commands."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sarm_control.console import say
from sarm_control.data.files.arrow_tables import ipc_records, parquet_records, saved_records
from sarm_control.data.files.csv_tables import Columns, csv_records
from sarm_control.data.files.json_arrays import array_records
from sarm_control.data.files.memory import is_in_memory, memory_records, name_of
from sarm_control.data.files.places.folders import is_row_folder, is_saved_folder, others_in, shards_of
from sarm_control.data.files.places.hub import hub_copy, rows_of_hub
from sarm_control.data.files.places.opening import Opened, local_file, opened
from sarm_control.data.files.records import AnyRecord, BadRecord, Record
from sarm_control.data.lines import START, Place, Reason, json_object, lines_of
from sarm_control.embedded import is_hub_name
from sarm_control.errors import DataError

Source = Any
"""A path or name (`rows.jsonl`, `-`, `lab:audit`, `hf:owner/name/train`), or rows in memory: a list of
dicts, a pandas or polars frame, an Arrow table, a `datasets.Dataset`."""

_SAID: set[str] = set()


def read_records(
    source: Source, *, start: Place = START, limit: int | None = None, columns: Columns = ()
) -> Iterator[AnyRecord]:
    """The records of a source, from `start` on, read as they are asked for.

    Args:
        source: a path, a name, or rows in memory; see `Source`.
        start: where a record starts, as an earlier reading of the same source gave it.
        limit: the most records that are read; None reads all.
        columns: (our name, the file's name) of columns of CSV that have other names: they are read as those
            of our name.

    Yields:
        A `Record`, or a `BadRecord` for one that is damaged.

    Raises:
        DataError: the source cannot be read, is of a form that is not read, or ends early.
    """
    records = (
        memory_records(source, start) if is_in_memory(source) else _of(name_of(source), start, limit, columns)
    )
    return itertools.islice(records, limit)


def records_of(source: Source) -> list[dict[str, Any]]:
    """The fields of every record of a source: what a door needs that takes rows in any form.

    Raises:
        DataError: see `read_records`; a damaged record, with its place.
    """
    fields = []
    for record in read_records(source):
        if isinstance(record, BadRecord):
            place = record.place.of(name_of(source))
            raise DataError(f"{place}: {record.reason}", hint=record.reason.hint)
        fields.append(record.fields)
    return fields


def make_copies(paths: Iterable[Path], limit: int | None = None) -> None:
    """Copies what has no place of its own (pipes, the hub's data) where its hash is needed before it is read.

    Args:
        paths: data files or names.
        limit: the rows of a data set of the hub that are needed; None needs all.

    Raises:
        DataError: it cannot be read.
    """
    for path in paths:
        if is_hub_name(path):
            hub_copy(path, limit)
        else:
            local_file(path)


def _of(path: Path, start: Place, limit: int | None, columns: Columns) -> Iterator[AnyRecord]:
    if is_hub_name(path):
        with opened(hub_copy(path, limit), path) as found:
            records = _json_lines(found, path, start)
            for record in itertools.islice(records, rows_of_hub(path, limit)):
                # lines of the copy are rows of the data set, which is what the user named
                yield record._replace(place=record.place._replace(unit="row"))
        return
    file = local_file(path)
    if file.is_dir():
        yield from _in_folder(file, path, start, columns)
    else:
        yield from _in_file(file, path, start, columns)


def _in_folder(folder: Path, path: Path, start: Place, columns: Columns) -> Iterator[AnyRecord]:
    """The records of a folder's files, one after the other; each place names its file."""
    if is_saved_folder(folder):
        yield from saved_records(folder, path, start)
        return
    if not is_row_folder(folder):
        raise DataError(f"{path}: latents or a run, not rows of text", hint="give the data it was made from")
    names = shards_of(folder, path)
    first = names.index(start.file) if start.file in names else 0
    if start == START:
        _say_folder(path, names, others_in(folder, names))
    for name in names[first:]:
        begin = start if name == start.file else START
        for record in _in_file(folder / name, path / name, begin, columns):
            yield record._replace(place=record.place._replace(file=name))


def _say_folder(path: Path, names: Sequence[str], others: Sequence[str]) -> None:
    """Once a folder and process: readers go through their source more than once."""
    if str(path) in _SAID:
        return
    _SAID.add(str(path))
    files = names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} to {names[-1]}"
    left = f"; not read: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}" if others else ""
    say(f"{path}: {files}{left}")


def _in_file(file: Path, path: Path, start: Place, columns: Columns) -> Iterator[AnyRecord]:
    with opened(file, path, [theirs for _, theirs in columns]) as found:
        if found.form == "JSON Lines":
            yield from _json_lines(found, path, start)
        elif found.form == "JSON array":
            yield from array_records(found.stream, path, start)
        elif found.form in ("CSV", "TSV"):
            yield from csv_records(found.stream, path, found.delimiter, start=start, columns=columns)
        elif found.form == "Parquet":
            yield from parquet_records(file, path, start)
        else:
            yield from ipc_records(file, path, start)


def _json_lines(found: Opened, path: Path, start: Place) -> Iterator[AnyRecord]:
    for place, data in lines_of(found.stream, path, start):
        try:
            yield Record(place, json_object(data), data)
        except Reason as reason:
            yield BadRecord(place, reason, data.decode("utf-8", "backslashreplace"))
