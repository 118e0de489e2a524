"""The start of a build: the first layers of a causal language model, or an existing SARM."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sarm_control.conversation import ChatTemplate, load_tokenizer
from sarm_control.embedded import model_folder
from sarm_control.reward_model import (
    Autoencoder,
    LinearHead,
    RewardModel,
    SarmConfig,
    Trunk,
    base_config,
    base_folder,
    check_placement,
    cut_config,
    dtype_of,
    load_trunk,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class TrunkSource:
    """A trunk with its chat template, and the autoencoder of an existing SARM.

    Args:
        trunk: the first `source_layer` decoder layers.
        template: the tokenizer's chat template.
        source_layer: layers in the trunk.
        trunk_config: the base model's configuration.
        autoencoder: of an existing SARM, else None.
        template_date: the day that the SARM was built with; None where its template writes no day.
    """

    trunk: Trunk
    template: ChatTemplate
    source_layer: int
    trunk_config: Mapping[str, Any]
    autoencoder: Autoencoder | None = None
    template_date: datetime.date | None = None

    @classmethod
    def of(cls, model: RewardModel) -> "TrunkSource":
        """The parts of an existing SARM.

        Raises:
            ModelError: never for a SARM that loaded.
        """
        config, day = model.config, model.template.date
        # a SARM that records no day and uses the default one goes on recording none: it is the same model,
        # and latents stored of it stay valid for its new head
        if config.template_date is None and day == model.template.own_date:
            day = None
        return cls(model.trunk, model.template, config.source_layer, config.trunk, model.autoencoder, day)

    def reward_model(self, autoencoder: Autoencoder) -> RewardModel:
        """A SARM of these parts whose head is 0."""
        latents = autoencoder.latent_bias.shape[0]
        config = SarmConfig(
            source_layer=self.source_layer,
            latents=latents,
            k=autoencoder.k,
            use_topk=autoencoder.use_topk,
            trunk=self.trunk_config,
            template_date=self.template_date,
        )
        head = LinearHead(np.zeros(latents, dtype=np.float32))
        return RewardModel(config, self.trunk, autoencoder.to(self.trunk.device), head, self.template)


@dataclass(frozen=True)
class Base:
    """A causal language model whose configuration and tokenizer are read, and whose weights are not.

    Args:
        name: as it was asked for.
        folder: where it lies.
        config: of its text part.
        template: its tokenizer's chat template.
        dtype: of the trunk; "auto" is the checkpoint's.
        device: of the trunk.
    """

    name: str
    folder: Path
    config: "PretrainedConfig"
    template: ChatTemplate
    dtype: torch.dtype | str
    device: str

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """D."""
        return int(self.config.hidden_size)

    def check_layer(self, layer: int) -> None:
        """Refuses to keep more layers than there are.

        Raises:
            ModelError: it has fewer, or is no decoder.
        """
        cut_config(self.config, layer, self.name)

    def cut(self, layer: int) -> TrunkSource:
        """Loads the first `layer` layers.

        Raises:
            ModelError: it has fewer layers, or its weights cannot be loaded.
        """
        config = cut_config(self.config, layer, self.name)
        trunk = load_trunk(self.folder, config, name=self.name, dtype=self.dtype, device=self.device)
        return TrunkSource(trunk, self.template, layer, config.to_dict(), template_date=self.template.date)


def read_base(
    base: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    max_length: int | None = None,
    template_date: str | None = None,
    local_files_only: bool = False,
) -> Base:
    """Reads everything of a causal language model but its weights.

    Args:
        base: hub id or folder; "lab" is the embedded policy.
        dtype: of the trunk; None is the checkpoint's.
        device: None is a GPU when there is one.
        max_length: tokens of a conversation; None is the model's context.
        template_date: see `RewardModel.from_pretrained`.
        local_files_only: never use the network.

    Raises:
        ModelError: it cannot be read, has no chat template, or the dtype or device does not exist.
    """
    folder = base_folder(str(model_folder(base, "policy") or base), local_files_only=local_files_only)
    config = base_config(folder, base)
    context = getattr(config, "max_position_embeddings", None)
    template = ChatTemplate(load_tokenizer(str(folder)), max_length=max_length or context, date=template_date)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_placement(place, dtype)
    return Base(base, folder, config, template, dtype_of(dtype), place)


def cut_base(
    base: str,
    layer: int,
    *,
    dtype: str | None = None,
    device: str | None = None,
    max_length: int | None = None,
    template_date: str | None = None,
    local_files_only: bool = False,
) -> TrunkSource:
    """Loads the first `layer` layers of a causal language model; see `read_base`.

    Raises:
        ModelError: it cannot be loaded, or has fewer layers.
    """
    found = read_base(
        base,
        dtype=dtype,
        device=device,
        max_length=max_length,
        template_date=template_date,
        local_files_only=local_files_only,
    )
    return found.cut(layer)
