"""What a reward model is, read from its files without loading its trunk."""

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sarm_control.errors import ModelError
from sarm_control.reward_model.classifier.known_heads import head_in
from sarm_control.reward_model.files.checkpoint import (
    TensorEntry,
    check_types,
    find_folder,
    load_tensors,
    read_index,
)
from sarm_control.reward_model.files.checkpoint_files import read_checkpoint_json
from sarm_control.reward_model.files.classifier_config import (
    ATTACHED,
    ClassifierConfig,
    is_attached,
    read_classifier_config,
)
from sarm_control.reward_model.files.config import SarmConfig, is_sarm, read_config
from sarm_control.reward_model.files.model_fingerprint import classifier_fingerprint, model_fingerprint
from sarm_control.reward_model.head import LinearHead
from sarm_control.reward_model.scored import Kind
from sarm_control.reward_model.trunk.trunk_values import COUNT, is_count

if TYPE_CHECKING:
    from sarm_control.conversation import ChatTemplate

HEAD_NAME = "score.weight"


@dataclass(frozen=True)
class Description:
    """What decides a reward model's latents and rewards, apart from the weights of trunk and autoencoder.

    Args:
        head: its head weights [L], and its own head.
        latents: L; 0 without a dictionary.
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

    @property
    def kind(self) -> Kind:
        """A SARM, a classifier, or one with a dictionary attached."""
        if self.head.own is None:
            return "sarm"
        return "attached" if self.latents else "classifier"


def read_head(id_or_folder: str | Path, *, output: int | str | None = None) -> LinearHead:
    """The head alone: a few megabytes of any reward model.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.
        output: likewise.

    Raises:
        ModelError: no such model, or it has no head.
        ConfigError: no such output.
    """
    return _read(id_or_folder, None, output).head


def read_model_fingerprint(id_or_folder: str | Path, *, pooling: str | None = None) -> str:
    """The fingerprint of trunk and autoencoder alone, of at most 64 KiB of each tensor.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.
        pooling: likewise.

    Raises:
        ModelError: no such model, or it is no reward model.
    """
    # any output would do: the fingerprint is not of the head, but of several outputs one must be named
    return _read(id_or_folder, pooling, 0).model_fingerprint


def latents_of(folder: Path, name: str) -> int:
    """How many latents the reward model in a folder has, from its configuration alone; 0 without any.

    Raises:
        ModelError: the folder holds no reward model.
    """
    if is_attached(folder):
        latents: Any = read_checkpoint_json(folder / ATTACHED).get("latents")
        if not is_count(latents):
            raise ModelError(f"{name}: latents in {ATTACHED} is {latents!r:.60}, it must be {COUNT}")
        return int(latents)
    if is_sarm(folder, name):
        return read_config(folder, name).latents
    config = read_classifier_config(folder, name)
    head_in(read_index(folder, name), config.trunk, name)
    return config.latents


def check_checkpoint(id_or_folder: str | Path) -> int:
    """Refuses by configuration and tensor headers what loading would refuse by them; no trunk is read.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.

    Returns:
        How many tokens have an embedding.

    Raises:
        ModelError: see `RewardModel.from_pretrained`.
    """
    name, folder = str(id_or_folder), find_folder(id_or_folder)
    if is_attached(folder):
        # the dictionary itself, that it is of this very reward model, and then that one
        return check_checkpoint(_read_attached(folder, name).folder)
    if is_sarm(folder, name):
        from sarm_control.reward_model.sarm_tensors import checked_sarm

        cut = checked_sarm(folder, name).cut
    else:
        from sarm_control.reward_model.classifier.loading import checked_classifier

        cut = checked_classifier(read_classifier_config(folder, name), read_index(folder, name), name).cut
    return int(cut.vocab_size)


def describe(
    id_or_folder: str | Path,
    *,
    template_date: str | None = None,
    pooling: str | None = None,
    output: int | str | None = None,
) -> Description:
    """Reads config, head and tokenizer.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.
        template_date: likewise.
        pooling: likewise.
        output: likewise.

    Raises:
        ModelError: the folder does not exist or holds no reward model.
        ConfigError: `template_date` is no date, or there is no such output or pooling rule.
    """
    from sarm_control.conversation import TemplateText, load_tokenizer

    found = _read(id_or_folder, pooling, output)
    config = found.config
    day = config.template_date if template_date is None else template_date
    tokenizer = load_tokenizer(str(found.folder), local_files_only=True)
    template = str(tokenizer.chat_template)
    return Description(
        head=found.head,
        latents=config.latents,
        k=config.k if config.use_topk else None,
        template=hashlib.sha256(template.encode()).hexdigest()[:16],
        model_fingerprint=found.model_fingerprint,
        template_date=TemplateText(tokenizer, day).date if tokenizer.chat_template else None,
    )


def read_template(
    id_or_folder: str | Path,
    *,
    max_length: int | None = None,
    template_date: str | None = None,
    pooling: str | None = None,
) -> "ChatTemplate":
    """The chat template and tokenizer that a reward model's rewards go through; no weights are read.

    Args:
        id_or_folder: see `RewardModel.from_pretrained`.
        max_length: likewise.
        template_date: likewise.
        pooling: likewise.

    Raises:
        ModelError: the folder does not exist, holds no reward model, or has no tokenizer with a template.
        ConfigError: `template_date` is no date, or there is no such pooling rule.
    """
    name, folder = str(id_or_folder), find_folder(id_or_folder)
    if is_attached(folder):
        from sarm_control.reward_model.attached import read_attached

        source = read_attached(folder, name).source
        return read_template(
            source["model"],
            max_length=max_length,
            template_date=template_date,
            pooling=source["pooling"],
        )
    if is_sarm(folder, name):
        return _sarm_template(folder, name, max_length, template_date)
    from sarm_control.reward_model.classifier.loading import Asked, read_classifier_template

    classifier, index = read_classifier_config(folder, name), read_index(folder, name)
    asked = Asked(max_length=max_length, template_date=template_date, pooling=pooling)
    return read_classifier_template(folder, name, classifier, index, asked)


def _sarm_template(
    folder: Path, name: str, max_length: int | None, template_date: str | None
) -> "ChatTemplate":
    from sarm_control.conversation import ChatTemplate, configured_ends, load_tokenizer
    from sarm_control.reward_model.trunk.trunk import context_of, trunk_config

    config = read_config(folder, name)
    # as `RewardModel` makes it: a prompt that fits here must fit there
    return ChatTemplate(
        load_tokenizer(str(folder), local_files_only=True),
        max_length=max_length or context_of(trunk_config(config.trunk, config.source_layer, name)),
        date=config.template_date if template_date is None else template_date,
        ends=configured_ends(config.trunk),
    )


class _Files(NamedTuple):
    """What the files say, without the trunk; `folder` holds the tokenizer."""

    folder: Path
    config: SarmConfig | ClassifierConfig
    head: LinearHead
    model_fingerprint: str


def _read(id_or_folder: str | Path, pooling: str | None, output: int | str | None) -> _Files:
    name, folder = str(id_or_folder), find_folder(id_or_folder)
    if is_attached(folder):
        return _read_attached(folder, name)
    if is_sarm(folder, name):
        config, index = read_config(folder, name), read_index(folder, name)
        return _Files(folder, config, head_of(index, name), model_fingerprint(index, config))
    from sarm_control.reward_model.classifier.loading import read_state_head
    from sarm_control.reward_model.trunk.pooling import parse_pooling

    classifier, index = read_classifier_config(folder, name), read_index(folder, name)
    known = head_in(index, classifier.trunk, name)
    own = read_state_head(index, known, classifier, output, name)
    head = LinearHead(np.zeros(0, dtype=np.float32), constant=own.bias, own=own)
    rule = str(parse_pooling(pooling or classifier.pooling or known.pooling))
    tensors = {known.weight, known.bias} & set(index)
    return _Files(folder, classifier, head, classifier_fingerprint(index, classifier, rule, tensors))


def _read_attached(folder: Path, name: str) -> _Files:
    from sarm_control.reward_model.attached import attached_fingerprint, read_attached

    found = read_attached(folder, name)
    source, autoencoder = found.source, found.autoencoder
    base = _read(source["model"], source["pooling"], source["output"])
    # a dictionary's folder holds a pointer and no trunk, and what it points to may have been trained on since
    found.check(base.head.fingerprint, base.model_fingerprint, name)
    if base.head.own is None or not isinstance(base.config, ClassifierConfig):
        raise ModelError(f"{name}: {source['model']} has no head of its own that a dictionary can explain")
    weight, constant = autoencoder.latent_weights(base.head.own)
    config = replace(base.config, latents=len(weight), k=autoencoder.k, use_topk=autoencoder.use_topk)
    head = LinearHead(weight, constant=constant, own=base.head.own)
    head = head if found.edited is None else head.with_weight(found.edited)
    fingerprint = attached_fingerprint(base.model_fingerprint, autoencoder)
    return _Files(base.folder, config, head, fingerprint)


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
    # a clone, not a view of the mapped file: writing over the file would change rewards without a word
    return LinearHead(load_tensors(index, [HEAD_NAME])[HEAD_NAME][0].float().clone().numpy())
