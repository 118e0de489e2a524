"""A tiny checkpoint in the exact shape of the released Llama-SARM-4B, written without our own writer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.conftest import SPECIAL, WORDS, make_tokenizer

LAYERS, HIDDEN, LATENTS, K = 2, 32, 64, 8
VOCABULARY = len(SPECIAL) + len(WORDS)

NEWER = {"sae_source_layer": LAYERS, "sarm_use_activation": True}
OLDER = {"sae_hidden_state_source_layer": LAYERS, "sarm_use_topk": True}
FOLDER_NAME = f"Llama_sequence_Latent{LATENTS}_Layer{LAYERS}_K{K}_1B-SARM-TopK-1"
SHAPE = {"sae_latent_size": LATENTS, "sae_k": K, "sae_use_sequence_level": True}


def config(spelling: Mapping[str, Any] | None) -> dict[str, Any]:
    """`config.json` as transformers 4.46 wrote it: nested `rope_scaling`, `torch_dtype`."""
    raw: dict[str, Any] = {
        "architectures": ["LlamaSARM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 3,
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "label2id": {"LABEL_0": 0},
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 4,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.3",
        "use_cache": False,
        # one less than the embedding has: the release added its pad token
        "vocab_size": VOCABULARY - 1,
    }
    return raw if spelling is None else {**raw, "sarm_param": {**SHAPE, **spelling}}


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights by the names of the release, the unused final norm among them."""
    made = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 0.2) -> torch.Tensor:
        return (scale * torch.randn(*shape, generator=made)).to(torch.bfloat16)

    found = {"model.embed_tokens.weight": normal(VOCABULARY, HIDDEN, scale=1.0)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name, shape in (("q", (32, 32)), ("k", (16, 32)), ("v", (16, 32)), ("o", (32, 32))):
            found[f"{at}.self_attn.{name}_proj.weight"] = normal(*shape)
        for name, shape in (("gate", (64, 32)), ("up", (64, 32)), ("down", (32, 64))):
            found[f"{at}.mlp.{name}_proj.weight"] = normal(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{name}.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
    found["model.norm.weight"] = torch.full((HIDDEN,), 9.0, dtype=torch.bfloat16)
    found |= {"sae.pre_bias": normal(HIDDEN), "sae.latent_bias": normal(LATENTS)}
    found |= {"sae.encoder.weight": normal(LATENTS, HIDDEN), "sae.decoder.weight": normal(HIDDEN, LATENTS)}
    return {**found, "score.weight": normal(1, LATENTS, scale=0.05)}


def write_shards(folder: Path, stored: Mapping[str, torch.Tensor], shards: int) -> dict[str, str]:
    """Writes `model-0000i-of-0000n.safetensors`; returns the file of each tensor."""
    names = list(stored)
    where: dict[str, str] = {}
    size = -(-len(names) // shards)
    for number in range(shards):
        part = names[number * size : (number + 1) * size]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: stored[name] for name in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    return where


def write_index(folder: Path, where: Mapping[str, Any]) -> None:
    """Writes `model.safetensors.index.json`."""
    index = {"metadata": {"total_size": 1}, "weight_map": dict(where)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def write(folder: Path, spelling: Mapping[str, Any] | None = NEWER, *, seed: int = 0) -> Path:
    """The whole checkpoint, in two shards with their index."""
    folder.mkdir(parents=True)
    write_index(folder, write_shards(folder, tensors(seed), 2))
    (folder / "config.json").write_text(json.dumps(config(spelling), indent=2))
    make_tokenizer().save_pretrained(folder)
    return folder
