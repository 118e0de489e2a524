"""PPO for language models in one file: torch and transformers, and nothing else.

Read it from top to bottom. A step samples answers, rewards them, keeps the log-probabilities that the policy
had when it sampled, turns rewards into advantages, and takes a few clipped gradient steps. `sarm train` does
the same with more policies, controls and speed; a test holds the two equal, step by step, to 1e-5.

    python examples/minimal_ppo.py                          # the small policy that sarm-control ships
    python examples/minimal_ppo.py --model FOLDER_OR_HUB_ID # any chat model small enough to train here

The reward is highest for answers of about `--words` words, so the policy learns to be brief.

Shapes: `N` answers of a step, `T` tokens of the longest answer, `L` tokens of the longest prompt and answer.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Settings:
    """What a step does."""

    max_new_tokens: int = 24
    temperature: float = 1.0
    epochs: int = 2  # passes over the answers of a step
    minibatches: int = 2  # optimizer updates in a pass
    learning_rate: float = 3e-4
    value_learning_rate: float = 1e-2
    kl_coef: float = 0.05  # penalty for each nat of distance from the reference
    missing_end: float = 1.0  # taken off an answer that was cut at max_new_tokens
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_coef: float = 0.1
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class Experience:
    """What one step learns from. Tensors are [N, T], 0 where an answer has ended."""

    sequences: list[list[int]]  # [N] prompt and answer
    starts: list[int]  # [N] where the answer begins
    mask: Tensor  # true on answer tokens
    scores: Tensor  # [N] reward of each answer
    logprobs: Tensor  # of the policy that sampled
    reference: Tensor  # of the frozen reference
    values: Tensor
    advantages: Tensor
    returns: Tensor


class ValueHead(nn.Module):
    """A linear value of the policy's last hidden state; 0 everywhere at first, so it starts out harmless."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] states to [...] values."""
        features = nn.functional.layer_norm(hidden, hidden.shape[-1:])
        return (features * self.weight).sum(-1) + self.bias


class MinimalPPO:
    """A policy, its frozen reference, a value head and their optimizer.

    Args:
        model: a causal language model; every weight is trained.
        end: the token that ends an answer.
        reward: answers as token ids to one number each.
        settings: what a step does.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        end: int,
        reward: Callable[[list[list[int]]], list[float]],
        settings: Settings,
    ) -> None:
        self.model = model.eval()  # Dropout stays off: sampling and training must agree on probabilities.
        self.reference = copy.deepcopy(model).requires_grad_(False)
        self.value_head = ValueHead(model.config.hidden_size)
        self.end, self.reward, self.settings = end, reward, settings
        groups = [
            {"params": list(self.model.parameters()), "lr": settings.learning_rate},
            {"params": list(self.value_head.parameters()), "lr": settings.value_learning_rate},
        ]
        # eps 1e-5 rather than 1e-8: tiny second moments would make early steps huge.
        self.optimizer = torch.optim.AdamW(groups, eps=1e-5, weight_decay=0.0)

    # --- 1. the answers ---------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, prompts: list[list[int]], noise: Tensor) -> list[list[int]]:
        """Answers drawn from softmax(logits / temperature), whatever the checkpoint's generation config says.

        Each token is the place where a uniform number falls in the distribution function, so that the
        answers are a function of `noise` [N, max_new_tokens]. A key-value cache would be faster.
        """
        answers: list[list[int]] = [[] for _ in prompts]
        going = list(range(len(prompts)))
        for step in range(self.settings.max_new_tokens):
            sequences = [prompts[row] + answers[row] for row in going]
            last = torch.tensor([len(sequence) - 1 for sequence in sequences])
            logits = self.model(pad(sequences)).logits[torch.arange(len(going)), last]
            cumulative = torch.softmax(logits / self.settings.temperature, dim=-1).double().cumsum(-1)
            points = noise[going, step, None] * cumulative[:, -1:]
            tokens = torch.searchsorted(cumulative, points, right=True)[:, 0]
            for row, token in zip(going, tokens.tolist(), strict=True):
                answers[row].append(token)
            going = [row for row in going if answers[row][-1] != self.end]
            if not going:
                break
        return answers

    # --- 2. what the models say about them ---------------------------------------------------------

    def say(self, model: nn.Module, sequences: list[list[int]], starts: list[int]) -> tuple[Tensor, Tensor]:
        """Log-probability and value [N, T] of every answer token; the state before a token chooses it."""
        output = model(pad(sequences), output_hidden_states=True)
        lengths = [len(sequence) - start for sequence, start in zip(sequences, starts, strict=True)]
        steps = torch.arange(max(lengths))[None, :].minimum(torch.tensor(lengths)[:, None] - 1)
        places = torch.tensor(starts)[:, None] - 1 + steps
        rows = torch.arange(len(sequences))[:, None]
        logprobs = torch.log_softmax(output.logits[rows, places] / self.settings.temperature, dim=-1)
        tokens = pad(sequences)[rows, places + 1]
        values = self.value_head(output.hidden_states[-1][rows, places])
        return logprobs.gather(-1, tokens[..., None])[..., 0], values

    # --- 3. rewards and advantages -----------------------------------------------------------------

    @torch.no_grad()
    def experience(self, prompts: list[list[int]], noise: Tensor) -> Experience:
        """Samples and rewards answers, and computes how much better each token was than expected."""
        settings = self.settings
        answers = self.sample(prompts, noise)
        ended = torch.tensor([answer[-1] == self.end for answer in answers])
        scores = torch.tensor(self.reward(answers)) - settings.missing_end * ~ended
        sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        starts = [len(prompt) for prompt in prompts]
        # Masks come from lengths: a pad token may well be a word, or the end.
        lengths = torch.tensor([len(answer) for answer in answers])
        mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        logprobs, values = (x * mask for x in self.say(self.model, sequences, starts))
        reference = self.say(self.reference, sequences, starts)[0] * mask

        rewards = -settings.kl_coef * (logprobs - reference)  # a penalty on every token
        rewards[torch.arange(len(prompts)), lengths - 1] += scores  # the last one gets the score
        advantages = gae(rewards, values, mask, settings.gamma, settings.lam)
        returns = advantages + values
        return Experience(
            sequences, starts, mask, scores, logprobs, reference, values, whiten(advantages, mask), returns
        )

    # --- 4. the update -----------------------------------------------------------------------------

    def step(
        self,
        prompts: list[list[int]],
        noise: Tensor,
        split: Callable[[int], list[list[int]]] | None = None,
    ) -> dict[str, float]:
        """One step on N prompts; `split(epoch)` names the answers of each minibatch."""
        settings, batch = self.settings, self.experience(prompts, noise)
        sums = {"policy/loss": 0.0, "value/loss": 0.0}
        tokens = 0
        for epoch in range(settings.epochs):
            for rows in split(epoch) if split else self._shuffled(len(prompts)):
                policy_loss, value_loss = self.losses(batch, rows)
                count = int(batch.mask[rows].sum())
                self.optimizer.zero_grad()
                ((policy_loss + settings.value_coef * value_loss) / count).backward()
                # Clipped apart, so that a surprised critic does not hold the policy back.
                for part in (self.model, self.value_head):
                    nn.utils.clip_grad_norm_(part.parameters(), settings.max_grad_norm)
                self.optimizer.step()
                sums["policy/loss"] += float(policy_loss.detach())
                sums["value/loss"] += float(value_loss.detach())
                tokens += count
        kl = float((batch.logprobs - batch.reference).sum()) / len(prompts)
        length = float(batch.mask.sum()) / len(prompts)
        means = {"reward": float(batch.scores.mean()), "objective/kl": kl, "answers/length": length}
        return {**means, **{name: total / tokens for name, total in sums.items()}}

    def losses(self, batch: Experience, rows: list[int]) -> tuple[Tensor, Tensor]:
        """The clipped policy loss and the clipped value loss of some answers, summed over their tokens."""
        settings = self.settings
        new, values = self.say(
            self.model, [batch.sequences[row] for row in rows], [batch.starts[row] for row in rows]
        )
        mask = batch.mask[rows][:, : new.shape[1]]
        old, advantages, old_values, returns = (
            table[rows][:, : new.shape[1]]
            for table in (batch.logprobs, batch.advantages, batch.values, batch.returns)
        )
        ratio = (new - old).exp()
        free, held = -advantages * ratio, -advantages * ratio.clamp(1 - settings.clip, 1 + settings.clip)
        policy_loss = torch.maximum(free, held)[mask].sum()
        near = old_values + (values - old_values).clamp(-settings.value_clip, settings.value_clip)
        errors = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
        return policy_loss, 0.5 * errors[mask].sum()

    def _shuffled(self, count: int) -> list[list[int]]:
        order = torch.randperm(count).tolist()
        return [order[start :: self.settings.minibatches] for start in range(self.settings.minibatches)]


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimation, backwards over the answer; after its end the value is 0."""
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = (delta + gamma * lam * next_advantage) * mask[:, t]
        advantages[:, t], next_value = next_advantage, values[:, t]
    return advantages


