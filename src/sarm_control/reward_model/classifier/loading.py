"""A sequence classifier from its files: trunk, head, pooling rule and chat template, each checked.

Shapes: `D` hidden size, `O` outputs of the head.
"""

import datetime
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sarm_control.conversation import ChatTemplate, configured_ends, distinct_ids, load_tokenizer
from sarm_control.errors import ConfigError, ModelError
from sarm_control.reward_model.classifier.known_heads import KnownHead, head_in
from sarm_control.reward_model.files.checkpoint import (
    TensorEntry,
    check_tensors,
    check_types,
    from_checkpoint,
    load_tensors,
)
from sarm_control.reward_model.files.classifier_config import ClassifierConfig
from sarm_control.reward_model.files.model_fingerprint import classifier_fingerprint
from sarm_control.reward_model.head import LinearHead
from sarm_control.reward_model.state_head import StateHead
from sarm_control.reward_model.trunk.placement import dtype_of
from sarm_control.reward_model.trunk.pooling import Pooling, parse_pooling
from sarm_control.reward_model.trunk.trunk import (
    Trunk,
    context_of,
    load_trunk,
    quiet_transformers,
    trunk_config,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig

DIFFERENCE = "difference"
"""The output of two that is the second minus the first."""
_EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight")
_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float32}


class Asked(NamedTuple):
    """How a classifier is to be read; see `RewardModel.from_pretrained`."""

    device: str | torch.device | None = None
    dtype: torch.dtype | str | None = None
    max_length: int | None = None
    template_date: datetime.date | str | None = None
    pooling: str | None = None
    output: int | str | None = None


class Classifier(NamedTuple):
    """The parts of a classifier.

    Args:
        config: what its files say, with the pooling rule that is used.
        trunk: all layers and the final norm.
        head: without latents.
        template: the chat template, whole or up to the end-of-turn as the rule asks.
        pooling: the rule.
        known: the entry of its head.
        asked_for: whether the rule was asked for, or kept with the model, and is no default.
        fingerprint: see `classifier_fingerprint`.
    """

    config: ClassifierConfig
    trunk: Trunk
    head: LinearHead
    template: ChatTemplate
    pooling: Pooling
    known: KnownHead
    asked_for: bool
    fingerprint: str


class ClassifierFiles(NamedTuple):
    """What the files of a classifier hold, by their headers.

    Args:
        known: the entry of its head.
        cut: the configuration of the trunk.
        of_trunk: the tensors of the trunk alone.
        head: those of the head, and their shapes.
        tensors: all of them.
    """

    known: KnownHead
    cut: "PretrainedConfig"
    of_trunk: dict[str, TensorEntry]
    head: dict[str, tuple[int, ...]]
    tensors: dict[str, TensorEntry]


def checked_classifier(
    config: ClassifierConfig, index: Mapping[str, TensorEntry], name: str
) -> ClassifierFiles:
    """The files of a classifier, with every tensor that its configuration asks for; no weights are read.

    Args:
        config: of the folder.
        index: of the folder.
        name: what to call it in errors.

    Raises:
        ModelError: no linear head, or tensors missing, extra or of another shape.
    """
    known = head_in(index, config.trunk, name)
    # running statistics of rewards that some checkpoints carry; `head_in` has refused those that use them
    index = {key: entry for key, entry in index.items() if not key.startswith("normalizer.")}
    cut = _trunk_config(config, index, name)
    weights = _expected(cut, name)
    outputs = index[known.weight].shape[0]
    head: dict[str, tuple[int, ...]] = {known.weight: (outputs, int(cut.hidden_size))}
    if known.bias in index:
        head[known.bias] = (outputs,)
    check_tensors(index, {**weights, **head}, name)
    return ClassifierFiles(known, cut, {key: index[key] for key in weights}, head, index)


def load_classifier(
    folder: Path, name: str, config: ClassifierConfig, index: Mapping[str, TensorEntry], asked: Asked
) -> Classifier:
    """Reads the parts; nothing is run.

    Args:
        folder: where the checkpoint lies.
        name: what to call it in errors.
        config: of the folder.
        index: of the folder.
        asked: how it is to be read.

    Raises:
        ModelError: no linear head, tensors that do not fit, a template that cannot be used.
        ConfigError: an output or a pooling rule that does not exist.
    """
    known, cut, of_trunk, head, index = checked_classifier(config, index, name)
    read = read_state_head(index, known, config, asked.output, name)
    trunk = load_trunk(
        folder,
        cut,
        name=name,
        dtype=stored_dtype(of_trunk) if asked.dtype is None else dtype_of(asked.dtype),
        device=asked.device,
        index=of_trunk,
        final_norm=True,
    )
    # what was asked for, else what was kept with the model, else what the head's authors do
    chosen = asked.pooling or config.pooling
    pooling = parse_pooling(chosen or known.pooling)
    template = _template(folder, known, pooling, config, asked, context_of(cut))
    # after the template, which knows the id that ends a turn
    pooling = _resolved(pooling, template, config, name)
    own = classifier_fingerprint(index, config, str(pooling), head)
    linear = LinearHead(np.zeros(0, dtype=np.float32), constant=read.bias, own=read)
    return Classifier(config, trunk, linear, template, pooling, known, chosen is not None, own)


def read_classifier_template(
    folder: Path, name: str, config: ClassifierConfig, index: Mapping[str, TensorEntry], asked: Asked
) -> ChatTemplate:
    """The chat template that a classifier's rewards go through; no weights are read.

    Args:
        folder: see `load_classifier`.
        name: likewise.
        config: likewise.
        index: likewise.
        asked: likewise.

    Raises:
        ModelError: no linear head, or a template that cannot be used.
        ConfigError: a pooling rule that does not exist.
    """
    known = head_in(index, config.trunk, name)
    pooling = parse_pooling(asked.pooling or config.pooling or known.pooling)
    context = context_of(_trunk_config(config, index, name))
    return _template(folder, known, pooling, config, asked, context)


