"""Which files of a run or of a reward model go to the hub.

Of a run: the trained policy, its adapter, and what was measured. Samples, checkpoints, clocks and settings
stay: they hold prompts and paths of the machine. Of a reward model: what `from_pretrained` reads.
"""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, NamedTuple

from sarm_control.bounded_json import read_json_object
from sarm_control.embedded import LAB, model_folder
from sarm_control.errors import ModelError, OutputError

_OF_MODEL = (".json", ".safetensors", ".jinja", ".txt", ".model")
_PRIVATE = ("manifest.json", "build.json", "trackers.json")
_MEASURED = ("metrics.jsonl", "evaluation.jsonl", "warnings.jsonl", "ledger.parquet", "reference.json")
_POLICY, _ADAPTER, _RUN = "policy", "adapter", "run"


class Contents(NamedTuple):
    """What is published.

    Args:
        kind: a run, or a reward model.
        folder: where it lies.
        files: path in the repository -> file, without the card.
        left_out: what is not published, and why, in words.
    """

    kind: Literal["run", "model"]
    folder: Path
    files: dict[str, Path]
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def contents_of(source: str | Path) -> Contents:
    """The files of a run folder or of the folder of a reward model; `lab` is the embedded one.

    Raises:
        ModelError: the folder does not exist, or is neither.
        OutputError: a run that has no trained policy yet.
    """
    folder = (model_folder(LAB, "sarm") if str(source) == LAB else None) or Path(source)
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: no such folder", hint="name a run folder, or the folder of a reward model"
        )
    if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
        return _run(folder)
    if not (folder / "config.json").is_file() and not (folder / "attached.json").is_file():
        raise ModelError(
            f"{folder} is neither a run of sarm train nor the folder of a reward model",
            hint="it has no config.yaml with checkpoints, and no config.json",
        )
    # by an allowed list of endings and not by a forbidden one: a new kind of file stays here
    # until somebody has thought about it
    files = {path.name: path for path in _in(folder) if path.name not in _PRIVATE}
    return Contents("model", folder, files)


def _run(folder: Path) -> Contents:
    policy = folder / _POLICY
    if not policy.is_dir():
        raise OutputError(
            f"{folder} has no trained policy yet", hint=f"finish it: sarm train -o {folder} --resume"
        )
    files = {path.name: path for path in _in(policy)}
    left_out: tuple[str, ...] = ()
    adapter = folder / _ADAPTER
    if adapter.is_dir():
        base = read_json_object(adapter / "adapter_config.json").get("base_model_name_or_path")
        # peft loads the base by this path: elsewhere the adapter could not be opened, and here it
        # names a user
        if isinstance(base, str) and _is_absolute(base):
            left_out = (f"{_ADAPTER}/: its base is a path of this machine ({base})",)
        else:
            files |= {f"{_ADAPTER}/{path.name}": path for path in _in(adapter)}
    measured = [folder / name for name in _MEASURED]
    files |= {f"{_RUN}/{path.name}": path for path in measured if path.is_file()}
    return Contents("run", folder, files, left_out)


def _in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _OF_MODEL)


def _is_absolute(text: str) -> bool:
    return os.path.isabs(text) or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
