"""Tiny sequence classifiers, saved by transformers itself, and what transformers says of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from sarm_control.conversation import Encoded
from tests.conftest import LLAMA_3_STYLE, SPECIAL, WORDS

VOCABULARY = len(SPECIAL) + len(WORDS) + 1
PAD, END = 4, 3
NEWLINE = VOCABULARY - 1
CHATML_STYLE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}<|stop|> {{ message['content'] }}<|end|> "
    "<newline> {% endfor %}{% if add_generation_prompt %}<|start|>assistant<|stop|> {% endif %}"
)
"""A template that ends in a newline behind the end of turn, written as a word of its own."""

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": PAD,
    "num_labels": 1,
}
_SHARED = {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS: dict[str, Any] = {
    "llama": lambda **more: LlamaConfig(**{**_SIZES, **_SHARED, **more}),
    "qwen2": lambda **more: Qwen2Config(**{**_SIZES, "num_key_value_heads": 2, **more}),
    "qwen3": lambda **more: Qwen3Config(**{**_SIZES, **_SHARED, **more}),
    "mistral": lambda **more: MistralConfig(**{**_SIZES, **_SHARED, "sliding_window": 6, **more}),
    "gemma2": lambda **more: Gemma2Config(
        **{
            **_SIZES,
            **_SHARED,
            "sliding_window": 6,
            "attn_logit_softcapping": 2.0,
            "query_pre_attn_scalar": 8,
            **more,
        }
    ),
    "gemma3": lambda **more: Gemma3TextConfig(
        **{**_SIZES, **_SHARED, "sliding_window": 6, "query_pre_attn_scalar": 8, **more}
    ),
    "phi3": lambda **more: Phi3Config(**{**_SIZES, "num_key_value_heads": 2, **more}),
    "gpt_neox": lambda **more: GPTNeoXConfig(**{**_SIZES, **more}),
}


def make_tokenizer(template: str = LLAMA_3_STYLE, *, pad: str = "<|pad|>") -> PreTrainedTokenizerFast:
    """A word-level tokenizer, with a word for the newline that ChatML ends in."""
    words = [*SPECIAL, *WORDS, "<newline>"]
    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token=pad,
        unk_token="<unk>",
        additional_special_tokens=["<|start|>", "<|stop|>"],
        chat_template=template,
    )


def make_classifier(config: PretrainedConfig, *, seed: int = 0, bias: bool = False) -> Any:
    """A classifier with random weights, a norm that is not all ones, and a bias if asked."""
    torch.manual_seed(seed)
    with torch.random.fork_rng():
        # without it the oldest transformers takes sdpa for Gemma 2, which leaves its capping out
        capped = {"attn_implementation": "eager"} if getattr(config, "attn_logit_softcapping", None) else {}
        model = AutoModelForSequenceClassification.from_config(config, **capped).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, mean=1.0, std=0.3)
    if bias:
        outputs = model.score.out_features
        model.score = nn.Linear(config.hidden_size, outputs, bias=True)
        nn.init.normal_(model.score.bias, std=2.0)
    return model


def save(
    model: Any, folder: Path, *, tokenizer: PreTrainedTokenizerFast | None = None, shard: str = "5GB"
) -> Path:
    """The folder that transformers writes, and a tokenizer beside it."""
    model.save_pretrained(folder, max_shard_size=shard)
    (tokenizer or make_tokenizer()).save_pretrained(folder)
    return folder


def random_rows(count: int = 7, *, seed: int = 0, last: int = END) -> list[Encoded]:
    """Conversations of 5 to 30 random words; nobody's chat template matters for them."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for row in range(count):
        length = 5 + (row * 11) % 26
        words = torch.randint(len(SPECIAL), VOCABULARY, (length,), generator=generator).tolist()
        rows.append(Encoded([0, *words, last], 3, 0, True))
    return rows


@torch.no_grad()
def logits(model: Any, rows: Sequence[Encoded], *, side: str = "right", pad: int = PAD) -> torch.Tensor:
    """[N, outputs] what transformers' own class gives rows padded to one length."""
    longest = max(len(row.input_ids) for row in rows)
    ids, mask = [], []
    for row in rows:
        padding = longest - len(row.input_ids)
        padded = [pad] * padding
        ids.append([*row.input_ids, *padded] if side == "right" else [*padded, *row.input_ids])
        seen = [1] * len(row.input_ids)
        mask.append([*seen, *([0] * padding)] if side == "right" else [*([0] * padding), *seen])
    found: torch.Tensor = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits
    return found