def whiten(advantages: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and SD 1 over all answer tokens of the step at once."""
    chosen = advantages[mask]
    return (advantages - chosen.mean()) * torch.rsqrt(chosen.var(unbiased=False) + 1e-8) * mask


def pad(sequences: list[list[int]]) -> Tensor:
    """[N, L] ids, padded on the right: a causal model never looks there, so any id will do."""
    width = max(map(len, sequences))
    return torch.tensor([sequence + [0] * (width - len(sequence)) for sequence in sequences])


def main() -> None:
    """Trains a small policy to be brief and prints what it learns."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description="PPO in one file", allow_abbrev=False)
    parser.add_argument("--model", help="a chat model; the default ships with sarm-control")
    parser.add_argument("--words", type=int, default=6, help="words of the answers with the highest reward")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--answers", type=int, default=32, help="answers of a step")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.model is None:
        from sarm_control.embedded import model_folder

        options.model = model_folder("lab", "policy")

    torch.manual_seed(options.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    questions = ("how do i brew tea ?", "how do i paint a wall ?", "what is the size of the garden ?")
    texts = [questions[row % len(questions)] for row in range(options.answers)]
    turns = [[{"role": "user", "content": text}] for text in texts]
    prompts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"] for turn in turns]

    def text_of(answer: list[int]) -> str:
        return str(tokenizer.decode(answer, skip_special_tokens=True)).strip()

    def brevity(answers: list[list[int]]) -> list[float]:
        return [-abs(len(text_of(answer).split()) - options.words) / options.words for answer in answers]

    settings = Settings()
    ppo = MinimalPPO(model, tokenizer.eos_token_id, brevity, settings)
    for step in range(1, options.steps + 1):
        noise = torch.rand(len(prompts), settings.max_new_tokens, dtype=torch.float64)
        found = ppo.step(prompts, noise)
        print(f"step {step:3d}  " + "  ".join(f"{name} {value:7.3f}" for name, value in found.items()))
    for question, answer in zip(questions, ppo.sample(prompts[:3], noise[:3]), strict=True):
        print(f"\n> {question}\n  {text_of(answer)}")


if __name__ == "__main__":
    main()
