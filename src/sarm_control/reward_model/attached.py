"""A dictionary of a reward model's own state: the autoencoder, the weights of its latents, and its folder.

Shapes: `B` answers, `D` hidden size, `L` latents.

    x = m + s (b + sum_i z_i d_i) + e          r = w . x + c
    w_i = s (w . d_i)      constant = w . (m + s b) + c      residual = w . e

`m` [D] is a fixed mean and `s` one fixed scale of the states, so that weights are constants.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sarm_control.bounded_json import read_json_object
from sarm_control.embedded import name_of_model
from sarm_control.errors import ModelError, SarmError
from sarm_control.files import atomic_folder
from sarm_control.reward_model.autoencoder import DECODER, Autoencoder
from sarm_control.reward_model.files.checkpoint import TensorEntry
from sarm_control.reward_model.files.classifier_config import ATTACHED
from sarm_control.reward_model.files.stored_decoder import StoredDecoder
from sarm_control.reward_model.sparse import FloatArray
from sarm_control.reward_model.state_head import StateHead

FORMAT = "sarm-attached-1"
WEIGHTS = "dictionary.safetensors"
COPIED = "reward_model"
"""The folder inside an attached dictionary's where the reward model itself lies, if it was copied."""
NARROWED_FROM = 1 << 22
"""Weights of an encoder (16 MiB in float32) from which half precision saves memory worth saving."""
NARROW = (torch.float16, torch.bfloat16)
EDITED = "latent_weights"
"""The tensor [L] of edited weights of latents; absent where they are the reward model's own."""


class LatentWeights(NamedTuple):
    """The reward per unit of each latent, `weight` [L] float32, and `constant`, in reward units."""

    weight: FloatArray
    constant: float


class AttachedAutoencoder(Autoencoder):
    """Encoder and decoder of states less their mean over one scale.

    Args:
        mean: [D] float32, `m`.
        scale: `s`, above 0.
        latents: L.
        k: latents kept.
        use_topk: keep the k largest, or all.

    Raises:
        ModelError: a scale that is not above 0 and finite: the states do not vary.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: float, latents: int, k: int, *, use_topk: bool = True) -> None:
        if not 0 < scale < float("inf"):
            raise ModelError(f"the states have the scale {scale}: they do not vary, so nothing can be learnt")
        super().__init__(len(mean), latents, k, use_topk=use_topk)
        # buffers: they are saved and moved with the weights, and never trained
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def normalised(self, states: Tensor) -> Tensor:
        """[..., D] states to `(x - m) / s`."""
        return (states - self.mean) / self.scale

    def as_states(self, normalised: Tensor) -> Tensor:
        """[..., D] `m + s x`, the way back."""
        return self.mean + self.scale * normalised

    def reconstruct(self, kept: Any) -> Tensor:
        """[B, D] `m + s (b + sum_i z_i d_i)` of the latents that `encode` gave."""
        return self.mean + self.scale * self.decode(kept)

    def latent_weights(self, head: StateHead) -> LatentWeights:
        """The weights that a reward model's own head gives the latents, and what it gives every answer.

        Raises:
            ModelError: the head is of another width.
        """
        if len(head.weight) != len(self.mean):
            raise ModelError(
                f"the dictionary is of states of {len(self.mean)} numbers, the reward model's have "
                f"{len(head.weight)}",
                hint="attach a dictionary that was made for this reward model",
            )
        # in float64 and rounded once: a weight is a sum of D products of both signs
        weight = head.weight.astype(np.float64)
        scale = float(self.scale)
        offset = self.mean.cpu().double().numpy() + scale * self.pre_bias.detach().cpu().double().numpy()
        weights = np.empty(self.encoder.out_features, dtype=np.float32)
        # By blocks, so that no second decoder in float64 lies beside the first, or beside its file.
        for columns in self.decoder_columns():
            block = columns.weight.cpu().double().contiguous().numpy()
            total = np.zeros(block.shape[1])
            # Row by row, not by a matrix product: its order of sums differs from processor to processor, and
            # the head's fingerprint, which controls are bound to, is of these numbers.
            for own, row in zip(weight, block, strict=True):
                total += own * row
            weights[columns.places] = scale * total
        # fsum is exact in any order: the constant is part of the fingerprint too
        return LatentWeights(weights, math.fsum(weight * offset) + head.bias)

    def narrow_encoder(self, *, rounding: bool) -> None:
        """Holds a large encoder in half precision: beside a small classifier it is what costs memory.

        Sums stay exact in any case, as what a dictionary misses is the residual. float16 has three bits more
        of each number than bfloat16, and is taken where the numbers fit.

        Args:
            rounding: whether its numbers may be rounded, before anything is measured; otherwise it is
                narrowed only where none of them changes.
        """
        weight = self.encoder.weight.detach()
        if weight.dtype != torch.float32 or weight.numel() < NARROWED_FROM:
            return
        for kind in NARROW:
            narrow = weight.to(kind)
            if bool(torch.isfinite(narrow).all()) if rounding else torch.equal(narrow.float(), weight):
                self.hold_encoder(kind)
                return

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of what decides its latents."""
        # the decoder is left out: it decides weights, which are in the head's fingerprint, and no latent
        digest = hashlib.sha256(json.dumps([self.k, self.use_topk]).encode())
        for _, value in sorted(self.encoding_state().items()):
            # NumPy has no bfloat16, whose bits are as good
            bits = value.detach().cpu().contiguous()
            bits = bits.view(torch.int16) if bits.dtype == torch.bfloat16 else bits
            digest.update(np.ascontiguousarray(bits.numpy()).tobytes())
        return digest.hexdigest()[:16]


