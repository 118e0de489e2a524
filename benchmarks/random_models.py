"""Models of real shapes with random weights, for benchmarks: speed does not depend on what weights say.

Answers of a random policy are uniform over its words, so they practically never end early.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedModel

from sarm_control.conversation import ChatTemplate
from sarm_control.lab.language.tokenizer import make_tokenizer
from sarm_control.reward_model import Autoencoder, LinearHead, RewardModel, SarmConfig
from sarm_control.reward_model.trunk.trunk import Trunk
from sarm_control.training.config.run_config import LoraConfig
from sarm_control.training.policy.lora import add_adapters
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import PromptRow, encode_prompts

# special tokens and roles of the tokenizer
_NAMED = 9


@dataclass(frozen=True)
class Shape:
    """A Llama and the SARM over its first layers."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool
    source_layer: int
    latents: int
    k: int

    def config(self, layers: int | None = None) -> LlamaConfig:
        """The configuration of a Llama of this shape, of fewer layers if asked for."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=layers or self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=8192,
            tie_word_embeddings=self.tied,
            pad_token_id=None,
        )


SHAPES = {
    "tiny": Shape(512, 32, 64, 2, 2, 1, True, 1, 128, 8),
    "smollm2": Shape(49152, 576, 1536, 30, 9, 3, True, 15, 4096, 32),
    "llama-8b": Shape(128256, 4096, 14336, 32, 32, 8, False, 16, 65536, 192),
}


def make_template(shape: Shape) -> ChatTemplate:
    """One token a word, with a chat template in the style of Llama 3."""
    return ChatTemplate(make_tokenizer([f"w{i}" for i in range(shape.vocabulary - _NAMED)]))


def make_policy(shape: Shape, *, rank: int, half: bool, device: str) -> Policy:
    """A policy with LoRA, in bfloat16 or float32."""
    model = _random(LlamaForCausalLM, shape.config(), half, device)
    model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
    adapted = add_adapters(model, LoraConfig(rank=rank), 0)
    return Policy(adapted, make_template(shape), autocast=half)


def make_reward_model(shape: Shape, *, half: bool, device: str) -> RewardModel:
    """A SARM over the first layers of the shape; its autoencoder and head are float32."""
    config = shape.config(shape.source_layer)
    trunk = Trunk(_random(LlamaModel, config, half, device))
    with torch.device(device):
        autoencoder = Autoencoder(shape.width, shape.latents, shape.k)
    head = LinearHead(np.random.default_rng(0).normal(size=shape.latents).astype(np.float32))
    kind = SarmConfig(shape.source_layer, shape.latents, shape.k, use_topk=True, trunk=config.to_dict())
    return RewardModel(kind, trunk, autoencoder, head, make_template(shape))


def make_prompts(policy: Policy, count: int, tokens: int, max_new_tokens: int) -> Sequence[PromptRow]:
    """Prompts of exactly that many tokens, the template's own included."""
    rng = np.random.default_rng(0)
    frame = len(policy.template.encode_prompt("w1")) - 1
    if tokens <= frame:
        raise SystemExit(f"the template alone has {frame} tokens: ask for prompts of more than that")
    size = len(policy.template.tokenizer) - _NAMED
    prompts = [" ".join(f"w{i}" for i in rng.integers(size, size=tokens - frame)) for _ in range(count)]
    return encode_prompts(policy, prompts, [f"prompt {i}" for i in range(count)], max_new_tokens)


_Model = TypeVar("_Model", bound=PreTrainedModel)


def _random(kind: type[_Model], config: LlamaConfig, half: bool, device: str) -> _Model:
    """Weights are made where they will lie, in the type they will have."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if half else torch.float32)
    torch.manual_seed(0)
    try:
        with torch.device(device):
            return kind(config)
    finally:
        torch.set_default_dtype(before)