def read_state_head(
    index: Mapping[str, TensorEntry],
    known: KnownHead,
    config: ClassifierConfig,
    output: int | str | None,
    name: str,
) -> StateHead:
    """One row of the head in float32, or the difference of two.

    Args:
        index: of the checkpoint.
        known: its head.
        config: names the labels.
        output: the row, counted from 0, or `difference`; may be left out where there is one.
        name: what to call the model in errors.

    Raises:
        ConfigError: several outputs and none chosen, or one that does not exist.
        ModelError: the head is no matrix of floating-point numbers, or not finite.
    """
    names = [known.weight, *([known.bias] if known.bias in index else [])]
    check_types({one: index[one] for one in names}, name)
    shape = index[known.weight].shape
    if len(shape) != 2:
        raise ModelError(f"{name}: {known.weight} is {list(shape)}, not [outputs, hidden size]")
    stored = load_tensors(index, names)
    weight = stored[known.weight].double().numpy()
    bias = stored[known.bias].double().numpy() if known.bias in stored else np.zeros(len(weight))
    # the difference of two rows in float64, rounded to float32 once
    rows = _combination(output, len(weight), config, name)
    return StateHead((rows @ weight).astype(np.float32), float(rows @ bias))


def _combination(output: int | str | None, outputs: int, config: ClassifierConfig, name: str) -> Any:
    """[O] how much of each output the reward is."""
    labels = config.trunk.get("id2label")
    names = list(map(str, labels.values())) if isinstance(labels, dict) else []
    named = f" ({', '.join(names)})" if len(names) == outputs > 1 else ""
    said = f"{name} has {outputs} output{'s' if outputs > 1 else ''}{named}"
    ways = ", ".join(f"--output {number}" for number in range(min(outputs, 3)))
    hint = ways + (" or --output difference, the second minus the first" if outputs == 2 else "")
    if output is None and outputs != 1:
        raise ConfigError(f"{said}, and which of them is the reward is not said", hint=hint)
    if output == DIFFERENCE and outputs == 2:
        return np.array([-1.0, 1.0])
    text = "0" if output is None else str(output)
    if not text.isdecimal() or int(text) >= outputs:
        raise ConfigError(f"{said}, there is no output {output}", hint=hint)
    return np.eye(outputs)[int(text)]


def stored_dtype(index: Mapping[str, TensorEntry]) -> torch.dtype:
    """The type most of a trunk's numbers are stored as, float32 for float64."""
    sizes: Counter[str] = Counter()
    for entry in index.values():
        sizes[entry.dtype] += int(np.prod(entry.shape))
    return _TYPES.get(sizes.most_common(1)[0][0], torch.float32)


def _trunk_config(
    config: ClassifierConfig, index: Mapping[str, TensorEntry], name: str
) -> "PretrainedConfig":
    """All layers, and the vocabulary that is stored."""
    # a layer has several tensors; refused before a skeleton of that many layers is built
    if config.source_layer > len(index):
        raise ModelError(
            f"{name}: config.json asks for {config.source_layer} layers, its files hold {len(index)} tensors"
        )
    raw = dict(config.trunk)
    embedding = next((key for key in index if key.endswith(_EMBEDDINGS)), None)
    # the stored embedding decides, not config.json, where tokens added in training are not always counted
    if embedding is not None and "text_config" not in raw:
        raw["vocab_size"] = index[embedding].shape[0]
    return trunk_config(raw, config.source_layer, name)


def _expected(cut: "PretrainedConfig", name: str) -> dict[str, tuple[int, ...]]:
    from transformers import AutoModel

    with torch.device("meta"), quiet_transformers(), from_checkpoint(name):
        skeleton = AutoModel.from_config(cut)
        # on a second skeleton: `Trunk` takes the final norm away, whose tensors are expected in the files
        Trunk(AutoModel.from_config(cut))  # refuses what is no decoder
    prefix = f"{skeleton.base_model_prefix}."
    return {prefix + key: tuple(value.shape) for key, value in skeleton.state_dict().items()}


def _template(
    folder: Path,
    known: KnownHead,
    pooling: Pooling,
    config: ClassifierConfig,
    asked: Asked,
    context: int | None,
) -> ChatTemplate:
    tokenizer = load_tokenizer(str(folder), local_files_only=True)
    if not tokenizer.chat_template and known.template is not None:
        tokenizer.chat_template = known.template
    append = getattr(tokenizer, known.append) if known.append and pooling.whole else None
    return ChatTemplate(
        tokenizer,
        max_length=asked.max_length or context,
        date=config.template_date if asked.template_date is None else asked.template_date,
        ends=configured_ends(config.trunk),
        whole=pooling.whole,
        append=append or "",
    )


def _resolved(pooling: Pooling, template: ChatTemplate, config: ClassifierConfig, name: str) -> Pooling:
    """The rule with the id it looks for."""
    if pooling.rule == "end_of_turn":
        return Pooling("end_of_turn", template.end_of_turn_id)
    if pooling.rule != "last_not_pad":
        return pooling
    pads = distinct_ids([config.trunk.get("pad_token_id")])
    if not pads:
        raise ConfigError(
            f"{name}: config.json names no pad token, so last_not_pad is last_token",
            hint="--pooling last_token",
        )
    return Pooling("last_not_pad", pads[0])