def attached_fingerprint(model: str | None, autoencoder: AttachedAutoencoder) -> str:
    """Identifies a reward model's trunk and its dictionary together."""
    return hashlib.sha256(f"{model or ''} {autoencoder.fingerprint}".encode()).hexdigest()[:16]


class AttachedFolder(NamedTuple):
    """What an attached dictionary's folder holds.

    Args:
        autoencoder: the dictionary.
        source: the reward model's `model`, `revision`, `pooling` and `output`, see
            `RewardModel.from_pretrained`.
        head: the fingerprint of its head.
        model: that of its trunk; None where it had none.
        edited: [L] float32 weights of the latents where edits were written into the folder.
    """

    autoencoder: AttachedAutoencoder
    source: Mapping[str, Any]
    head: str
    model: str | None
    edited: FloatArray | None = None

    def check(self, head: str, model: str | None, name: str) -> None:
        """Refuses a reward model that is not the one the dictionary was attached to.

        Raises:
            ModelError: it changed since.
        """
        for what, has, was in (("head", head, self.head), ("trunk", model, self.model)):
            if has != was:
                raise ModelError(
                    f"{name} was attached to {self.source['model']} with the {what} {was}, which has the "
                    f"{what} {has} now: the reward model changed since",
                    hint="attach a dictionary to the reward model as it is now",
                )


def read_attached(folder: Path, name: str) -> AttachedFolder:
    """Reads the dictionary and what it points to; not the reward model. The decoder stays in its file.

    Raises:
        ModelError: a file is damaged, or of another form.
    """
    from safetensors import SafetensorError

    try:
        said = read_json_object(folder / ATTACHED, finite=True)
        if said.get("format") != FORMAT:
            raise ModelError(f"{name}: {ATTACHED} is of the format {said.get('format')!r}, not {FORMAT}")
        source = {key: said["source"].get(key) for key in ("model", "revision", "pooling", "output")}
        tensors, decoder = _read_tensors(folder / WEIGHTS, name)
        edited = tensors.pop(EDITED, None)
        latents, size = tensors["encoder.weight"].shape
        scale = float(tensors["scale"])
        made = _empty(said, size, scale, latents)
        # before the tensors are loaded: these lack the decoder, and a strict load would miss it
        made.leave_decoder(decoder)
        if (kind := tensors["encoder.weight"].dtype) in NARROW:
            made.hold_encoder(kind)
        made.load_state_dict(tensors)
        # a clone: the tensor is a view of the mapped file, which may be written over while the model is used
        weight = None if edited is None else edited.reshape(latents).float().clone().numpy()
        found = AttachedFolder(made, source, str(said["head"]), said["model_fingerprint"], weight)
    except SarmError as error:
        raise ModelError(f"{name}: {error}", hint=error.hint) from error
    # whatever a damaged or foreign file makes the code above raise, in one sentence
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{name} is no whole folder of an attached dictionary: {reason}") from error
    if not isinstance(source["model"], str):
        raise ModelError(f"{name}: {ATTACHED} names no reward model")
    source["model"] = pointed_at(folder, source["model"])
    stored = [*made.encoding_state().values(), *([] if edited is None else [edited])]
    # NaN weights would make every comparison of rewards false, without a word
    if not decoder.finite or not all(bool(torch.isfinite(value).all()) for value in stored):
        raise ModelError(f"{name}: {WEIGHTS} holds numbers that are NaN or infinite")
    return found


