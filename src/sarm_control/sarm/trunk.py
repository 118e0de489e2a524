"""The trunk: the first decoder layers of a causal LM, without the final norm.

Shapes: `B` answers, `T` tokens, `D` hidden size.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sarm_control.errors import ModelError
from sarm_control.sarm import last_layer
from sarm_control.sarm.aligned import with_own_memory

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

FINAL_NORM_NAMES = ("norm", "final_layernorm", "final_layer_norm", "ln_f")
LAYER_NAMES = ("layers", "h")


class Trunk(nn.Module):
    """A transformers decoder cut after its last kept layer.

    Args:
        model: a base model (no language-modelling head) that holds just the kept layers.

    Raises:
        ModelError: the architecture keeps its layers or final norm where we cannot find them.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        super().__init__()
        self.model = model
        norm = _first_attribute(model, FINAL_NORM_NAMES)
        if norm is None or _first_attribute(model, LAYER_NAMES) is None:
            raise ModelError(
                f"{type(model).__name__} cannot be cut: it has no layer list named "
                f"{' or '.join(LAYER_NAMES)} followed by a norm named {' or '.join(FINAL_NORM_NAMES)}"
            )
        setattr(model, norm, nn.Identity())
        last_layer.prepare(model, self.layers[-1])
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_causal_lm(
        cls,
        id_or_folder: str,
        source_layer: int,
        *,
        dtype: torch.dtype | str = "auto",
        device: str | torch.device | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> "Trunk":
        """The first `source_layer` layers of any causal LM transformers knows.

        Raises:
            ModelError: the model does not exist or has fewer layers.
        """
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(
                id_or_folder, revision=revision, local_files_only=local_files_only, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ModelError(f"no model can be loaded from {id_or_folder}: {first_line}") from error
        cut = cut_config(config.get_text_config(), source_layer, id_or_folder)
        return load_trunk(
            id_or_folder,
            cut,
            dtype=dtype,
            device=device,
            revision=revision,
            local_files_only=local_files_only,
        )

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
            positions = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
            masked = {"attention_mask": attention_mask, "position_ids": positions}
        output = self.model(input_ids=input_ids, use_cache=False, **masked)
        states: Tensor = output.last_hidden_state
        return states

    def states_at(self, input_ids: Tensor, attention_mask: Tensor | None, positions: Tensor) -> Tensor:
        """What `forward` gives at one position of each row, [B] to [B, D], without gradients.

        The last layer is computed there alone where transformers' layers of this type allow it.
        """
        return last_layer.states_at(self, input_ids, attention_mask, positions)


def trunk_config(raw: Mapping[str, Any], source_layer: int, name: str) -> "PretrainedConfig":
    """The configuration of a decoder with `source_layer` layers.

    Args:
        raw: a `config.json` dict of any causal LM transformers knows.
        source_layer: decoder layers to keep.
        name: what to call the model in errors.

    Raises:
        ModelError: an unknown model type, or fewer layers than asked for.
    """
    from transformers import AutoConfig

    model_type = raw.get("model_type")
    try:
        config = AutoConfig.for_model(**dict(raw)).get_text_config()
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{name}: transformers knows no model type {model_type!r}") from error
    return cut_config(config, source_layer, name)


def cut_config(config: "PretrainedConfig", source_layer: int, name: str) -> "PretrainedConfig":
    """A copy of `config` with only the first `source_layer` layers."""
    config = copy.deepcopy(config)
    if not 1 <= source_layer <= config.num_hidden_layers:
        raise ModelError(
            f"{name} has {config.num_hidden_layers} layers, layer {source_layer} cannot be its source layer",
            hint=f"choose a layer in 1..{config.num_hidden_layers}",
        )
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:source_layer]
    config.num_hidden_layers = source_layer
    return config


def load_trunk(
    folder: str,
    config: "PretrainedConfig",
    *,
    dtype: torch.dtype | str,
    device: str | torch.device | None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Trunk:
    """Loads the kept layers of a safetensors checkpoint (sharded or not).

    `device` may be "auto", which spreads the layers over the GPUs (needs accelerate).
    """
    from transformers import AutoModel

    with quiet_transformers():
        model = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map=device if device == "auto" else None,
            use_safetensors=True,
            revision=revision,
            local_files_only=local_files_only,
            trust_remote_code=False,
        )
    if device not in (None, "auto"):
        model = model.to(device)
    return Trunk(with_own_memory(model))


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
