"""Writing a SARM in the layout of the release: one folder, safetensors, the tokenizer beside it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sarm_control.files import atomic_folder
from sarm_control.reward_model.autoencoder import Autoencoder
from sarm_control.reward_model.files.config import FORMAT_VERSION, SarmConfig
from sarm_control.reward_model.head import LinearHead
from sarm_control.reward_model.trunk.trunk import Trunk

if TYPE_CHECKING:
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
        save_file(own, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(_config_json(config, trunk), encoding="utf-8")
        tokenizer.save_pretrained(temporary)
    return folder


def _config_json(config: SarmConfig, trunk: Trunk) -> str:
    # The configuration transformers settled on, not the one that was read: vocabulary and
    # number of layers are those of the tensors written.
    settled = json.loads(trunk.model.config.to_json_string(use_diff=False))
    # `_name_or_path` and its like say where the trunk lay on one machine.
    settled = {key: value for key, value in settled.items() if not key.startswith("_")}
    model_type = str(settled.get("model_type", "decoder"))
    settled["architectures"] = [f"{model_type.split('_')[0].capitalize()}SARM"]
    settled["sarm_param"] = config.sarm_param()
    settled["sarm_control_format"] = FORMAT_VERSION
    # transformers heeds it in a configuration it reads and leaves it out of those it writes.
    if "attn_implementation" in config.trunk:
        settled["attn_implementation"] = config.trunk["attn_implementation"]
    return json.dumps(settled, indent=2, sort_keys=True) + "\n"
