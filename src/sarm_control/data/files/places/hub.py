"""Data sets of the hub, `hf:owner/name[@revision][:config][/split]`: streamed once, then read from a copy."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.console import say
from sarm_control.data.files.values import plain_fields
from sarm_control.data.files.writing import write_rows
from sarm_control.data.lines import Reason
from sarm_control.embedded import HUB_PREFIX, Copy, input_file, keep_copy
from sarm_control.errors import DataError
from sarm_control.extras import import_extra

_NAME = re.compile(
    r"(?P<data_set>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w.-]+))?(?::(?P<config>[^/:]+))?"
    r"(?:/(?P<split>[\w.-]+)(?:\[:(?P<first>\d{1,18})\])?)?"
)
_SPELLING = "write it like hf:owner/name, hf:owner/name/train or hf:owner/name:config/train"
_ALL = "all"
# How many rows the copy of a name has that this process made; None is all.
_HAS: dict[str, int | None] = {}


class HubName(NamedTuple):
    """The parts of a name; `first` is how many rows of the split are meant."""

    data_set: str
    revision: str | None
    config: str | None
    split: str | None
    first: int | None


def hub_name(path: Path) -> HubName:
    """The parts of `hf:owner/name[@revision][:config][/split]`; a split may be `train[:1000]`.

    Raises:
        DataError: the name is not spelt so.
    """
    found = _NAME.fullmatch(str(path).removeprefix(HUB_PREFIX))
    if found is None:
        raise DataError(f"{path}: no name of a data set on the hub", hint=_SPELLING)
    first = int(found["first"]) if found["first"] else None
    return HubName(found["data_set"], found["revision"], found["config"], found["split"], first)


def hub_copy(path: Path, limit: int | None) -> Path:
    """The file that holds the first rows of a data set, after streaming them if they are not there.

    Copies lie in `sarm-control/datasets` of the user's cache (`XDG_CACHE_HOME`), by revision; without a
    network the newest of them is taken.

    Args:
        path: the name.
        limit: rows that are needed; None needs all.

    Raises:
        DataError: no such data set, config or split; the hub cannot be reached and there is no copy.
        MissingExtraError: the extra `data` is needed and not there.
    """
    key = str(path)
    file = input_file(path)
    limit = rows_of_hub(path, limit)
    # one copy for a whole process: a second reading of the name must not get rows of a newer revision
    if file != path and (key not in _HAS or _covers(_HAS[key], limit)):
        return file
    name = hub_name(path)
    folder = _cache() / name.data_set.replace("/", "--")
    revision = _revision(path, name)
    if revision is None:
        copy = _newest(folder, name, limit, path)
    else:
        copy = _kept(folder / revision, name, limit) or _streamed(path, name, revision, folder, limit)
    parts = "".join(filter(None, (name.config and f":{name.config}", name.split and f"/{name.split}")))
    keep_copy(path, Copy(copy, f"{HUB_PREFIX}{name.data_set}@{copy.parent.name}{parts}"))
    _HAS[key] = _rows_of(copy)
    return copy


def rows_of_hub(path: Path, limit: int | None) -> int | None:
    """The most rows that are read of a data set: of its name (`train[:1000]`) and a limit the smaller."""
    return min((number for number in (hub_name(path).first, limit) if number is not None), default=None)


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "sarm-control" / "datasets"


def _covers(has: int | None, needed: int | None) -> bool:
    return has is None or (needed is not None and has >= needed)


def _stem(name: HubName) -> str:
    return f"{name.config or ''}--{name.split or ''}--"


def _rows_of(copy: Path) -> int | None:
    rows = copy.name.removesuffix(".jsonl.zst").rpartition("--")[2]
    return None if rows == _ALL else int(rows)


def _kept(folder: Path, name: HubName, limit: int | None) -> Path | None:
    """A copy of that revision with enough rows."""
    copies = folder.glob(f"{glob.escape(_stem(name))}*.jsonl.zst") if folder.is_dir() else ()
    return next((copy for copy in sorted(copies) if _covers(_rows_of(copy), limit)), None)


def _newest(folder: Path, name: HubName, limit: int | None, path: Path) -> Path:
    """A copy of the revision that was asked for, or of the newest one that is there."""
    revisions = sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime) if folder.is_dir() else []
    for revision in reversed(revisions):
        copy = _kept(revision, name, limit)
        if copy is not None and (name.revision is None or revision.name.startswith(name.revision)):
            say(f"{path}: the hub cannot be reached; its copy of revision {revision.name[:12]} is read")
            return copy
    raise DataError(
        f"{path}: the hub cannot be reached, and no copy of {limit or 'all'} rows is there",
        hint="connect once to make it, or give a file",
    )


def _revision(path: Path, name: HubName) -> str | None:
    """The commit that is meant; None when the hub cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return str(HfApi().dataset_info(name.data_set, revision=name.revision, timeout=30).sha)
    except OfflineModeIsEnabled:
        return None
    except (HfHubHTTPError, HFValidationError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        # the hub's own fault, as good as no network
        if status is not None and status >= 500:
            return None
        raise DataError(
            f"{path}: the hub has no such data set or revision, or does not show it: {_first_line(error)}",
            hint="check the spelling; a private or gated one needs hf auth login",
        ) from error
    except Exception as error:
        # of httpx or requests, whichever the hub's client uses
        if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore")):
            return None
        raise


def _streamed(path: Path, name: HubName, revision: str, folder: Path, limit: int | None) -> Path:
    rows = _rows(path, name, revision)
    target = folder / revision / f"{_stem(name)}{_ALL if limit is None else limit}.jsonl.zst"
    count = write_rows(target, _first(rows, limit))
    if limit is not None and count < limit:
        whole = target.with_name(f"{_stem(name)}{_ALL}.jsonl.zst")
        # the split ended before the limit: the copy is whole, and serves every later limit
        target = target.replace(whole)
    say(f"{path}: {count} rows of revision {revision[:12]}, kept in {target}")
    return target


def _first(rows: Iterator[dict[str, Any]], limit: int | None) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        yield row
        if number == limit:
            return


def _rows(path: Path, name: HubName, revision: str) -> Iterator[dict[str, Any]]:
    datasets = import_extra("datasets", "data", needed=f"{path} needs the package datasets")
    try:
        # streamed: of a data set of any size only the rows asked for are downloaded; the revision is
        # the commit, so that the copy is what its name says
        found = datasets.load_dataset(
            name.data_set, name.config, split=name.split, streaming=True, revision=revision
        )
        if isinstance(found, dict):
            found = _only_split(found, path)
        # decoding images or sound needs further packages, and no row of text is made of them
        found = found.decode(False) if hasattr(found, "decode") else found
        for number, row in enumerate(found, start=1):
            yield _plain(row, f"{path}: row {number}")
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: the data set cannot be read: {_first_line(error)}", hint=_SPELLING
        ) from error


def _plain(row: Any, where: str) -> dict[str, Any]:
    try:
        return plain_fields(row)
    except Reason as reason:
        raise DataError(f"{where}: {reason}", hint=reason.hint) from None


def _only_split(found: dict[str, Any], path: Path) -> Any:
    if len(found) == 1:
        return next(iter(found.values()))
    splits = ", ".join(found)
    raise DataError(
        f"{path}: it has the splits {splits}", hint=f"give one of them: {path}/{next(iter(found))}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
