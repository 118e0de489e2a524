"""A cache of states on disk, keyed by what they were computed from.

There is one safetensors file for each key. The key covers the trunk's weights and configuration, the token
ids and the options, so a stale file is never read: its key is another.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sarm_control.files import atomic_file, write_json
from sarm_control.reward_model import Trunk

FORMAT = 2

Key: TypeAlias = Mapping[str, str | int | bool]

# Names in a checkpoint's configuration that no state depends on.
_LABELS = frozenset({"architectures", "sarm_param", "sarm_control_format", "transformers_version", "dtype"})


def states_key(trunk: Trunk, rows: Sequence[Sequence[int]], sentence_states: bool, batch_tokens: int) -> Key:
    """All that the states depend on; `batch_tokens` is included since padding changes the last bits."""
    ids = hashlib.sha256()
    for row in rows:
        ids.update(json.dumps(list(row)).encode())
    return {
        "format": FORMAT,
        "trunk": trunk_fingerprint(trunk),
        "dtype": str(next(trunk.parameters()).dtype),
        "token_ids": ids.hexdigest(),
        "answers": len(rows),
        "sentence_states": sentence_states,
        "batch_tokens": batch_tokens,
    }


def trunk_fingerprint(trunk: Trunk) -> str:
    """SHA-256 of the trunk's configuration and weights, as hex; equal for a base and a SARM cut from it."""
    settings = trunk.model.config.to_dict()
    settings = {k: v for k, v in settings.items() if not k.startswith("_") and k not in _LABELS}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, parameter in sorted(trunk.state_dict().items()):
        digest.update(name.encode())
        # as bytes, since numpy has no bfloat16
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_states(folder: Path, key: Key) -> dict[str, torch.Tensor] | None:
    """The states saved under `key`; None when there are none or the file is damaged."""
    path = _path(folder, key)
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        return None


def save_states(folder: Path, key: Key, states: Mapping[str, torch.Tensor]) -> Path:
    """Writes the states whole or not at all, with the key beside them as JSON.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = _path(folder, key)
    with atomic_file(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in states.items()}, temporary)
    write_json(path.with_suffix(".json"), dict(key))
    return path


def _path(folder: Path, key: Key) -> Path:
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:24]
    return folder / f"states-{digest}.safetensors"
