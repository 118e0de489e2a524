"""What a model will be once it is loaded, from its configuration and the headers of its files alone."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sarm_control.bounded_json import read_json_object
from sarm_control.embedded import model_folder
from sarm_control.errors import ModelError
from sarm_control.reward_model import (
    ATTACHED,
    base_config,
    configuration_folder,
    is_attached,
    is_sarm,
    latents_of,
    pointed_at,
    read_classifier_config,
    read_config,
    read_index,
    stored_type,
    trunk_config,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class RewardShape:
    """A reward model without its weights.

    Args:
        name: what it was called.
        config: of the decoder layers it reads.
        dtype: the trunk's type as it will be loaded.
        latents: L; 0 without a dictionary.
        k: latents kept of an answer.
        final_norm: whether its head reads the state behind the final norm.
        encoder: the type that its dictionary's encoder is held in.
    """

    name: str
    config: "PretrainedConfig"
    dtype: torch.dtype
    latents: int
    k: int
    final_norm: bool
    encoder: torch.dtype = torch.float32

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """D."""
        return int(self.config.hidden_size)

    @property
    def context(self) -> int | None:
        """Tokens of its positions; None without a limit."""
        limit = getattr(self.config, "max_position_embeddings", None)
        return int(limit) if limit else None


def reward_shape(name: str | Path, dtype: str | None = None) -> RewardShape:
    """The shape of a SARM, a classifier or an attached dictionary.

    Args:
        name: see `RewardModel.from_pretrained`; of a hub id the configuration alone is downloaded.
        dtype: of the trunk; the default is the checkpoint's.

    Raises:
        ModelError: no reward model.
    """
    folder = configuration_folder(name)
    shown = str(name)
    if is_attached(folder):
        said = read_json_object(folder / ATTACHED, finite=True)
        source: Any = said.get("source")
        if not isinstance(source, dict) or not isinstance(source.get("model"), str):
            raise ModelError(f"{shown}: {ATTACHED} names no reward model")
        base = reward_shape(pointed_at(folder, source["model"]), dtype)
        k: Any = said.get("k", 0)
        types = {"float16": torch.float16, "bfloat16": torch.bfloat16}
        return replace(
            base,
            name=shown,
            latents=latents_of(folder, shown),
            k=int(k),
            encoder=types.get(str(said.get("encoder")), torch.float32),
        )
    if is_sarm(folder, shown):
        own = read_config(folder, shown)
        raw = {**own.trunk, **_stored_vocabulary(folder, shown)}
        config = trunk_config(raw, own.source_layer, shown)
        return RewardShape(
            shown, config, _type(dtype, config, folder, shown), own.latents, own.k, final_norm=False
        )
    classifier = read_classifier_config(folder, shown)
    config = trunk_config(classifier.trunk, classifier.source_layer, shown)
    return RewardShape(shown, config, _type(dtype, config, folder, shown), 0, 0, final_norm=True)


def policy_config(base: str) -> "PretrainedConfig":
    """The configuration of a causal language model, by folder, hub id or "lab".

    Raises:
        ModelError: there is none.
    """
    return base_config(configuration_folder(model_folder(base, "policy") or base), base)


def _type(asked: str | None, config: "PretrainedConfig", folder: Path, name: str) -> torch.dtype:
    """As transformers decides: what is asked for, what the configuration says, what the files hold."""
    if asked is not None and asked != "auto":
        return getattr(torch, asked)  # type: ignore[no-any-return]
    said = getattr(config, "dtype", None)
    if isinstance(said, str):
        said = getattr(torch, said, None)
    return said if isinstance(said, torch.dtype) else stored_type(_headers(folder, name))


def _headers(folder: Path, name: str) -> dict[str, Any]:
    """The tensors of a local folder; none where only the configuration was downloaded."""
    weights = list(folder.glob("*.safetensors"))
    return dict(read_index(folder, name)) if weights else {}


def _stored_vocabulary(folder: Path, name: str) -> dict[str, int]:
    """A SARM may have one token more than its base's configuration says."""
    found = _headers(folder, name).get("model.embed_tokens.weight")
    return {} if found is None else {"vocab_size": int(found.shape[0])}
