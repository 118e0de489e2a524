"""The tensors of a SARM's files: which there have to be, and the autoencoder made from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sarm_control.errors import ModelError
from sarm_control.reward_model.autoencoder import Autoencoder
from sarm_control.reward_model.files.checkpoint import (
    TensorEntry,
    check_tensors,
    from_checkpoint,
    load_tensors,
    read_index,
)
from sarm_control.reward_model.files.config import SarmConfig, read_config
from sarm_control.reward_model.files.finite import check_weights
from sarm_control.reward_model.files.stored_decoder import StoredDecoder
from sarm_control.reward_model.trunk.torch_backend import with_own_memory
from sarm_control.reward_model.trunk.trunk import Trunk, quiet_transformers, trunk_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

AUTOENCODER_NAMES = ("sae.pre_bias", "sae.latent_bias", "sae.encoder.weight", "sae.decoder.weight")
DECODER_NAME = "sae.decoder.weight"
HEAD_NAME = "score.weight"


class SarmFiles(NamedTuple):
    """What the files of a SARM hold, by their headers.

    Args:
        config: as they say.
        tensors: all of them.
        cut: the configuration of the trunk.
        of_trunk: the tensors of the trunk alone.
    """

    config: SarmConfig
    tensors: dict[str, TensorEntry]
    cut: "PretrainedConfig"
    of_trunk: dict[str, TensorEntry]


def checked_sarm(folder: Path, name: str) -> SarmFiles:
    """The files of a SARM, with every tensor that its configuration asks for; no weights are read.

    Raises:
        ModelError: a configuration that cannot be used, or tensors missing, extra or of another shape.
    """
    config, index = read_config(folder, name), read_index(folder, name)
    refuse_lost_layers(config, index, name)
    cut = trunk_config(with_stored_vocabulary(config.trunk, index), config.source_layer, name)
    expected = expected_tensors(config, cut, name)
    check_tensors(index, expected, name)
    apart = (*AUTOENCODER_NAMES, HEAD_NAME)
    return SarmFiles(config, index, cut, {key: index[key] for key in expected if key not in apart})


def refuse_lost_layers(config: SarmConfig, index: Mapping[str, Any], name: str) -> None:
    """Before any layer is made: a damaged number must not cost minutes and the memory."""
    if config.source_layer > len(index):
        raise ModelError(
            f"{name}: config.json asks for {config.source_layer} layers, its files hold {len(index)} tensors"
        )


def expected_tensors(config: SarmConfig, cut: "PretrainedConfig", name: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the files of a SARM have to hold, made without any memory."""
    from transformers import AutoModel

    with torch.device("meta"), quiet_transformers(), from_checkpoint(name):
        skeleton = AutoModel.from_config(cut)
    prefix = f"{skeleton.base_model_prefix}."
    # through `Trunk`, which takes the final norm away: a SARM's files need not hold it
    shapes = {prefix + key: tuple(value.shape) for key, value in Trunk(skeleton).model.state_dict().items()}
    size, latents = int(cut.hidden_size), config.latents
    shapes.update(
        zip(AUTOENCODER_NAMES, [(size,), (latents,), (latents, size), (size, latents)], strict=True)
    )
    shapes[HEAD_NAME] = (1, latents)
    return shapes


def with_stored_vocabulary(raw: Mapping[str, Any], index: Mapping[str, Any]) -> dict[str, Any]:
    """A SARM's vocabulary may be one larger (its pad token) than its base model's config says."""
    embedding = index.get("model.embed_tokens.weight")
    return {**raw, "vocab_size": embedding.shape[0]} if embedding else dict(raw)


def read_autoencoder(
    index: Mapping[str, TensorEntry], config: SarmConfig, hidden_size: int, name: str
) -> Autoencoder:
    """The autoencoder of a SARM's files, in float32; its decoder stays in its file.

    Raises:
        ModelError: weights that are NaN or infinite.
    """
    first = [key for key in AUTOENCODER_NAMES if key != DECODER_NAME]
    stored = load_tensors(index, first)
    check_weights(stored.items(), index, name)
    entry = index[DECODER_NAME]
    decoder = StoredDecoder(entry._replace(file=entry.file.resolve()), DECODER_NAME, name)
    if not decoder.finite:  # which number it is, needs all of them
        check_weights(load_tensors(index, [DECODER_NAME]).items(), index, name)
    with torch.device("meta"):
        autoencoder = Autoencoder(hidden_size, config.latents, config.k, use_topk=config.use_topk)
    autoencoder.leave_decoder(decoder)
    weights = {key.removeprefix("sae."): value.float() for key, value in stored.items()}
    autoencoder.load_state_dict(weights, assign=True)
    return with_own_memory(autoencoder, stored.values())
