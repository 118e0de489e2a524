"""Checkpoints, which are written whole or not at all: safetensors, JSON, and a manifest of hashes.

A checkpoint is `checkpoints/step-000100/{NAME.safetensors..., state.json, manifest.json}`. It is
written to a temporary folder beside its place, synced and renamed, so a kill leaves either the old state or
the new one. `checkpoints/latest` then names it, for scripts that need a path; resuming ignores that name and
takes the newest checkpoint that verifies. Nothing is ever unpickled.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.bounded_json import MISSHAPEN, read_json_object
from sarm_control.errors import DataError, OutputError, TrainingError
from sarm_control.files import (
    atomic_folder,
    cannot_write,
    clear_leftovers,
    sha256_file,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    import torch

FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{6,})")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_MANIFEST, _STATE, _POINTER = "manifest.json", "state.json", "latest"


class Checkpoint(NamedTuple):
    """A checkpoint's content: the step it was saved after, tensors by file and name, and JSON state."""

    step: int
    tensors: dict[str, dict[str, "torch.Tensor"]]
    state: dict[str, Any]


class Damaged(NamedTuple):
    """A checkpoint that does not verify, and the reason in words."""

    path: Path
    reason: str


class Found(NamedTuple):
    """The newest checkpoint that verifies, or None, and the newer ones that do not."""

    path: Path | None
    damaged: tuple[Damaged, ...]

    @property
    def step(self) -> int:
        """The step of `path`; 0 when there is no checkpoint."""
        return 0 if self.path is None else step_of(self.path)


def save_checkpoint(
    run: Path, step: int, tensors: Mapping[str, Mapping[str, Any]], state: Mapping[str, Any]
) -> Path:
    """Writes `run/checkpoints/step-NNNNNN` and returns it.

    Args:
        run: the run folder.
        step: steps done so far, >= 0.
        tensors: file name without suffix -> tensor name -> torch tensor or numpy array.
        state: anything that JSON holds without loss (floats keep every bit, NaN is refused).

    Raises:
        OutputError: the folder cannot be written, or the disk is full; the older checkpoints stay.
    """
    place = run / FOLDER / f"step-{step:06d}"
    with writing(place), atomic_folder(place, overwrite=True) as temporary:
        for name, named in tensors.items():
            _save_tensors(temporary / f"{name}.safetensors", named)
        write_json(temporary / _STATE, {"step": step, "state": dict(state)})
        files = {path.name: _entry(path) for path in sorted(temporary.iterdir())}
        # last, since it holds the hashes of the other files
        write_json(temporary / _MANIFEST, {"step": step, "files": files})
    return place


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write inside the block into an error that names the path and the cause.

    Raises:
        OutputError: the disk or a quota is full, a file is too large, or the folder is gone.
    """
    from safetensors import SafetensorError

    try:
        yield
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        named = _OS_ERROR.search(str(error))
        # safetensors reports an operating system's error only in its text
        number = getattr(error, "errno", None) or (int(named[1]) if named else None)
        if number is None:
            raise OutputError(f"cannot write {path}: {error}", hint="make room") from error
        raise cannot_write(path, number) from error


def point(run: Path, checkpoint: Path | None) -> None:
    """Writes a checkpoint's name into `checkpoints/latest`, one line of text; None removes that file."""
    pointer = run / FOLDER / _POINTER
    if checkpoint is None:
        pointer.unlink(missing_ok=True)
        return
    with writing(pointer):
        write_text(pointer, f"{checkpoint.name}\n")


def newest_checkpoint(run: Path) -> Found:
    """The newest checkpoint all of whose files match its manifest."""
    damaged: list[Damaged] = []
    for path in reversed(list_checkpoints(run)):
        reason = damage(path)
        if reason is None:
            return Found(path, tuple(damaged))
        damaged.append(Damaged(path, reason))
    return Found(None, tuple(damaged))


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint after verifying it.

    Raises:
        TrainingError: it is damaged; the message names the file.
    """
    reason = damage(path)
    if reason is not None:
        raise TrainingError(f"{path} is damaged: {reason}", hint="resume from an older checkpoint")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    saved = read_json_object(path / _STATE, error=TrainingError)
    step, state = saved.get("step"), saved.get("state")
    if not isinstance(step, int) or not isinstance(state, dict):
        raise TrainingError(f"{path / _STATE} is no state of a run", hint="resume from an older checkpoint")
    try:
        tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} is damaged: {error}", hint="resume from an older checkpoint") from error
    return Checkpoint(step, tensors, state)


def list_checkpoints(run: Path) -> list[Path]:
    """All checkpoint folders, verified or not, from the oldest step to the newest."""
    folder = run / FOLDER
    names = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    # by number: as text, step-1000000 would come before step-999999
    return sorted(names, key=step_of)


def step_of(path: Path) -> int:
    """100 for `.../step-000100`."""
    return int(path.name.removeprefix("step-"))


def damage(path: Path) -> str | None:
    """Why a checkpoint cannot be used; None when every file is as it was written."""
    try:
        manifest = read_json_object(path / _MANIFEST)
        files = {str(name): entry for name, entry in manifest["files"].items()}
        step, expected = manifest["step"], {name: entry["sha256"] for name, entry in files.items()}
    except (DataError, *MISSHAPEN) as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        return f"{_MANIFEST} is {'missing' if missing else 'not readable'}"
    # a manifest is data: it must not make this read files elsewhere
    if not all(_is_plain_name(name) for name in expected):
        return f"{_MANIFEST} names files elsewhere"
    if step != step_of(path) or _STATE not in expected:
        return f"{_MANIFEST} belongs to another checkpoint"
    for name, digest in expected.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        # the size first: it is cheap and finds files that were cut short
        if file.stat().st_size != files[name].get("bytes"):
            return f"{name} has {file.stat().st_size} bytes, not {files[name].get('bytes')}"
        if sha256_file(file) != digest:
            return f"{name} was altered (its SHA-256 is not the one written)"
    return None


def _is_plain_name(name: str) -> bool:
    """Whether a text can be the name of a file in the checkpoint's own folder; systems allow 255 bytes."""
    return Path(name).name == name and "\0" not in name and len(os.fsencode(name)) <= 255


def prune(run: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints, and what an interrupted write left behind."""
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    for path in list_checkpoints(run)[:-keep]:
        shutil.rmtree(path)
    sweep(run)


def sweep(run: Path) -> None:
    """Removes what interrupted writes left in a run folder; the names of such files begin with a dot.

    Files that another process, such as a comparison, is writing there now are left alone.
    """
    for folder in (run, run / FOLDER):
        clear_leftovers(folder)


def set_aside(damaged: tuple[Damaged, ...]) -> list[Path]:
    """Renames damaged checkpoints to `damaged-step-NNNNNN`, so that pruning counts only good ones."""
    moved = []
    for item in damaged:
        target = item.path.with_name(f"damaged-{item.path.name}")
        if target.exists():
            shutil.rmtree(target)
        moved.append(item.path.rename(target))
    return moved


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def _save_tensors(path: Path, named: Mapping[str, Any]) -> None:
    import torch
    from safetensors.torch import save_file

    plain: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in named.items():
        tensor = torch.as_tensor(value).detach().to("cpu").contiguous()
        # safetensors refuses tensors that share memory, such as tied embeddings
        shared = tensor.untyped_storage().data_ptr() in seen
        seen.add(tensor.untyped_storage().data_ptr())
        plain[name] = tensor.clone() if shared else tensor
    save_file(plain, path)
