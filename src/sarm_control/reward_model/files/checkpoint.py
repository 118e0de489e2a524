"""Finding a checkpoint's files and checking every tensor before anything is loaded."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sarm_control.embedded import model_folder
from sarm_control.errors import ModelError, SarmError
from sarm_control.reward_model.files.checkpoint_files import (
    INDEX,
    check_regular_files,
    in_a_line,
    say_strays,
    weight_files,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Written by older checkpoints and never read: a SARM's trunk has no final norm and no output head.
UNUSED_TENSORS = ("model.norm.", "lm_head.", "model.rotary_emb.")
"""How names of tensors begin that a checkpoint may hold and no SARM reads."""
UNUSED_BUFFERS = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
"""How names of tensors end that older checkpoints hold and transformers computes itself."""
FLOAT_TYPES = ("F32", "BF16", "F16", "F64")
"""The types of weights that are read, as safetensors files name them."""
# pickles and a model's code are not even fetched
_DOWNLOADS = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model"]
_CONFIGURATION = [pattern for pattern in _DOWNLOADS if pattern != "*.safetensors"]
# The same weights a second time, as Mistral's own code reads them.
_NOT_DOWNLOADED = ["consolidated*.safetensors"]


class TensorEntry(NamedTuple):
    """Where one tensor lies, its shape, and its type as safetensors files name it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str = "F32"


