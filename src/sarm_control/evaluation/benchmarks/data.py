"""Where the rows of a benchmark lie: a file of any form, or a data set of the hub, by its id."""

from collections.abc import Sequence
from pathlib import Path

from sarm_control.embedded import is_input_name
from sarm_control.errors import DataError

_READABLE = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".gz", ".zst", ".arrow")


def local_rows(source: str, patterns: Sequence[str]) -> list[Path]:
    """Files of rows that the commands can read: of any form, folders of latents, names such as `lab:audit`.

    Args:
        source: such a path; or the id of a data set on the hub, whose files are downloaded.
        patterns: the files of the hub's data set that hold the rows.

    Raises:
        DataError: `source` is neither a file nor a data set.
    """
    path = Path(source)
    if is_input_name(path) or path.exists():
        return [path]
    # what cannot be an id, or looks like a file with a typing error, is never asked of the hub
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or path.suffix in _READABLE:
        raise DataError(
            f"{source}: no such file",
            hint="give a file of rows, or a hub id such as allenai/reward-bench-2 to download it",
        )
    return _download(source, patterns)


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
