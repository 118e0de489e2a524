"""Which files of a folder are the model, and which tensors of them: the one rule for everything that reads.

With `model.safetensors.index.json` the model is exactly the tensors it lists, each in the file it says.
Without one it is `model.safetensors`, or the only other safetensors file there is. Nothing else is opened.
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from sarm_control.bounded_json import read_json_object
from sarm_control.console import say
from sarm_control.errors import ModelError, SarmError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Files that may lie beside a model without being part of it: adapters, and Mistral's own format.
_BESIDE = ("adapter_*.safetensors", "consolidated*.safetensors")
_READ = (".json", ".jinja", ".model", ".safetensors")


class WeightFiles(NamedTuple):
    """The weight files of a model.

    Args:
        files: in order of their names.
        listed: the file of each tensor by the index; None without an index.
        strays: safetensors files in the folder that are not part of the model.
    """

    files: tuple[Path, ...]
    listed: Mapping[str, Path] | None
    strays: tuple[str, ...]


def weight_files(folder: Path, name: str) -> WeightFiles:
    """The files that hold the model in `folder`; none where it has no safetensors file of its own.

    Args:
        folder: where the checkpoint lies.
        name: what to call it in errors.

    Raises:
        ModelError: an index that is damaged, names a file outside the folder or one that is not there;
            several files and no index.
    """
    there = sorted(file.name for file in folder.glob("*.safetensors") if not _is_beside(file))
    index = folder / INDEX
    if index.exists() or index.is_symlink():
        listed = {tensor: folder / file for tensor, file in read_weight_map(index, name).items()}
        names = sorted({str(file.relative_to(folder)) for file in listed.values()})
        missing = next((file for file in names if not _is_there(folder / file)), None)
        if missing is not None:
            raise ModelError(f"{name} lacks the shard {in_a_line(missing)} named in {INDEX}")
    else:
        listed, names = None, _without_index(there, name)
    files = tuple(folder / file for file in names)
    for file in files:
        check_regular(file)
    return WeightFiles(files, listed, tuple(file for file in there if file not in names))


def read_weight_map(index: Path, name: str) -> dict[str, str]:
    """The file of each tensor, as an index of shards says it.

    Args:
        index: `model.safetensors.index.json`, or the same of pickled weights.
        name: what to call the model in errors.

    Raises:
        ModelError: the index is damaged, or names a file that is not inside its folder.
    """
    found = read_checkpoint_json(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ModelError(f"{name}: {index.name} has no weight_map from tensors to files")
    for tensor, file in found.items():
        if not isinstance(file, str) or not file:
            raise ModelError(f"{name}: {index.name} names no file for {in_a_line(tensor)} but {file!r}"[:300])
        if not _is_inside(file):
            raise ModelError(
                f"{name}: {index.name} names {file!r} for {in_a_line(tensor)}, which is not a file "
                "inside the folder",
                hint="download the checkpoint again, or trust it no further",
            )
    return {str(tensor): str(PurePosixPath(file)) for tensor, file in found.items()}


def read_checkpoint_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint.

    Raises:
        ModelError: naming the file that cannot be used.
    """
    try:
        return read_json_object(path, finite=True)
    except SarmError as error:
        raise ModelError(str(error), hint=error.hint) from error


def check_regular_files(folder: Path) -> None:
    """Refuses a folder in which a pipe, socket, device or folder stands where a file is read.

    Raises:
        ModelError: naming it.
    """
    for entry in sorted(folder.iterdir()):
        if entry.suffix in _READ:
            check_regular(entry)


def check_regular(file: Path) -> None:
    """Refuses what is no regular file: opening a pipe would wait for ever.

    Raises:
        ModelError: naming it.
    """
    if not file.is_file():
        broken = file.is_symlink() and not file.exists()
        what = "a link to a file that is not there" if broken else "not a regular file"
        raise ModelError(f"{file} is {what}", hint="download the checkpoint again")


@functools.cache
def say_strays(name: str, strays: tuple[str, ...]) -> None:
    """Names the files that were left alone; once for each model and process."""
    if strays:
        more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
        say(f"{name}: not part of the model and not read: {', '.join(strays[:3])}{more}")


def in_a_line(name: str) -> str:
    """A name out of a checkpoint for an error message: escaped where it would break the line."""
    return name if name.isprintable() else ascii(name)


def _without_index(there: Iterable[str], name: str) -> list[str]:
    found = list(there)
    if SINGLE in found:
        return [SINGLE]
    # one of several would be half a model, or the leftover of an older save
    if len(found) > 1:
        raise ModelError(
            f"{name} holds {len(found)} safetensors files ({found[0]}, {found[1]}, ...) and no {INDEX} "
            "that says which of their tensors are the model",
            hint=f"put {INDEX} back, or keep one file and call it {SINGLE}",
        )
    return found


def _is_beside(file: Path) -> bool:
    return any(file.match(pattern) for pattern in _BESIDE)


def _is_there(file: Path) -> bool:
    # a link that leads nowhere is a shard that is there, and `check_regular` says what is wrong with it
    return file.exists() or file.is_symlink()


def _is_inside(file: str) -> bool:
    """Whether a name stays in its folder. The name counts: the hub's cache links files to elsewhere."""
    path, windows = PurePosixPath(file), PureWindowsPath(file)
    plain = not (path.is_absolute() or windows.drive or windows.root or "\\" in file or "\0" in file)
    # longer names no file system takes: asking for them raises where "not there" is meant
    short = len(file.encode()) <= 1_024 and all(len(part.encode()) <= 255 for part in path.parts)
    return plain and short and ".." not in path.parts and path.name != ""