def find_folder(
    id_or_folder: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """The local folder of a SARM; a hub id is downloaded (safetensors and JSON only).

    The text `lab` is the embedded SARM; a `Path` is a folder, whatever its name.

    Raises:
        ModelError: neither a folder nor a hub id, the download failed, or what should be a file is a
            pipe or the like.
    """
    name = str(id_or_folder)
    embedded = model_folder(name, "sarm") if isinstance(id_or_folder, str) else None
    if embedded is not None:
        return embedded
    return local_or_downloaded(id_or_folder, revision=revision, local_files_only=local_files_only)


def configuration_folder(id_or_folder: str | Path) -> Path:
    """As `find_folder`, and of a hub id everything but the weights is downloaded.

    Raises:
        ModelError: see `find_folder`.
    """
    name = str(id_or_folder)
    embedded = model_folder(name, "sarm") if isinstance(id_or_folder, str) else None
    return embedded or local_or_downloaded(id_or_folder, weights=False)


def stored_type(index: Mapping[str, TensorEntry]) -> "torch.dtype":
    """The type of a checkpoint whose configuration names none: that of its first tensor, else float32."""
    import torch

    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
    first = next(iter(index.values()), None)
    return torch.float32 if first is None else types.get(first.dtype, torch.float32)


def local_or_downloaded(
    id_or_folder: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    weights: bool = True,
) -> Path:
    """As `find_folder`, and no name stands for what is embedded; `weights` says whether those are wanted.

    Raises:
        ModelError: see `find_folder`.
    """
    name, folder = str(id_or_folder), Path(id_or_folder)
    if folder.is_dir():
        check_regular_files(folder)
        return folder
    if isinstance(id_or_folder, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"model folder {name} does not exist",
            hint="give a folder with config.json and *.safetensors, a hub id such as "
            "Schrieffer/Llama-SARM-4B, or lab, the embedded SARM",
        )
    return _download(name, revision, local_files_only, _DOWNLOADS if weights else _CONFIGURATION)


def read_index(folder: Path, name: str) -> dict[str, TensorEntry]:
    """Every tensor of the model, sharded or not, from the headers alone; see `checkpoint_files`.

    Raises:
        ModelError: no safetensors (a pickle is never read), a shard or a tensor that the index names is
            missing, or a file is torn.
    """
    found = weight_files(folder, name)
    if not found.files:
        raise _no_weights(folder, name)
    # headers alone, a few kilobytes a shard: what does not fit is refused before gigabytes are read
    headers = {file: _read_header(file) for file in found.files}
    say_strays(name, found.strays)
    if found.listed is None:
        return headers[found.files[0]]
    for tensor, file in found.listed.items():
        if tensor not in headers[file]:
            raise ModelError(
                f"{name} has no tensor {in_a_line(tensor)} in {in_a_line(str(file.relative_to(folder)))}, "
                f"where {INDEX} says it is",
                hint="download the checkpoint again: its files are of different saves",
            )
    return {tensor: headers[file][tensor] for tensor, file in found.listed.items()}


def check_tensors(
    index: Mapping[str, TensorEntry], expected: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Compares names, shapes and types with what the configuration asks for.

    Raises:
        ModelError: naming what is missing, extra, of another shape, or no floating-point numbers.
    """
    problems = [
        *_listed("missing", sorted(set(expected) - set(index))),
        *_listed(
            "extra",
            sorted(
                key
                for key in set(index) - set(expected)
                if not key.startswith(UNUSED_TENSORS) and not key.endswith(UNUSED_BUFFERS)
            ),
        ),
        *(
            f"{key} is {list(index[key].shape)}, expected {list(shape)}"
            for key, shape in sorted(expected.items())
            if key in index and index[key].shape != shape
        ),
    ]
    if problems:
        raise ModelError(f"{name} does not fit its config.json: {'; '.join(problems[:6])}")
    check_types({key: index[key] for key in expected}, name)


def check_types(entries: Mapping[str, TensorEntry], name: str) -> None:
    """Refuses tensors that are not plain floating-point numbers, such as quantised ones.

    Raises:
        ModelError: naming the first of them, its file and its type.
    """
    odd = sorted(key for key, entry in entries.items() if entry.dtype not in FLOAT_TYPES)
    if odd:
        first = entries[odd[0]]
        more = f" (and {len(odd) - 1} more tensors)" if len(odd) > 1 else ""
        raise ModelError(
            f"{name}: {odd[0]} in {first.file.name} is stored as {first.dtype}{more}, a model's weights "
            f"are {', '.join(FLOAT_TYPES)}",
            hint="give the checkpoint that was not quantised",
        )


def load_tensors(index: Mapping[str, TensorEntry], names: Iterable[str]) -> "dict[str, Tensor]":
    """Reads the named tensors, and only those, in the dtype they are stored in.

    They may be views of the files: what is kept has to be copied, see `with_own_memory`.
    """
    from safetensors import safe_open

    wanted = list(names)
    loaded: dict[str, Tensor] = {}
    for file in dict.fromkeys(index[name].file for name in wanted):
        with safe_open(file, framework="pt") as stream:
            loaded |= {name: stream.get_tensor(name) for name in wanted if index[name].file == file}
    return {name: loaded[name] for name in wanted}


@contextlib.contextmanager
def from_checkpoint(name: str) -> Iterator[None]:
    """Says of whatever goes wrong inside that the checkpoint is why: its files decide what other code does.

    Raises:
        ModelError: with what the other code said, in one line.
    """
    try:
        yield
    except SarmError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        hint = "install what it names, or give a checkpoint that needs none of it"
        raise ModelError(
            f"no model can be loaded from {name}: {said}",
            hint=hint if isinstance(error, ImportError) else None,
        ) from error


def _listed(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return [f"{kind} {', '.join(map(in_a_line, names[:4]))}{more}"]


def _read_header(file: Path) -> dict[str, TensorEntry]:
    from safetensors import SafetensorError, safe_open

    found = {}
    try:
        with safe_open(file, framework="np") as stream:
            for name in stream.keys():  # noqa: SIM118 - no mapping
                said = stream.get_slice(name)
                found[name] = TensorEntry(file, tuple(said.get_shape()), str(said.get_dtype()))
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{file.name} is not a whole safetensors file: {error}") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    return found


def _no_weights(folder: Path, name: str) -> ModelError:
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    if pickles:
        return ModelError(
            f"{name} holds {pickles[0]}, a pickle, which is never loaded because it can run code",
            hint=f"convert it once with: sarm convert {name} -o {folder.name}-safetensors",
        )
    return ModelError(f"{name} holds no *.safetensors file")


def _download(
    hub_id: str, revision: str | None, local_files_only: bool, patterns: list[str] = _DOWNLOADS
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=patterns,
                ignore_patterns=_NOT_DOWNLOADED,
            )
        )
    # before OSError, which it is as well: a network that is down has another remedy than a name that is wrong
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{hub_id} is neither a local folder nor in the local cache, and the model hub cannot be reached",
            hint="check the spelling of the folder, or connect once to download it",
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"{hub_id} is neither a local folder nor a model on the hub: {str(error).strip().splitlines()[0]}"
        ) from error
