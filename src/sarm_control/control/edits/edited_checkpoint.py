"""A checkpoint with head edits in it: the same files with other head weights.

Only scalings of latents can be written, because they are changes of the head. The other edits act on the z
of each answer, and no weight of a SARM expresses that. Of a dictionary attached to a reward model the edited
weights are written into the dictionary's folder: they change how the reward model's state is read, which
no weight of its checkpoint holds.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.control.edits.edit_files import EditFile, check_head, read_edit_file, save_edits
from sarm_control.control.edits.edits import Edit
from sarm_control.errors import ConfigError, ModelError
from sarm_control.files import atomic_folder, manifest, write_json
from sarm_control.reward_model import (
    LinearHead,
    TensorEntry,
    find_folder,
    head_of,
    is_attached,
    is_sarm,
    load_tensors,
    read_head,
    read_index,
    write_edited_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

_HEAD = "score.weight"
_COPIED = (".json", ".jinja", ".txt", ".model", ".md")


class Applied(NamedTuple):
    """What was written: the folder, the latents whose weight changed, and both heads' fingerprints."""

    folder: Path
    latents: tuple[int, ...]
    before: str
    after: str


def apply_to_checkpoint(source: str, file: Path, target: Path, *, overwrite: bool = False) -> Applied:
    """Writes `target`: the SARM, or attached dictionary, `source` with the edits of `file` in its weights.

    Every other tensor is copied bit by bit. The head keeps its dtype where that dtype holds the new weights
    exactly; otherwise it is written in float32. `applied_edits.json` records the edits.

    Args:
        source: a folder, a hub id or "lab".
        file: a file of edits, see `control.edits.edit_files`.
        target: the folder to write.
        overwrite: replace it if it exists.

    Raises:
        ConfigError: the file holds no edit, or one that is not a scaling.
        ModelError: neither of the two, a latent it does not have, or edits made for another head.
        OutputError: `target` exists, or cannot be written.
    """
    edit_file = read_edit_file(file)
    if not edit_file.edits:
        raise ConfigError(f"{file} holds no edit", hint='write [{"latent": 16720, "scale": 0}]')
    # before the model is looked for, or downloaded: an edit that no weight can hold is refused for any model
    factors = _factors(file, edit_file.edits)
    folder = find_folder(source)
    if is_attached(folder):
        return _apply_to_attached(source, folder, edit_file, file, factors, target, overwrite=overwrite)
    index = read_index(folder, source)
    if not is_sarm(folder, source):
        raise ModelError(
            f"{source} is not a SARM, and edits of latents cannot be written into another reward model: they "
            "change how its state is read, which no weight of it holds",
            hint="give the folder of a dictionary attached to it, which holds edited weights of latents",
        )
    if _HEAD not in index:
        raise ModelError(f"{source} has no {_HEAD}: it is not a SARM")
    head = head_of(index, source)
    stored = load_tensors(index, [_HEAD])[_HEAD]
    check_head(file, edit_file.head, head.fingerprint)
    edited = head.scaled(factors)
    with atomic_folder(target, overwrite=overwrite) as temporary:
        _copy_with_head(folder, temporary, index, _as_stored(edited, stored))
        _record(temporary, source, file, edit_file, head, edited)
    return Applied(target, tuple(factors), head.fingerprint, edited.fingerprint)


def _apply_to_attached(
    source: str,
    folder: Path,
    edit_file: EditFile,
    file: Path,
    factors: Mapping[int, float],
    target: Path,
    *,
    overwrite: bool,
) -> Applied:
    head = read_head(source)
    check_head(file, edit_file.head, head.fingerprint)
    edited = head.scaled(factors)
    with atomic_folder(target, overwrite=overwrite) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
        write_edited_weights(temporary, edited.weight, copied_from=folder)
        _record(temporary, source, file, edit_file, head, edited)
    return Applied(target, tuple(factors), head.fingerprint, edited.fingerprint)


def _record(
    folder: Path, source: str, file: Path, edit_file: EditFile, head: LinearHead, edited: LinearHead
) -> None:
    """Which edits were written into the folder, and both heads."""
    name = _name(source)
    save_edits(folder / "applied_edits.json", edit_file.edits, fingerprint=head.fingerprint, model=name)
    config = {"model": name, "head_before": head.fingerprint, "head_after": edited.fingerprint}
    write_json(folder / "manifest.json", manifest("convert", inputs=[file], config=config))


def _factors(file: Path, edits: Sequence[Edit]) -> dict[int, float]:
    try:
        return {edit.latent: edit.head_factor() for edit in edits}
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}; a checkpoint cannot hold it", hint=error.hint) from error


def _as_stored(head: LinearHead, stored: "Tensor") -> "Tensor":
    """[1, L] the head in the dtype of `stored`, or in float32 where that dtype would round it."""
    import torch

    exact = torch.from_numpy(head.weight)[None]
    rounded = exact.to(stored.dtype)
    return rounded if torch.equal(rounded.float(), exact) else exact


def _copy_with_head(source: Path, target: Path, index: Mapping[str, TensorEntry], head: "Tensor") -> None:
    """Copies configuration, tokenizer and weight files, and rewrites the weight file of the head."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    for file in sorted({entry.file for entry in index.values()}):
        copied = target / file.relative_to(source)
        # an index may name shards in folders below
        copied.parent.mkdir(parents=True, exist_ok=True)
        if file != index[_HEAD].file:
            shutil.copyfile(file, copied)
            continue
        with safe_open(file, framework="pt") as stream:
            metadata: Mapping[str, Any] = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
        # with the metadata of before: versions of transformers 4 refuse a file without its `format`
        save_file({**tensors, _HEAD: head}, copied, metadata=dict(metadata))
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in _COPIED:
            shutil.copyfile(file, target / file.name)


def _name(source: str) -> str:
    """The hub id, or the folder's name without the path of one machine."""
    return Path(source).resolve().name if Path(source).is_dir() else source
