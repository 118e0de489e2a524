"""The trunk: the first decoder layers of a causal LM, without the final norm or, all of them, with it.

Shapes: `B` answers, `T` tokens, `D` hidden size.
"""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sarm_control.errors import ModelError
from sarm_control.reward_model.files.checkpoint import (
    TensorEntry,
    check_types,
    from_checkpoint,
    load_tensors,
    local_or_downloaded,
    read_index,
)
from sarm_control.reward_model.files.config import read_raw_config
from sarm_control.reward_model.files.finite import check_weights
from sarm_control.reward_model.trunk import last_layer
from sarm_control.reward_model.trunk.torch_backend import with_own_memory
from sarm_control.reward_model.trunk.trunk_values import check_trunk_values

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

FINAL_NORM_NAMES = ("norm", "final_layernorm", "final_layer_norm", "ln_f")
LAYER_NAMES = ("layers", "h")
# What a configuration may tell transformers to do while it loads: other files, other code.
_NOT_OF_A_TRUNK = ("auto_map", "fusion_config", "quantization_config", "transformers_weights")


class Trunk(nn.Module):
    """A transformers decoder cut after its last kept layer.

    Args:
        model: a base model (no language-modelling head) that holds just the kept layers.
        final_norm: pass the states that `states_at` reads through the final norm, in float32.

    Raises:
        ModelError: the architecture keeps its layers or final norm where we cannot find them.
    """

    def __init__(self, model: "PreTrainedModel", *, final_norm: bool = False) -> None:
        super().__init__()
        self.model = model
        norm = _first_attribute(model, FINAL_NORM_NAMES)
        if norm is None or _first_attribute(model, LAYER_NAMES) is None:
            raise ModelError(
                f"{type(model).__name__} cannot be cut: it has no layer list named "
                f"{' or '.join(LAYER_NAMES)} followed by a norm named {' or '.join(FINAL_NORM_NAMES)}"
            )
        self.norm_name = norm
        self.final_norm: nn.Module | None = getattr(model, norm).float() if final_norm else None
        # a model passes its last layer's states through this norm; wanted are those of the last kept layer
        setattr(model, norm, nn.Identity())
        last_layer.prepare(model, self.layers[-1])
        self.requires_grad_(False)
        self.eval()

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, first to last."""
        found: nn.ModuleList = getattr(self.model, str(_first_attribute(self.model, LAYER_NAMES)))
        return found

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where token ids have to be."""
        return next(self.model.get_input_embeddings().parameters()).device

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """[B, T] ids and mask (1 = token, 0 = padding on either side) to [B, T, D] states.

        Without a mask there is no padding, or it is on the right: no token looks there, so the states of
        all tokens are right, and attention need not read a mask.
        """
        masked: dict[str, Tensor] = {}
        if attention_mask is not None:
            # counted from a row's first token, so that padding on the left shifts no position
            positions = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
            masked = {"attention_mask": attention_mask, "position_ids": positions}
        output = self.model(input_ids=input_ids, use_cache=False, **masked)
        states: Tensor = output.last_hidden_state
        return states

    def states_at(self, input_ids: Tensor, attention_mask: Tensor | None, positions: Tensor) -> Tensor:
        """What `forward` gives at one position of each row, [B] to [B, D], without gradients.

        The last layer is computed there alone where transformers' layers of this type allow it. With a
        final norm the states are those behind it, in float32.
        """
        states = last_layer.states_at(self, input_ids, attention_mask, positions)
        return states if self.final_norm is None else self.final_norm(states.float())


