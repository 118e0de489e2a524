"""Writing a SARM in the layout of the release: one folder, safetensors, the tokenizer beside it.

A reward model with a head of its own is written as the classifier that transformers loads too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarm_control.files import atomic_folder
from sarm_control.reward_model.autoencoder import Autoencoder
from sarm_control.reward_model.files.classifier_config import STORED, ClassifierConfig
from sarm_control.reward_model.files.config import FORMAT_VERSION, SarmConfig
from sarm_control.reward_model.head import LinearHead
from sarm_control.reward_model.state_head import StateHead
from sarm_control.reward_model.trunk.trunk import Trunk

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def save_sarm(
    folder: Path,
    *,
    config: SarmConfig,
    trunk: Trunk,
    autoencoder: Autoencoder,
    head: LinearHead,
    tokenizer: "PreTrainedTokenizerBase",
    overwrite: bool = False,
) -> Path:
    """Writes `folder` whole or not at all and returns it.

    Raises:
        OutputError: the folder exists already or cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    prefix = f"{trunk.model.base_model_prefix}."
    tensors = {prefix + key: value for key, value in trunk.model.state_dict().items()}
    tensors |= {f"sae.{key}": value for key, value in autoencoder.state_dict().items()}
    tensors["score.weight"] = torch.from_numpy(head.weight)[None]
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        # Tied or sliced tensors share storage, which safetensors refuses: each gets its own.
        own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        # versions of transformers 4 refuse a file without this mark
        save_file(own, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(_config_json(config, trunk), encoding="utf-8")
        tokenizer.save_pretrained(temporary)
    return folder


def save_classifier(
    folder: Path,
    *,
    config: ClassifierConfig,
    trunk: Trunk,
    head: StateHead,
    head_name: str,
    tokenizer: "PreTrainedTokenizerBase",
    overwrite: bool = False,
) -> Path:
    """Writes a classifier with one output, whole or not at all; returns the folder.

    Args:
        folder: to write.
        config: with the pooling rule that is kept beside it.
        trunk: all layers and the final norm.
        head: its own head.
        head_name: what the head's tensors are called, before `.weight`.
        tokenizer: with its chat template.
        overwrite: replace the folder if it exists.

    Raises:
        OutputError: the folder exists already or cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    model, kind = trunk.model, next(trunk.model.parameters()).dtype
    prefix = f"{model.base_model_prefix}."
    tensors = {prefix + key: value for key, value in model.state_dict().items()}
    norm = {} if trunk.final_norm is None else trunk.final_norm.state_dict()
    tensors |= {f"{prefix}{trunk.norm_name}.{key}": _in(value, kind) for key, value in norm.items()}
    tensors[f"{head_name}.weight"] = _in(torch.from_numpy(head.weight)[None], kind)
    if head.bias:
        # float64, as it is kept: rounded, it would move every reward of the model that is loaded again
        tensors[f"{head_name}.bias"] = torch.tensor([head.bias], dtype=torch.float64)
    settled = _settled(trunk, config.trunk)
    settled["architectures"] = config.trunk.get("architectures")
    settled |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    day = config.template_date
    kept = {"pooling": config.pooling, "template_date": None if day is None else day.isoformat()}
    settled[STORED] = {key: value for key, value in kept.items() if value is not None}
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        save_file(own, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(_as_json(settled), encoding="utf-8")
        tokenizer.save_pretrained(temporary)
    return folder


def _in(value: "Tensor", kind: "torch.dtype") -> "Tensor":
    """The trunk's type where nothing is lost by it."""
    rounded = value.to(kind)
    return rounded if bool((rounded.to(value.dtype) == value).all()) else value


def _config_json(config: SarmConfig, trunk: Trunk) -> str:
    settled = _settled(trunk, config.trunk)
    model_type = str(settled.get("model_type", "decoder"))
    settled["architectures"] = [f"{model_type.split('_')[0].capitalize()}SARM"]
    settled["sarm_param"] = config.sarm_param()
    settled["sarm_control_format"] = FORMAT_VERSION
    return _as_json(settled)


def _settled(trunk: Trunk, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration transformers settled on, not the one that was read.

    Vocabulary and number of layers are those of the tensors written.
    """
    # use_diff=False writes defaults as well, which may be others in another version of transformers
    settled = json.loads(trunk.model.config.to_json_string(use_diff=False))
    # `_name_or_path` and its like say where the trunk lay on one machine.
    settled = {key: value for key, value in settled.items() if not key.startswith("_")}
    # transformers heeds it in a configuration it reads and leaves it out of those it writes.
    if "attn_implementation" in raw:
        settled["attn_implementation"] = raw["attn_implementation"]
    return settled


def _as_json(settled: Mapping[str, Any]) -> str:
    return json.dumps(settled, indent=2, sort_keys=True) + "\n"
