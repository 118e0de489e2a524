"""Writes files as a whole or not at all, and makes the manifest that says where outputs came from."""

import contextlib
import errno
import glob
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sarm_control.console import say
from sarm_control.embedded import input_file, is_input_name, name_of_input
from sarm_control.errors import OutputError
from sarm_control.locks import LOCK_SUFFIX, locked

_ELSEWHERE = "choose an output path in a folder you can write to"
_HINTS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "make room for a file of that size (ulimit -f shows the limit)",
    errno.EIO: "look at the disk",
    errno.EROFS: _ELSEWHERE,
}
_REPLACED = "replaced"
_NO_LEFTOVERS = {f".{LOCK_SUFFIX}", f".{_REPLACED}"}
# Temporary folders that this process is filling. They look like leftovers of a killed process but are not.
_LIVE: set[str] = set()
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_VERSIONS_OF = ("sarm-control", "torch", "transformers", "numpy", "scipy", "safetensors", "pyarrow")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex. The file may be one of the embedded world, or a name's copy.

    For a folder of ours it is the hash of its `manifest.json`, which holds the hashes of the other files; for
    any other folder it is the hash of all its files that are not hidden.
    """
    file = input_file(path)
    if file.is_dir() and not (file / "manifest.json").exists():
        return _sha256_folder(file)
    digest = hashlib.sha256()
    with (file / "manifest.json" if file.is_dir() else file).open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _sha256_folder(folder: Path) -> str:
    """Of the names and hashes of its files; hidden ones are other programs' own, and no data."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = sorted(path.as_posix() for path in found if not any(part[0] == "." for part in path.parts))
    lines = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in files)
    return hashlib.sha256(lines.encode()).hexdigest()


