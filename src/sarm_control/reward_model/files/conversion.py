"""Pickled weights (`pytorch_model*.bin`) to safetensors: the one place that reads such a file.

Loading a pickle can run code. `torch.load(weights_only=True)` refuses everything but tensors and plain
containers, and this runs only when a person asks for it by `sarm convert`.
"""

import pickle
import shutil
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.errors import ModelError
from sarm_control.files import atomic_folder, manifest, write_json
from sarm_control.reward_model.files.checkpoint_files import check_regular, read_weight_map, weight_files

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHT_PATTERNS = ("pytorch_model*.bin", "model*.bin", "model*.pt", "model*.pth")
_INDEX = "pytorch_model.bin.index.json"
# What damaged and hostile pickles make torch raise.
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Configuration and tokenizer; code and other pickles stay behind.
_COPIED = (".json", ".jinja", ".txt", ".model", ".md")


class Converted(NamedTuple):
    """What was written: the folder, its weight files in order, tensors and their bytes in all."""

    folder: Path
    files: tuple[str, ...]
    tensors: int
    size: int


def convert(source: Path, target: Path, *, overwrite: bool = False) -> Converted:
    """Writes `target`: the weights of `source` as safetensors, its configuration and tokenizer copied.

    Every tensor keeps its name, dtype and bits. One weight file becomes `model.safetensors`; shards
    become shards with an index. `source` is left as it is.

    Raises:
        ModelError: no folder, no pickled weights, safetensors already, or a file that holds more
            than tensors.
        OutputError: `target` exists, or cannot be written.
    """
    weights = find_pickled_weights(source)
    with atomic_folder(target, overwrite=overwrite) as temporary:
        names: dict[str, str] = {}
        size = 0
        for number, file in enumerate(weights, start=1):
            tensors = _load(file)
            name = _file_name(number, len(weights))
            _refuse_repeated(tensors, names, file)
            _save(tensors, temporary / name)
            names |= dict.fromkeys(tensors, name)
            size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        _copy_others(source, temporary)
        if len(weights) > 1:
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(names.items()))}
            write_json(temporary / "model.safetensors.index.json", index)
        write_json(temporary / "manifest.json", manifest("convert", inputs=weights, config={}))
    return Converted(target, tuple(dict.fromkeys(names.values())), len(names), size)


def find_pickled_weights(source: Path) -> list[Path]:
    """The weight files of a checkpoint folder, shards in order; optimiser states are not among them.

    Raises:
        ModelError: no folder, no such file, a missing shard, or safetensors already.
    """
    if not source.is_dir():
        raise ModelError(
            f"model folder {source} does not exist", hint="give the folder that holds config.json"
        )
    if weight_files(source, str(source)).files:
        raise ModelError(f"{source} holds safetensors already", hint=f"use it as it is: --model {source}")
    index = source / _INDEX
    if index.exists() or index.is_symlink():
        return _indexed(source, index)
    for pattern in _WEIGHT_PATTERNS:
        found = sorted(source.glob(pattern))
        if found:
            for file in found:
                check_regular(file)
            return found
    raise ModelError(f"{source} holds no {_WEIGHT_PATTERNS[0]}", hint="nothing there can be converted")


def _indexed(source: Path, index: Path) -> list[Path]:
    """Exactly the files that the index lists: a shard of an older save beside them is not the model."""
    found = [source / file for file in sorted(set(read_weight_map(index, str(source)).values()))]
    for file in found:
        if not file.exists():
            raise ModelError(f"{source} lacks the shard {file.relative_to(source)} named in {index.name}")
        check_regular(file)
    return found


def _load(file: Path) -> "dict[str, Tensor]":
    import torch

    try:
        # Legacy files are no zip archives and cannot be mapped; others need no memory of their own.
        content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except _UNREADABLE as error:
        raise ModelError(
            f"{file} is damaged or holds more than tensors, which could run code; nothing of it was used",
            hint="download it again, or ask its author for safetensors",
        ) from error
    return _checked(content, file)


def _checked(content: Any, file: Path) -> "dict[str, Tensor]":
    import torch

    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{file} holds no tensors by name but {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"{file}: {name} is not a tensor but {type(value).__name__}",
                hint="save the model's state_dict alone and convert that",
            )
    return {str(name): value for name, value in content.items()}


def _refuse_repeated(tensors: "Mapping[str, Tensor]", names: Mapping[str, str], file: Path) -> None:
    repeated = sorted(set(tensors) & set(names))
    if repeated:
        raise ModelError(f"{file}: {repeated[0]} is in another shard too")


def _save(tensors: "Mapping[str, Tensor]", path: Path) -> None:
    from safetensors.torch import save_file

    # Tied or sliced tensors share storage, which safetensors refuses: each gets its own.
    own = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    # versions of transformers 4 refuse a file without this mark
    save_file(own, path, metadata={"format": "pt"})


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _copy_others(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir()):
        # an index of pickles would name files that are not there
        if file.is_file() and file.suffix in _COPIED and not file.name.endswith(".bin.index.json"):
            shutil.copyfile(file, target / file.name)
