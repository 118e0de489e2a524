"""Dictionaries that others publish: SAELens, Gemma Scope, Llama Scope and Qwen-Scope.

Layouts (weights are of the residual stream before the final norm unless SAELens's hook says otherwise)

    SAELens       cfg.json, sae_weights.safetensors    W_enc [D, L], W_dec [L, D], b_enc, b_dec, threshold
    Gemma Scope   params.npz                           the same names; JumpReLU
    Llama Scope   hyperparams.json, checkpoints/final.safetensors    encoder.weight [L, D], decoder.weight
    Qwen-Scope    layerN.sae.safetensors, converted    W_enc [L, D], W_dec [D, L]; TopK, k in the path

The layouts are those that SAELens 6.54 reads. Shapes: `D` hidden size, `L` latents.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sarm_control.bounded_json import read_json_object
from sarm_control.errors import ConfigError, ModelError
from sarm_control.reward_model import (
    Activation,
    AttachedAutoencoder,
    ReadyMadeAutoencoder,
    RewardModel,
    RmsNorm,
    is_attached,
    read_attached,
)

_PICKLES = {".pt", ".pth", ".bin", ".pkl"}
_BEHIND = re.compile(r"ln_final|final_norm|model\.norm")
_LAYER = re.compile(r"(?:blocks|layers)\.(\d+)\.")
# their paths say L0, the number of latents that are active
_QWEN_K = re.compile(r"L0_(\d+)")


class Published(NamedTuple):
    """A dictionary as it is published.

    Args:
        encoder: [L, D].
        decoder: [D, L].
        latent_bias: [L], for inputs from which `pre_bias` was taken.
        pre_bias: [D], the decoder's bias.
        threshold: [L], zeros without one.
        activation: which latents are active.
        k: of TopK; else 0.
        scale: states are divided by it.
        layer: of the residual stream, from 0; None where the files do not say.
        behind_norm: whether it is of the state behind the final norm.
    """

    encoder: Tensor
    decoder: Tensor
    latent_bias: Tensor
    pre_bias: Tensor
    threshold: Tensor
    activation: Activation
    k: int
    scale: float = 1.0
    layer: int | None = None
    behind_norm: bool = False


def read_dictionary(path: Path, model: RewardModel, *, k: int | None = None) -> AttachedAutoencoder:
    """A published dictionary, or one of ours, for a reward model.

    Args:
        path: its folder, or a `.npz` or `.safetensors` file.
        model: the reward model it is to be attached to.
        k: latents kept, where the files do not say.

    Raises:
        ModelError: no dictionary, a pickle, another width or layer, or an activation that is not supported.
        ConfigError: k is needed.
    """
    if path.is_dir() and is_attached(path):
        return read_attached(path, path.name).autoencoder
    found = read_published(path, k=k)
    size, layers = model.trunk.hidden_size, len(model.trunk.layers)
    if found.encoder.shape[1] != size:
        raise ModelError(
            f"{path.name} is a dictionary of states of {found.encoder.shape[1]} numbers, the reward model's "
            f"have {size}",
            hint="take one of the same model",
        )
    if found.layer is not None and found.layer != layers - 1:
        raise ModelError(
            f"{path.name} is of layer {found.layer}, and the reward model's head reads the state behind "
            f"layer {layers - 1}, its last",
            hint=f"take the dictionary of layer {layers - 1}",
        )
    norm = model.trunk.final_norm
    if norm is None:
        raise ModelError("this reward model has no final norm: it is a SARM")
    return _made(found, None if found.behind_norm else RmsNorm(norm, size))


def _made(found: Published, norm: RmsNorm | None) -> ReadyMadeAutoencoder:
    latents, size = found.encoder.shape
    # the offset is one latent more
    rows = latents + (norm is not None)
    made = ReadyMadeAutoencoder(
        # what others train has no mean that is taken off first; its `pre_bias` plays that part
        torch.zeros(size),
        found.scale,
        rows,
        found.k,
        activation=found.activation,
        norm_epsilon=None if norm is None else norm.epsilon,
    )
    with torch.no_grad():
        made.encoder.weight[:latents] = found.encoder
        made.decoder.weight[:, :latents] = found.decoder
        made.latent_bias[:latents] = found.latent_bias
        made.pre_bias.copy_(found.pre_bias)
        made.threshold[:latents] = found.threshold
        if norm is not None:
            made.fold_norm(norm.factors)
    # many are published in bfloat16, and those lose nothing
    made.narrow_encoder(rounding=False)
    return made.requires_grad_(False).eval()


def read_published(path: Path, *, k: int | None = None) -> Published:
    """Reads the files alone; see `read_dictionary`."""
    if path.suffix in _PICKLES or (path.is_dir() and _only_pickles(path)):
        raise ModelError(
            f"{path.name} is a pickle, which could run code of its author's: it is not opened",
            hint='convert it once where you trust it: python -c "import torch; from safetensors.torch import '
            "save_file; save_file({key: value.contiguous() for key, value in torch.load('in.pt', "
            "weights_only=True).items()}, 'out.safetensors')\"",
        )
    try:
        return _read(path, k)
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        # our own errors are of these types as well, and say more than the sentence below
        if isinstance(error, ModelError | ConfigError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path.name} is no dictionary that can be read: {reason}") from error


def _read(path: Path, k: int | None) -> Published:
    from safetensors.torch import load_file

    if (path / "cfg.json").is_file():
        tensors = load_file(path / "sae_weights.safetensors")
        return _sae_lens(tensors, read_json_object(path / "cfg.json"), path.name)
    if (path / "hyperparams.json").is_file():
        files = (path / "checkpoints" / "final.safetensors", path / "final.safetensors")
        file = next((one for one in files if one.is_file()), files[0])
        return _llama_scope(load_file(file), read_json_object(path / "hyperparams.json"))
    if (path / "params.npz").is_file():
        path = path / "params.npz"
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            tensors = {key: torch.from_numpy(np.array(stored[key])) for key in stored.files}
        return _plain(tensors, "jumprelu", 0, subtracts=False)
    if path.suffix == ".safetensors":
        return _qwen_scope(load_file(path), path, k)
    raise ModelError(
        f"{path.name} is no dictionary: neither SAELens's cfg.json, nor hyperparams.json, params.npz or "
        "a .safetensors file",
        hint="give the folder that holds one of them",
    )


def _only_pickles(folder: Path) -> bool:
    names = {file.suffix for file in folder.iterdir()}
    return bool(names & _PICKLES) and not names & {".safetensors", ".npz", ".json"}


def _plain(
    tensors: Mapping[str, Tensor], activation: Activation, k: int, *, subtracts: bool, **more: Any
) -> Published:
    """From SAELens's names and shapes.

    Args:
        tensors: by name.
        activation: which latents are active.
        k: of TopK.
        subtracts: whether the input's bias is the decoder's; else the encoder's bias makes up for it, as
            ours subtract it always.
        more: further fields.
    """
    encoder, decoder = tensors["W_enc"].float().T.contiguous(), tensors["W_dec"].float().T.contiguous()
    latent_bias, pre_bias = tensors["b_enc"].float(), tensors["b_dec"].float()
    if not subtracts:
        latent_bias = latent_bias + encoder @ pre_bias
    threshold = tensors["threshold"].float() if activation == "jumprelu" else torch.zeros(len(encoder))
    return Published(encoder, decoder, latent_bias, pre_bias, threshold, activation, k, **more)


def _sae_lens(tensors: Mapping[str, Tensor], config: Mapping[str, Any], name: str) -> Published:
    meta = config.get("metadata")
    said = {**(meta if isinstance(meta, Mapping) else {}), **config}
    kinds: dict[Any, Activation] = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}
    architecture, norm = said.get("architecture"), said.get("normalize_activations") or "none"
    if architecture not in kinds:
        raise ModelError(f"{name} is of the architecture {architecture!r}, not one of {', '.join(kinds)}")
    if norm != "none":
        raise ModelError(
            f"{name} normalises its inputs ({norm}): its latents have no constant weights",
            hint="take one that was trained or saved without",
        )
    if said.get("rescale_acts_by_decoder_norm"):
        # SAELens scales activations by the length of their direction: folded in here, z d stays what it was
        lengths = tensors["W_dec"].float().norm(dim=-1)
        tensors = {
            **tensors,
            "W_enc": tensors["W_enc"].float() * lengths,
            "b_enc": tensors["b_enc"].float() * lengths,
            "W_dec": tensors["W_dec"].float() / lengths[:, None],
        }
    k = said.get("k") or (said.get("activation_fn_kwargs") or {}).get("k") or 0
    hook = str(said.get("hook_name") or "")
    layer = _LAYER.search(hook)
    return _plain(
        tensors,
        kinds[architecture],
        int(k) if architecture == "topk" else 0,
        subtracts=bool(said.get("apply_b_dec_to_input", True)),
        layer=None if layer is None else int(layer[1]),
        behind_norm=bool(_BEHIND.search(hook)),
    )


def _llama_scope(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Published:
    """States are scaled so that their mean length in the data was sqrt(D); the threshold is in that scale."""
    encoder = tensors["encoder.weight"].float()
    size = encoder.shape[1]
    threshold = torch.full((len(encoder),), float(config["jump_relu_threshold"]))
    named = {
        "W_enc": encoder.T,
        "W_dec": tensors["decoder.weight"].float().T,
        "b_enc": tensors["encoder.bias"],
        "b_dec": tensors["decoder.bias"],
        "threshold": threshold,
    }
    scale = float(config["dataset_average_activation_norm"]["in"]) / size**0.5
    layer = _LAYER.search(str(config.get("hook_point_in", "")))
    number = None if layer is None else int(layer[1])
    return _plain(named, "jumprelu", 0, subtracts=False, scale=scale, layer=number)


def _qwen_scope(tensors: Mapping[str, Tensor], path: Path, k: int | None) -> Published:
    # the whole path: k may be in a folder's name that a relative one lacks
    named = _QWEN_K.search(str(path.resolve()))
    kept = k or (int(named[1]) if named else None)
    if kept is None:
        raise ConfigError(f"{path.name} does not say how many latents are kept", hint="say it with --k")
    turned = {**tensors, "W_enc": tensors["W_enc"].T, "W_dec": tensors["W_dec"].T}
    layer = re.fullmatch(r"layer(\d+)\.sae", path.stem)
    return _plain(turned, "topk", kept, subtracts=False, layer=int(layer[1]) if layer else None)
