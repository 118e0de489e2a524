"""Finding a checkpoint's files and checking every tensor before anything is loaded."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sarm_control.embedded import model_folder
from sarm_control.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

# Written by older checkpoints and never read: the trunk has no final norm and no output head.
UNUSED_TENSORS = ("model.norm.", "lm_head.", "model.rotary_emb.")
"""How names of tensors begin that a checkpoint may hold and no SARM reads."""
_DOWNLOADS = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model"]


class TensorEntry(NamedTuple):
    """Where one tensor lies and its shape."""

    file: Path
    shape: tuple[int, ...]


def find_folder(
    id_or_folder: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """The local folder of a SARM; a hub id is downloaded (safetensors and JSON only).

    The text `lab` is the embedded SARM; a `Path` is a folder, whatever its name.

    Raises:
        ModelError: neither a folder nor a hub id, or the download failed.
    """
    name = str(id_or_folder)
    embedded = model_folder(name, "sarm") if isinstance(id_or_folder, str) else None
    if embedded is not None:
        return embedded
    folder = Path(id_or_folder)
    if folder.is_dir():
        return folder
    if isinstance(id_or_folder, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"model folder {name} does not exist",
            hint="give a folder with config.json and *.safetensors, a hub id such as "
            "Schrieffer/Llama-SARM-4B, or lab, the embedded SARM",
        )
    return _download(name, revision, local_files_only)


def read_index(folder: Path, name: str) -> dict[str, TensorEntry]:
    """Every tensor of the folder's safetensors files, sharded or not, from the headers alone.

    Raises:
        ModelError: no safetensors (a pickle is never read), or a shard is missing or torn.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
        if pickles:
            raise ModelError(
                f"{name} holds {pickles[0]}, a pickle, which is never loaded because it can run code",
                hint=f"convert it once with: sarm convert {name} -o {folder.name}-safetensors",
            )
        raise ModelError(f"{name} holds no *.safetensors file")
    _check_shards(folder, name)
    index: dict[str, TensorEntry] = {}
    for file in files:
        index.update(_read_header(file))
    return index


def check_tensors(
    index: Mapping[str, TensorEntry], expected: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Compares names and shapes with what the configuration asks for.

    Raises:
        ModelError: naming what is missing, extra or of another shape.
    """
    problems = [
        *_listed("missing", sorted(set(expected) - set(index))),
        *_listed(
            "extra", sorted(key for key in set(index) - set(expected) if not key.startswith(UNUSED_TENSORS))
        ),
        *(
            f"{key} is {list(index[key].shape)}, expected {list(shape)}"
            for key, shape in sorted(expected.items())
            if key in index and index[key].shape != shape
        ),
    ]
    if problems:
        raise ModelError(f"{name} does not fit its config.json: {'; '.join(problems[:6])}")


def load_tensors(index: Mapping[str, TensorEntry], names: Iterable[str]) -> "dict[str, Tensor]":
    """Reads the named tensors, and only those, in the dtype they are stored in."""
    from safetensors import safe_open

    loaded = {}
    for name in names:
        with safe_open(index[name].file, framework="pt") as stream:
            loaded[name] = stream.get_tensor(name)
    return loaded


def _listed(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return [f"{kind} {', '.join(names[:4])}{more}"]


def _read_header(file: Path) -> dict[str, TensorEntry]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as stream:
            names = list(stream.keys())
            return {name: TensorEntry(file, tuple(stream.get_slice(name).get_shape())) for name in names}
    except SafetensorError as error:
        raise ModelError(f"{file.name} is not a whole safetensors file: {error}") from error


def _check_shards(folder: Path, name: str) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    missing = sorted(shard for shard in wanted if not (folder / shard).is_file())
    if missing:
        raise ModelError(f"{name} lacks the shard {missing[0]} named in {index.name}")


def _download(hub_id: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                hub_id, revision=revision, local_files_only=local_files_only, allow_patterns=_DOWNLOADS
            )
        )
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{hub_id} is neither a local folder nor in the local cache, and the model hub cannot be reached",
            hint="check the spelling of the folder, or connect once to download it",
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"{hub_id} is neither a local folder nor a model on the hub: {str(error).strip().splitlines()[0]}"
        ) from error
