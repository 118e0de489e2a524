"""What a SARM is, read from its files without loading its trunk."""

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sarm_control.errors import ModelError
from sarm_control.reward_model.files.checkpoint import (
    TensorEntry,
    check_types,
    find_folder,
    load_tensors,
    read_index,
)
from sarm_control.reward_model.files.config import read_config
from sarm_control.reward_model.files.model_fingerprint import model_fingerprint
from sarm_control.reward_model.head import LinearHead

if TYPE_CHECKING:
    from sarm_control.conversation import ChatTemplate

HEAD_NAME = "score.weight"


@dataclass(frozen=True)
class Description:
    """What decides a SARM's latents and rewards, beside the weights of trunk and autoencoder.

    Args:
        head: its head weights [L].
        latents: L.
        k: latents kept for each answer; None with TopK off.
        template: 16 hex digits of the SHA-256 of the chat template's text.
        model_fingerprint: see the function of that name.
        template_date: the day the chat template is told; None where it asks for none.
    """

    head: LinearHead
    latents: int
    k: int | None
    template: str
    model_fingerprint: str
    template_date: datetime.date | None = None


def read_head(id_or_folder: str | Path) -> LinearHead:
    """The head alone: a few megabytes of any SARM.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.

    Raises:
        ModelError: no such model, or it has no head.
    """
    return head_of(read_index(find_folder(id_or_folder), str(id_or_folder)), str(id_or_folder))


def read_model_fingerprint(id_or_folder: str | Path) -> str:
    """The fingerprint of trunk and autoencoder alone, of at most 64 KiB of each tensor.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.

    Raises:
        ModelError: no such model, or it is no SARM.
    """
    name, folder = str(id_or_folder), find_folder(id_or_folder)
    return model_fingerprint(read_index(folder, name), read_config(folder, name))


def describe(id_or_folder: str | Path, *, template_date: str | None = None) -> Description:
    """Reads config, head and tokenizer.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.
        template_date: likewise.

    Raises:
        ModelError: the folder does not exist or is not a SARM.
        ConfigError: `template_date` is no date.
    """
    from sarm_control.conversation import TemplateText, load_tokenizer

    name, folder = str(id_or_folder), find_folder(id_or_folder)
    config = read_config(folder, name)
    index = read_index(folder, name)
    day = config.template_date if template_date is None else template_date
    tokenizer = load_tokenizer(str(folder), local_files_only=True)
    template = str(tokenizer.chat_template)
    return Description(
        head=head_of(index, name),
        latents=config.latents,
        k=config.k if config.use_topk else None,
        template=hashlib.sha256(template.encode()).hexdigest()[:16],
        model_fingerprint=model_fingerprint(index, config),
        template_date=TemplateText(tokenizer, day).date if tokenizer.chat_template else None,
    )


def read_template(
    id_or_folder: str | Path, *, max_length: int | None = None, template_date: str | None = None
) -> "ChatTemplate":
    """The chat template and tokenizer that a SARM's rewards go through; no weights are read.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.
        max_length: likewise.
        template_date: likewise.

    Raises:
        ModelError: the folder does not exist, is not a SARM, or has no tokenizer with a template.
        ConfigError: `template_date` is no date.
    """
    from sarm_control.conversation import ChatTemplate, configured_ends, load_tokenizer
    from sarm_control.reward_model.trunk.trunk import context_of, trunk_config

    name, folder = str(id_or_folder), find_folder(id_or_folder)
    config = read_config(folder, name)
    return ChatTemplate(
        load_tokenizer(str(folder), local_files_only=True),
        max_length=max_length or context_of(trunk_config(config.trunk, config.source_layer, name)),
        date=config.template_date if template_date is None else template_date,
        ends=configured_ends(config.trunk),
    )


def head_of(index: Mapping[str, TensorEntry], name: str) -> LinearHead:
    """The head among the tensors of `read_index`.

    Raises:
        ModelError: there is none, or it is no row of floating-point numbers.
    """
    if HEAD_NAME not in index:
        raise ModelError(f"{name} is not a SARM: it has no {HEAD_NAME}")
    shape = index[HEAD_NAME].shape
    if len(shape) != 2 or shape[0] != 1:
        raise ModelError(f"{name} is not a SARM: its {HEAD_NAME} is {list(shape)}, not [1, latents]")
    check_types({HEAD_NAME: index[HEAD_NAME]}, name)
    return LinearHead(load_tensors(index, [HEAD_NAME])[HEAD_NAME][0].float().numpy())
