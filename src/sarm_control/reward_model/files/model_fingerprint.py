"""What trunk and autoencoder a SARM's files hold, told without reading gigabytes."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sarm_control.reward_model.files.checkpoint import UNUSED_TENSORS, TensorEntry
from sarm_control.reward_model.files.classifier_config import ClassifierConfig
from sarm_control.reward_model.files.config import SarmConfig

_PIECE = 4096
_PIECES = 16
# the head has a fingerprint of its own, and neither latents nor rewards depend on the decoder
_APART = ("score.weight", "sae.decoder.weight", *UNUSED_TENSORS)
# what a checkpoint calls itself, which no latent depends on
_LABELS = (
    "architectures",
    "sarm_control_format",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
)


def model_fingerprint(index: Mapping[str, TensorEntry], config: SarmConfig) -> str:
    """16 hex digits that two SARMs share when trunk, encoder and biases are stored alike.

    The SHA-256 over the configuration and, for each of these tensors, its name, dtype, shape and bytes:
    all of them up to 64 KiB, of larger ones 16 pieces of 4 KiB that lie evenly between the first and the
    last. Training, merging adapters or storing in another dtype changes it; a change of a few single
    numbers in a large tensor may be missed. Head and decoder are not in it.

    Args:
        index: from `read_index`.
        config: of the same folder.
    """
    wanted = [name for name in index if not name.startswith(_APART)]
    return _fingerprint([config.sarm_param(), _trunk(config.trunk)], index, wanted)


def classifier_fingerprint(
    index: Mapping[str, TensorEntry], config: ClassifierConfig, pooling: str, head: Iterable[str]
) -> str:
    """As `model_fingerprint`, of a reward model with a head of its own: trunk, final norm and pooling rule.

    Args:
        index: from `read_index`.
        config: of the same folder.
        pooling: the rule it is read by; other positions give other states.
        head: the tensors of its head, which has a fingerprint of its own.
    """
    apart = {*head}
    wanted = [name for name in index if name not in apart and not name.startswith("lm_head.")]
    return _fingerprint([pooling, _trunk(config.trunk)], index, wanted)


def _trunk(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key[:1] != "_" and key not in _LABELS}


def _fingerprint(about: Any, index: Mapping[str, TensorEntry], names: Iterable[str]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    wanted = sorted(names)
    # file by file, so that each is opened once
    for file in sorted({index[name].file for name in wanted}):
        _add_file(digest, file, [name for name in wanted if index[name].file == file])
    return digest.hexdigest()[:16]


def _add_file(digest: Any, file: Path, names: Iterable[str]) -> None:
    with file.open("rb") as stream:
        # a safetensors file: the header's size in 8 bytes, the header, then data, where offset 0 is
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        for name in names:
            said = header[name]
            start, end = (8 + size + offset for offset in said["data_offsets"])
            digest.update(json.dumps([name, said["dtype"], said["shape"]]).encode())
            for place in _places(start, end):
                digest.update(_read(stream, place, min(_PIECE, end - place)))


def _places(start: int, end: int) -> list[int]:
    """Where the pieces of a tensor's bytes begin."""
    if end - start <= _PIECE * _PIECES:
        return list(range(start, end, _PIECE))
    return [start + (end - start - _PIECE) * piece // (_PIECES - 1) for piece in range(_PIECES)]


def _read(stream: BinaryIO, place: int, size: int) -> bytes:
    stream.seek(place)
    return stream.read(size)
