"""A policy over four tokens whose every answer can be listed, and rewards for it."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sarm_control.control.training_reward import RewardBreakdown
from sarm_control.conversation import ChatTemplate
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import SparseLatents
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import PromptRow, Rollout

END = 0
WORDS = ("a", "b", "c")
PROMPTS = (PromptRow("a b", (1, 2), "prompts.jsonl:1"), PromptRow("c", (3,), "prompts.jsonl:2"))


def template() -> ChatTemplate:
    """Tokens: the end of turn and three words."""
    vocabulary = {word: number for number, word in enumerate(["<|end|>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|end|>",
        chat_template="{% for m in messages %}{{ m['content'] }} <|end|> {% endfor %}",
    )
    # The template's own probe answer is a word outside this vocabulary, which reads as "a".
    return ChatTemplate(tokenizer)


def tiny_model(seed: int = 0, *, vocabulary: int = 4) -> LlamaForCausalLM:
    """A decoder of one layer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.1,
        eos_token_id=END,
        pad_token_id=END,
    )
    return LlamaForCausalLM(config)


def tiny_policy(seed: int = 0) -> Policy:
    """Every weight is trained."""
    return Policy(tiny_model(seed), template(), reference=tiny_model(seed))


def all_answers(max_new_tokens: int, prompt: PromptRow = PROMPTS[0]) -> Rollout:
    """Every answer that sampling can give: words up to an end, or words up to the limit."""
    answers = []
    for length in range(max_new_tokens + 1):
        for words in itertools.product(range(1, 1 + len(WORDS)), repeat=length):
            answers.append(words if length == max_new_tokens else (*words, END))
    texts = tuple(" ".join(WORDS[token - 1] for token in answer if token != END) for answer in answers)
    ended = tuple(answer[-1] == END for answer in answers)
    return Rollout((prompt,) * len(answers), tuple(answers), texts, ended)


@torch.no_grad()
def answer_logprobs(policy: Policy, rollout: Rollout, *, reference: bool = False) -> Tensor:
    """[N] float64 log-probability of each whole answer."""
    batch = policy.batch([row.ids for row in rollout.prompts], rollout.answers)
    tokens = policy.answer_stats(batch, 1.0, reference=reference).logprobs.double()
    return torch.zeros(len(rollout), dtype=torch.float64).index_add_(0, batch.rows, tokens)


@dataclass
class TableReward:
    """An arbitrary reward of each answer: a number looked up by its token ids."""

    table: Mapping[tuple[int, ...], float]
    offset: float = 0.0
    centre: float = 0.0

    def calibrate(self, rollout: Rollout) -> None:
        """The mean of the reference policy's rewards, which is taken off all later ones."""
        self.centre = float(np.mean(self._raw(rollout)))

    def score(self, rollout: Rollout) -> RewardBreakdown:
        """Rewards less the frozen mean."""
        raw = self._raw(rollout)
        return RewardBreakdown(raw - self.centre, {"reward/model": raw, "reward/total": raw})

    def learn(self, rewards: RewardBreakdown) -> None:
        """Nothing learns."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Nothing learns."""
        return {}

    def state(self) -> dict[str, Any]:
        """The frozen mean."""
        return {"centre": self.centre}

    def load_state(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Takes the frozen mean."""
        assert not tensors
        self.centre = state["centre"]

    def _raw(self, rollout: Rollout) -> np.ndarray:
        return np.array([self.table[answer] for answer in rollout.answers]) + self.offset


def random_table(max_new_tokens: int, seed: int = 0) -> dict[tuple[int, ...], float]:
    """Standard normal rewards, in steps of 1/1024 so that sums with round offsets are exact."""
    rewards = np.random.default_rng(seed).normal(size=len(all_answers(max_new_tokens)))
    return dict(zip(all_answers(max_new_tokens).answers, np.round(rewards * 1024) / 1024, strict=True))


class TableSarm:
    """A reward model with six latents whose values are looked up by an answer's text."""

    config = SimpleNamespace(latents=6)
    fingerprint = "table"
    kind = "sarm"

    def __init__(self, max_new_tokens: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        listed = all_answers(max_new_tokens)
        active = rng.random((len(listed), 6)) < 0.5
        values = np.where(active, rng.exponential(size=(len(listed), 6)), 0.0).astype(np.float32)
        keys = zip(listed.texts, listed.ended, strict=True)
        self.rows = dict(zip(keys, values, strict=True))
        self.head = rng.normal(size=6).astype(np.float32)

    def score(self, prompts: Any, texts: Any, *, ended: Any, on_nonfinite: str = "raise") -> Scored:  # noqa: ARG002
        """Latents by text; the reward is linear in them as in any SARM."""
        dense = np.stack([self.rows[key] for key in zip(texts, ended, strict=True)])
        pairs = [(np.flatnonzero(row), row[np.flatnonzero(row)]) for row in dense]
        latents = SparseLatents.from_rows(pairs, 6)
        lengths = np.array([len(text.split()) for text in texts], dtype=np.int64)
        return Scored(
            rewards=latents.dot(self.head),
            latents=latents,
            head=self.head,
            truncated=np.zeros(len(prompts), dtype=np.int64),
            ended=np.array(ended),
            lengths=lengths,
            fingerprint=self.fingerprint,
        )
