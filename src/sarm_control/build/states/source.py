"""The start of a build: the first layers of a causal language model, or an existing SARM."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sarm_control.conversation import ChatTemplate, load_tokenizer
from sarm_control.embedded import model_folder
from sarm_control.errors import ModelError
from sarm_control.reward_model import (
    Autoencoder,
    LinearHead,
    RewardModel,
    SarmConfig,
    Trunk,
    base_config,
    base_folder,
    cut_config,
    load_trunk,
)


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
    """Loads the first `layer` layers of a causal language model.

    Args:
        base: hub id or folder; "lab" is the embedded policy.
        layer: decoder layers to keep.
        dtype: of the trunk; None is the checkpoint's.
        device: None is a GPU when there is one.
        max_length: tokens of a conversation; None is the model's context.
        template_date: see `RewardModel.from_pretrained`.
        local_files_only: never use the network.

    Raises:
        ModelError: it cannot be loaded, or has fewer layers.
    """
    folder = base_folder(str(model_folder(base, "policy") or base), local_files_only=local_files_only)
    config = cut_config(base_config(folder, base), layer, base)
    trunk = load_trunk(
        folder,
        config,
        name=base,
        dtype=_dtype(dtype),
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )
    context = getattr(config, "max_position_embeddings", None)
    template = ChatTemplate(load_tokenizer(str(folder)), max_length=max_length or context, date=template_date)
    return TrunkSource(trunk, template, layer, config.to_dict(), template_date=template.date)


def _dtype(name: str | None) -> torch.dtype | str:
    if name is None:
        return "auto"
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"unknown dtype {name}", hint="use float32, bfloat16 or float16")
    return found
