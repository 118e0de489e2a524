"""Reads the rows of a benchmark, as JSON Lines or in the formats of its authors, from disk or the hub."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sarm_control.bounded_json import read_json
from sarm_control.embedded import is_data_name
from sarm_control.errors import DataError
from sarm_control.files import written

_READABLE = (".jsonl", ".json", ".parquet")


def local_rows(source: str, patterns: Sequence[str], folder: Path) -> list[Path]:
    """Files of rows that the commands can read: JSON Lines, folders of latents, names such as `lab:audit`.

    Args:
        source: such a path; a `.parquet` file or a `.json` file with a list of rows, which is
            rewritten as JSON Lines; or the id of a data set on the hub, which is downloaded.
        patterns: the files of the hub's data set that hold the rows.
        folder: the folder of rewritten files, which keep their names.

    Raises:
        DataError: `source` is neither a file nor a data set, or a file holds no rows.
    """
    path = Path(source)
    if is_data_name(path) or path.is_dir() or path.suffix == ".jsonl":
        return [path]
    if path.is_file():
        return [_as_json_lines(path, folder)]
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or path.suffix in _READABLE:
        raise DataError(
            f"{source}: no such file",
            hint="give a file of rows, or a hub id such as allenai/reward-bench-2 to download it",
        )
    return [_as_json_lines(file, folder) for file in _download(source, patterns)]


def _as_json_lines(path: Path, folder: Path) -> Path:
    """Writes the rows of a Parquet or JSON file as JSON Lines in `folder`; the path of the new file."""
    target = folder / f"{path.stem}.jsonl"
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    with written(target), target.open("w", encoding="utf-8") as stream:
        for row in rows:
            # with ASCII escapes a lone surrogate survives, and the reader of rows then refuses it
            stream.write(json.dumps(row, default=str) + "\n")
    return target


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error
    for batch in table.to_batches():
        yield from batch.to_pylist()


def _json_rows(path: Path) -> list[dict[str, Any]]:
    content = read_json(path, most_bytes=1 << 30, hint="JSON Lines files end with .jsonl")
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{path}: not a list of rows", hint="JSON Lines files end with .jsonl")
    return content


def _download(data_set: str, patterns: Sequence[str]) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(data_set, repo_type="dataset", allow_patterns=list(patterns)))
    except LocalEntryNotFoundError as error:
        raise DataError(
            f"{data_set} is neither a file nor in the local cache, and the hub cannot be reached",
            hint="check the spelling of the file, or connect once to download it",
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise DataError(
            f"{data_set} is neither a file nor a data set on the hub: {str(error).strip().splitlines()[0]}"
        ) from error
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    if not files:
        raise DataError(
            f"{data_set} holds no {' or '.join(patterns)}", hint="download its rows and give the file"
        )
    return files
