"""Pretraining of a tiny Llama on a world's demonstrations; it is the policy, and the base of the SARM."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.conversation import ChatTemplate, Encoded
from sarm_control.errors import TrainingError
from sarm_control.seeds import derive_seed, torch_generator

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

CONTEXT = 96


@dataclass(frozen=True)
class LanguageModelConfig:
    """Size and schedule of the language model.

    Args:
        layers: decoder layers.
        hidden: hidden size.
        epochs: passes over the demonstrations.
        batch: demonstrations of a step.
        learning_rate: of AdamW; linear warm-up over the first 5 %, cosine decay to 0.
    """

    layers: int = 3
    hidden: int = 96
    epochs: int = 8
    batch: int = 64
    learning_rate: float = 2e-3


def pretrain(
    template: ChatTemplate,
    demonstrations: Sequence[tuple[str, str]],
    config: LanguageModelConfig,
    *,
    seed: int,
    progress: ProgressFactory = no_progress,
) -> "LlamaForCausalLM":
    """Trains on the answers of (prompt, answer) pairs; float32, dropout off.

    `seed` decides the initial weights and the order.

    Raises:
        TrainingError: the loss is not finite.
    """
    rows = [template.encode(prompt, answer) for prompt, answer in demonstrations]
    model = _new_model(template, config, seed)
    steps = config.epochs * math.ceil(len(rows) / config.batch)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    done = 0
    with progress("Teaching the language", steps) as advance:
        for epoch in range(config.epochs):
            generator = torch_generator(seed, "demonstrations", epoch)
            for part in torch.randperm(len(rows), generator=generator).split(config.batch):
                loss = _loss(model, [rows[i] for i in part.tolist()], template.pad_id)
                if not torch.isfinite(loss):
                    raise TrainingError(f"the language model's loss is {loss.item()} at step {done}")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                done += 1
                advance(1, note=f"loss {loss.item():.3f}")
    model.eval()
    return model


def _new_model(template: ChatTemplate, config: LanguageModelConfig, seed: int) -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = LlamaConfig(
        vocab_size=len(template.tokenizer),
        hidden_size=config.hidden,
        intermediate_size=3 * config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=template.bos_id,
        eos_token_id=template.end_of_turn_id,
        pad_token_id=template.pad_id,
    )
    # so that building a world does not change what its caller draws next
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "language model weights"))
        return LlamaForCausalLM(settings)


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, steps // 20)
    return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))


def _loss(model: "LlamaForCausalLM", rows: Sequence[Encoded], pad: int) -> Tensor:
    """Mean cross-entropy of the answers' tokens, the end-of-turn included."""
    width = max(len(row.input_ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    # what cross_entropy leaves out: prompts and padding
    labels = torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        tokens = torch.tensor(row.input_ids)
        ids[i, : len(tokens)] = tokens
        labels[i, row.prompt_length : len(tokens)] = tokens[row.prompt_length :]
    # without a mask: padding is on the right, where causal attention does not look
    logits = model(input_ids=ids, use_cache=False).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