@contextlib.contextmanager
def written(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turns errors of writing `path` into an `OutputError` that names it; errors about other files pass.

    Args:
        path: the file or folder that is written.
        temporary: where it lies until it is whole.

    Raises:
        OutputError: the disk is full, a file grew too large, or the folder went away.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno is None or not _is_about(error, (path, temporary or path)):
            raise
        raise cannot_write(path, error.errno) from error
    except Exception as error:
        # libraries in Rust (safetensors, tokenizers) raise their own errors, with the number in the text
        named = _RUST_OS_ERROR.search(str(error))
        if named is None or int(named[1]) not in _HINTS:
            raise
        raise cannot_write(path, int(named[1])) from error


def cannot_write(path: Path, number: int) -> OutputError:
    """The error for a file or folder that could not be written: the reason (an `errno`) and what helps."""
    return OutputError(f"cannot write {path}: {os.strerror(number)}", hint=_HINTS.get(number, _ELSEWHERE))


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` when the block succeeds.

    Raises:
        OutputError: the folder does not exist and cannot be made, or is read-only; the disk is full.
    """
    temporary = _temporary_beside(path)
    try:
        with written(path, temporary):
            yield temporary
            # content first: after a power failure the new name could stand for an empty file
            fsync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, and renames it to `path` when the block succeeds.

    To replace a folder, the old one is renamed to `.NAME.old`, the new one is renamed to `NAME`, and the old
    one is deleted. So at each moment the old or the new one is whole. If the process is killed between the
    two renames, the next write of `path` puts the old one back.

    Args:
        path: the folder; a link to one stands for what it points to.
        overwrite: whether a folder of that name may be replaced.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or it is a file; another process is writing it;
            its parent is read-only, or the disk is full.
    """
    _check_free(path, overwrite=overwrite)
    check_writable(path)
    place = path.resolve() if path.is_symlink() else path
    with locked(place) as alone:
        _finish_interrupted(place, leftovers=alone)
        _check_free(place, overwrite=overwrite)
        temporary = _folder_beside(place, "new")
        _LIVE.add(temporary.name)
        try:
            with written(path, temporary):
                yield temporary
                for child in (temporary, *temporary.rglob("*")):
                    if child.is_dir() or child.is_file():
                        fsync(child)
                _replace_folder(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            _LIVE.discard(temporary.name)


def remove_folder(path: Path) -> None:
    """Removes a folder so that it never exists under its name in parts.

    Raises:
        OutputError: it cannot be removed. It is then still whole, or the rest of it lies under another name.
    """
    with written(path):
        gone = _folder_beside(path, "gone")
        os.rename(path, gone)
    try:
        shutil.rmtree(gone)
    except OSError as error:
        raise OutputError(
            f"cannot remove {path}: {error.strerror}; what is left of it is {gone}",
            hint="remove that folder yourself",
        ) from error


def put_aside(path: Path, *, worth_keeping: bool) -> None:
    """Moves a folder aside so that a new one can be written in its place; `put_back` undoes it.

    Args:
        path: the folder; nothing is done where it does not exist.
        worth_keeping: whether it replaces a folder that was moved aside before; otherwise it is removed and
            the earlier one stays.
    """
    waiting = replaced(path)
    if path.exists() and waiting.exists() and not worth_keeping:
        remove_folder(path)
    if path.exists():
        drop_replaced(path)
        with written(path):
            path.rename(waiting)


def put_back(path: Path) -> bool:
    """Moves a folder of `put_aside` back, unless its name is taken; returns whether it did."""
    back = replaced(path).is_dir() and not path.exists()
    if back:
        with written(path, replaced(path)):
            replaced(path).rename(path)
    return back


def drop_replaced(path: Path) -> None:
    """Deletes the folder of `put_aside`, once its replacement is finished."""
    _delete_replaced(replaced(path), path)


def replaced(path: Path) -> Path:
    """The path of a folder that `put_aside` moved away."""
    return path.with_name(f".{path.name}.{_REPLACED}")


def clear_leftovers(folder: Path) -> None:
    """Removes the leftovers of interrupted writes in a folder, and puts back folders that were moved aside.

    Leftovers are named `.NAME.SOMETHING`, where NAME is the file or folder that was written. What another
    process is writing now is not touched.
    """
    for name in sorted({path.name[1:].rpartition(".")[0] for path in folder.glob(".*.*")} - {""}):
        place = folder / name
        with contextlib.suppress(OutputError), locked(place) as alone:
            _finish_interrupted(place, leftovers=False)
            for path in folder.glob(f".{glob.escape(name)}.*") if alone else ():
                if path.name.rpartition(".")[0] == f".{name}" and path.suffix not in _NO_LEFTOVERS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_writable(path: Path, *, make: bool = True) -> None:
    """Fails early when `path` could not be written later.

    Args:
        path: a file or folder.
        make: whether to make its parent folder; otherwise the nearest existing folder is checked.

    Raises:
        OutputError: names the folder that cannot be made or written.
    """
    folder = path.parent
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        while not make and not folder.exists() and folder != folder.parent:
            folder = folder.parent
        # tried and not asked: permissions say nothing of a full quota, or of what a network file
        # system allows
        handle, probe = tempfile.mkstemp(prefix=".probe.", dir=folder)
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror} ({folder})",
            hint=_HINTS.get(error.errno or 0, _ELSEWHERE),
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically; NaN is refused rather than written as invalid JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes JSON Lines atomically, one object a line, keys in the order given."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    write_text(path, "".join(line + "\n" for line in lines))


def named_inputs(paths: Sequence[Path]) -> dict[str, Path]:
    """Each distinct file by its name; where two files have the same name, the folder's name is put before it.

    What is no place on disk keeps its name (`lab:audit`, `-`, `hf:owner/name`).
    """
    names = {name_of_input(path): path for path in paths if is_input_name(path)}
    files = list(dict.fromkeys(path.resolve() for path in paths if not is_input_name(path)))
    shared = {name for name, count in Counter(file.name for file in files).items() if count > 1}
    for file in files:
        plain = f"{file.parent.name}/{file.name}" if file.name in shared else file.name
        further = (f"{plain} ({number})" for number in itertools.count(2))
        names[next(name for name in itertools.chain([plain], further) if name not in names)] = file
    return names


def manifest(
    command: str, *, inputs: Sequence[Path] = (), config: Mapping[str, Any], seed: int | None = None
) -> dict[str, Any]:
    """What somebody needs to make the same output again.

    Inputs are identified by file name and SHA-256, never by a path of this machine (see `named_inputs`).
    """
    return {
        "command": command,
        "inputs": {name: sha256_file(path) for name, path in named_inputs(inputs).items()},
        "config": dict(config),
        "seed": seed,
        "versions": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _check_free(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint="choose another name or pass --overwrite")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, and a folder is to be written", hint="choose another name")


def _replace_folder(new: Path, place: Path) -> None:
    """Replaces `place` by `new`; after a failure before that, the old folder is put back."""
    aside = _aside(place)
    try:
        if place.exists():
            os.rename(place, aside)
        os.replace(new, place)
    finally:
        if aside.exists() and not place.exists():
            os.rename(aside, place)
    fsync(place.parent)
    _delete_replaced(aside, place)


def _finish_interrupted(place: Path, *, leftovers: bool) -> None:
    """Finishes or undoes an interrupted write of `place`. The caller holds its lock."""
    with written(place):
        if _aside(place).is_dir() and not place.exists():
            os.rename(_aside(place), place)
    _delete_replaced(_aside(place), place)
    kinds = tuple(f".{place.name}.{kind}-" for kind in ("new", "gone"))
    for path in list(place.parent.iterdir()) if leftovers else ():
        if path.name.startswith(kinds) and path.name not in _LIVE:
            shutil.rmtree(path, ignore_errors=True)


def _delete_replaced(aside: Path, place: Path) -> None:
    """Deletes a replaced folder. It is renamed first, so that a folder named `aside` is always whole."""
    if not aside.exists():
        return
    try:
        gone = _folder_beside(place, "gone")
        os.rename(aside, gone)
        shutil.rmtree(gone)
    except OSError as error:
        say(f"warning: {place} is whole, but the folder it replaced could not be deleted: {error}")


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _folder_beside(place: Path, kind: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.{kind}-", dir=place.parent))
    # `mkdtemp` keeps everybody else out, as `mkstemp` does
    folder.chmod(0o755)
    return folder


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS_OF:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _is_about(error: OSError, places: Sequence[Path]) -> bool:
    """Whether an error is about one of these places.

    Python names the file when opening, renaming or removing fails, but not when a write fails.
    """
    if not isinstance(error.filename, str | bytes):
        return error.errno in _HINTS
    return any(Path(os.fsdecode(error.filename)).is_relative_to(place) for place in places)


def _temporary_beside(path: Path) -> Path:
    check_writable(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    # `mkstemp` lets nobody else read what it makes, and the name that comes later keeps that
    temporary.chmod(0o644)
    return temporary


def fsync(path: Path) -> None:
    """Waits until the content of a file, or the list of names in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