def _read_tensors(file: Path, name: str) -> tuple[dict[str, Tensor], StoredDecoder]:
    """All tensors of a dictionary but its decoder, and where that lies."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as stream:
        said = stream.get_slice(DECODER)
        # resolved now: the decoder is read later, when the working folder may be another one
        entry = TensorEntry(file.resolve(), tuple(said.get_shape()), str(said.get_dtype()))
        names = [key for key in stream.keys() if key != DECODER]  # noqa: SIM118 - no mapping
        tensors = {key: stream.get_tensor(key) for key in names}
    if len(entry.shape) != 2:
        raise ValueError(f"{DECODER} is {list(entry.shape)}, which is no matrix")
    return tensors, StoredDecoder(entry, DECODER, name)


def pointed_at(folder: Path, model: str) -> str:
    """A path that begins with `./` or `../` is relative to the folder, so that both can be moved together."""
    return name_of_model(folder / model) if model.startswith(("./", "../")) else model


def _empty(said: Mapping[str, Any], size: int, scale: float, latents: int) -> AttachedAutoencoder:
    """A dictionary of the kind that a folder holds, without its weights."""
    from sarm_control.reward_model.ready_made import ReadyMadeAutoencoder

    k, mean = int(said["k"]), torch.zeros(size)
    # trained here, not published by others: see `save_attached`
    if "activation" not in said:
        return AttachedAutoencoder(mean, scale, latents, k, use_topk=bool(said["use_topk"]))
    if said["activation"] not in ("topk", "relu", "jumprelu"):
        raise ValueError(f"the activation {said['activation']!r} is not known")
    epsilon = said["norm_epsilon"]
    return ReadyMadeAutoencoder(
        mean,
        scale,
        latents,
        k,
        activation=said["activation"],
        norm_epsilon=None if epsilon is None else float(epsilon),
    )


def point_to_copy(folder: Path) -> None:
    """Makes a dictionary's folder point to the reward model inside it, wherever the folder is moved."""
    said = read_json_object(folder / ATTACHED)
    said["source"] = {**said["source"], "model": f"./{COPIED}", "revision": None}
    _write_json(folder / ATTACHED, said)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def save_attached(
    folder: Path,
    autoencoder: Autoencoder,
    *,
    source: Mapping[str, Any],
    fingerprints: tuple[str, str | None],
    edited: FloatArray | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the dictionary and where its reward model lies, whole or not at all.

    Edited weights of latents [L] lie beside the dictionary: no weight of the reward model holds them.

    Raises:
        ModelError: the reward model was built in memory, so that nothing can be pointed to.
        OutputError: the folder exists already or cannot be written.
    """
    from safetensors.torch import save_file

    if not source:
        raise ModelError(
            "the reward model was built in memory, and the dictionary's folder has to point to it",
            hint="save the reward model, load it from there, and attach the dictionary to that",
        )
    head, model = fingerprints
    ready_made = ("activation", "norm_epsilon")
    about = {
        **{key: getattr(autoencoder, key) for key in ready_made if hasattr(autoencoder, key)},
        "format": FORMAT,
        "source": dict(source),
        "head": head,
        "model_fingerprint": model,
        "latents": autoencoder.encoder.out_features,
        "k": autoencoder.k,
        "use_topk": autoencoder.use_topk,
    }
    held = autoencoder.encoder.weight.dtype
    if held in NARROW:
        # for plans of memory, which read no weights; loading goes by the tensor itself
        about["encoder"] = str(held).removeprefix("torch.")
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        # copies, since safetensors refuses tensors that share memory
        own = {
            key: value.detach().cpu().contiguous().clone() for key, value in autoencoder.state_dict().items()
        }
        if edited is not None:
            own[EDITED] = torch.from_numpy(edited)
        save_file(own, temporary / WEIGHTS, metadata={"format": "pt"})
        _write_json(temporary / ATTACHED, about)
    return folder


def write_edited_weights(folder: Path, weight: FloatArray, *, copied_from: Path) -> None:
    """Puts edited weights of latents [L] into the copy of an attached dictionary's folder.

    Args:
        folder: the copy.
        weight: in place of any edited ones before.
        copied_from: what a pointer to another folder beside it, `../`, is relative to.
    """
    from safetensors.torch import load_file, save_file

    said = read_json_object(folder / ATTACHED, finite=True)
    if said["source"]["model"].startswith("../"):
        said["source"]["model"] = pointed_at(copied_from, said["source"]["model"])
        _write_json(folder / ATTACHED, said)
    tensors = {**load_file(folder / WEIGHTS), EDITED: torch.from_numpy(np.ascontiguousarray(weight))}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