def base_folder(id_or_folder: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The local folder of a language model; a hub id is downloaded.

    Raises:
        ModelError: neither a folder nor a hub id, or the download failed.
    """
    try:
        return local_or_downloaded(id_or_folder, revision=revision, local_files_only=local_files_only)
    except ModelError as error:
        raise ModelError(f"no model can be loaded from {id_or_folder}: {error}", hint=error.hint) from error


def base_config(folder: Path, name: str) -> "PretrainedConfig":
    """The configuration of a language model, of its text part where it has others.

    Raises:
        ModelError: it cannot be used.
    """
    from transformers import AutoConfig

    check_trunk_values(read_raw_config(folder, name), name)
    with from_checkpoint(name):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ).get_text_config()
        return config


def context_of(config: "PretrainedConfig") -> int | None:
    """Tokens that a model's positions go to; None without a limit."""
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length and math.isfinite(length) else None


def trunk_config(raw: Mapping[str, Any], source_layer: int, name: str) -> "PretrainedConfig":
    """The configuration of a decoder with `source_layer` layers.

    Args:
        raw: a `config.json` dict of any causal LM transformers knows; it is left as it is.
        source_layer: decoder layers to keep.
        name: what to call the model in errors.

    Raises:
        ModelError: an unknown model type, values it cannot have, or fewer layers than asked for.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ModelError(f"{name}: transformers knows no model type {model_type!r}")
    # transformers writes into nested values such as `rope_scaling`: it gets a copy of its own.
    own = copy.deepcopy({key: value for key, value in raw.items() if key not in _NOT_OF_A_TRUNK})
    with from_checkpoint(name):
        config = AutoConfig.for_model(**own).get_text_config()
    return cut_config(config, source_layer, name)


def cut_config(config: "PretrainedConfig", source_layer: int, name: str) -> "PretrainedConfig":
    """A copy of `config` with only the first `source_layer` layers.

    Raises:
        ModelError: it has fewer layers, or is no configuration of a decoder.
    """
    with from_checkpoint(name):
        return _cut(copy.deepcopy(config), source_layer, name)


def caps_scores(config: "PretrainedConfig") -> bool:
    """Whether attention caps its scores, as Gemma 2's does; sdpa leaves the cap out.

    Newer versions of transformers know that, older ones choose sdpa for Gemma 2.
    """
    return bool(getattr(config, "attn_logit_softcapping", None))


def takes_sdpa(model: "PreTrainedModel") -> bool:
    """Whether sdpa attention computes what the model is."""
    return bool(model._supports_sdpa) and not caps_scores(model.config)


def _cut(config: "PretrainedConfig", source_layer: int, name: str) -> "PretrainedConfig":
    if not 1 <= source_layer <= config.num_hidden_layers:
        raise ModelError(
            f"{name} has {config.num_hidden_layers} layers, layer {source_layer} cannot be its source layer",
            hint=f"choose a layer in 1..{config.num_hidden_layers}",
        )
    if caps_scores(config) and config._attn_implementation in (None, "sdpa"):
        config._attn_implementation = "eager"
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:source_layer]
    config.num_hidden_layers = source_layer
    return config


def load_trunk(
    folder: Path,
    config: "PretrainedConfig",
    *,
    name: str,
    dtype: torch.dtype | str,
    device: str | torch.device | None,
    index: Mapping[str, TensorEntry] | None = None,
    final_norm: bool = False,
) -> Trunk:
    """Loads the kept layers of a safetensors checkpoint (sharded or not).

    Args:
        folder: where the checkpoint lies.
        config: from `trunk_config` or `cut_config`.
        name: what to call the model in errors.
        dtype: of the weights; "auto" is the checkpoint's.
        device: may be "auto", which spreads the layers over the GPUs (needs accelerate).
        index: the tensors to load from; by default all that `read_index` finds.
        final_norm: see `Trunk`; it is loaded in float32, whatever `dtype` is.

    Raises:
        ModelError: tensors are missing, damaged or not finite, or transformers cannot load the model.
    """
    from transformers import AutoModel

    entries = read_index(folder, name) if index is None else index
    with quiet_transformers(), from_checkpoint(name):
        with torch.device("meta"):
            # only its class and the names of its tensors are wanted: on meta they cost no memory
            skeleton = AutoModel.from_config(config)
        if getattr(config, "quantization_config", None) is None:
            prefix, known = f"{skeleton.base_model_prefix}.", skeleton.state_dict()
            check_types({key: one for key, one in entries.items() if key.removeprefix(prefix) in known}, name)
        views = load_tensors(entries, entries)
        # By tensors and not by the folder, so that no file but those of the index is opened.
        model, info = type(skeleton).from_pretrained(
            None,
            config=config,
            state_dict=dict(views),
            dtype=dtype,
            device_map=device if device == "auto" else None,
            ignore_mismatched_sizes=True,  # they are refused below, by their names
            output_loading_info=True,
        )
        if device not in (None, "auto"):
            model = model.to(device)
    for key, stored, wanted in sorted(info["mismatched_keys"]):
        raise ModelError(
            f"{name} does not fit its config.json: {key} is {list(stored)}, expected {list(wanted)}"
        )
    # a cut trunk has no final norm; where one is wanted, `_load_norm` reads it
    missing = sorted(key for key in info["missing_keys"] if key.split(".")[0] not in FINAL_NORM_NAMES)
    if missing:
        raise ModelError(f"{name} lacks the tensor {missing[0]}")
    trunk = Trunk(with_own_memory(model, views.values()), final_norm=final_norm)
    check_weights((*model.named_parameters(), *model.named_buffers()), entries, name)
    if trunk.final_norm is not None:
        _load_norm(trunk, trunk.final_norm, entries, name)
    return trunk


def _load_norm(trunk: Trunk, norm: nn.Module, entries: Mapping[str, TensorEntry], name: str) -> None:
    """Its weights as they are stored: the trunk's type may have rounded them."""
    names = {f"{trunk.norm_name}.{key}": key for key in norm.state_dict()}
    prefix = f"{trunk.model.base_model_prefix}."
    stored = {key: prefix + key if prefix + key in entries else key for key in names}
    missing = sorted(full for full in stored.values() if full not in entries)
    if missing:
        raise ModelError(f"{name} lacks the tensor {missing[0]}")
    loaded = load_tensors(entries, stored.values())
    check_weights(((key, loaded[full]) for key, full in stored.items()), entries, name)
    norm.load_state_dict({names[key]: loaded[full].float() for key, full in stored.items()})


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides transformers' loading bars and its notes on keys we leave out on purpose."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_attribute(model: nn.Module, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(getattr(model, name, None), nn.Module)), None)
