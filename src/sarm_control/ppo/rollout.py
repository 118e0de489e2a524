"""Sampling answers from a policy: plain sampling, the same answers for the same seed.

Every answer has random numbers of its own, derived from (seed, purpose, row), so it does not depend
on the rows it shares a batch with. Prompts are padded on the left; masks come from lengths. Whatever
the checkpoint's generation config says, tokens are drawn from `softmax(logits / temperature)`.

Shapes: `P` prompts, `N` answers, `T` tokens of the longest prompt, `V` vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sarm_control.conversation import Prompt
from sarm_control.errors import DataError
from sarm_control.ppo.policy import Policy
from sarm_control.seeds import torch_generator


@dataclass(frozen=True)
class PromptRow:
    """A prompt ready for the policy.

    Args:
        prompt: as it was written.
        ids: its tokens with the header of the answer.
        where: its place, as messages name it: `prompts.jsonl:17`.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    where: str


@dataclass(frozen=True)
class Rollout:
    """N answers of a policy.

    Args:
        prompts: [N] the prompt of each answer.
        answers: [N] generated ids, the end-of-turn included where there is one; never empty.
        texts: [N] the answers as text.
        ended: [N] false where an answer hit the length limit.
    """

    prompts: tuple[PromptRow, ...]
    answers: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    ended: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def lengths(self) -> list[int]:
        """[N] tokens the policy chose, the end-of-turn included."""
        return [len(answer) for answer in self.answers]


def encode_prompts(
    policy: Policy, prompts: Sequence[Prompt], where: Sequence[str], room: int
) -> list[PromptRow]:
    """Prompts as token ids, checked against the policy's context.

    Args:
        policy: whose template and context are used.
        prompts: texts or messages.
        where: the place of each, for messages.
        room: tokens an answer may have.

    Raises:
        DataError: `file:line` of a prompt that leaves no room for an answer.
    """
    rows = []
    for prompt, place in zip(prompts, where, strict=True):
        ids = tuple(policy.template.encode_prompt(prompt))
        if policy.context is not None and len(ids) + room > policy.context:
            raise DataError(
                f"{place}: the prompt has {len(ids)} tokens; with {room} for the answer "
                f"it is longer than the policy's context of {policy.context}",
                hint="shorten the prompt or lower training.max_new_tokens",
            )
        rows.append(PromptRow(prompt, ids, place))
    return rows


def sample_answers(
    policy: Policy,
    prompts: Sequence[PromptRow],
    *,
    answers_per_prompt: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    purpose: Sequence[int | str],
    reference: bool = False,
    batch_answers: int = 64,
) -> Rollout:
    """Samples answers; row `p * answers_per_prompt + i` is answer i to prompt p.

    Args:
        policy: the model; its adapters, dropout and generation config are left as they are.
        prompts: the prompts.
        answers_per_prompt: answers to each.
        max_new_tokens: longest answer, the end-of-turn included.
        temperature: divides the logits, > 0.
        seed: the run's seed.
        purpose: what the randomness is for, such as `(step, "rollout")`.
        reference: sample from the frozen reference instead.
        batch_answers: most answers decoded together; the randomness of an answer does not depend on it.
    """
    uniforms = [
        torch.rand(max_new_tokens, generator=torch_generator(seed, *purpose, row), dtype=torch.float64)
        for row in range(len(prompts) * answers_per_prompt)
    ]
    group = max(1, batch_answers // answers_per_prompt)
    answers: list[tuple[int, ...]] = []
    for start in range(0, len(prompts), group):
        ids = [row.ids for row in prompts[start : start + group]]
        rows = slice(start * answers_per_prompt, (start + len(ids)) * answers_per_prompt)
        answers += _decode(policy, ids, torch.stack(uniforms[rows]), temperature, reference)
    end = policy.template.end_of_turn_id
    return Rollout(
        prompts=tuple(row for row in prompts for _ in range(answers_per_prompt)),
        answers=tuple(answers),
        texts=tuple(policy.template.decode_answer(answer) for answer in answers),
        ended=tuple(answer[-1] == end for answer in answers),
    )


def _decode(
    policy: Policy, prompts: Sequence[Sequence[int]], uniforms: Tensor, temperature: float, reference: bool
) -> list[tuple[int, ...]]:
    with policy.rounded_weights():
        return _decode_rows(policy, prompts, uniforms, temperature, reference)


def _decode_rows(
    policy: Policy, prompts: Sequence[Sequence[int]], uniforms: Tensor, temperature: float, reference: bool
) -> list[tuple[int, ...]]:
    """Answers row by row; a row leaves the batch when it ends. `uniforms` is [N, max_new_tokens]."""
    from transformers import DynamicCache

    repeats = len(uniforms) // len(prompts)
    inputs = _left_padded(prompts, policy.device)
    cache = DynamicCache(config=policy.causal.config)
    output = policy.states(reference=reference, past_key_values=cache, use_cache=True, **inputs)
    cache.batch_repeat_interleave(repeats)
    hidden = output.last_hidden_state[:, -1].repeat_interleave(repeats, dim=0)
    mask = inputs["attention_mask"].repeat_interleave(repeats, dim=0)

    answers: list[list[int]] = [[] for _ in range(len(uniforms))]
    active = torch.arange(len(uniforms))
    for step in range(uniforms.shape[1]):
        tokens = draw(policy.logits(hidden, reference=reference), temperature, uniforms[active, step])
        for row, token in zip(active.tolist(), tokens.tolist(), strict=True):
            answers[row].append(token)
        going = (tokens != policy.template.end_of_turn_id).cpu()
        if step + 1 == uniforms.shape[1] or not going.any():
            break
        if not going.all():
            kept = going.nonzero()[:, 0].to(policy.device)
            cache.batch_select_indices(kept)
            active, tokens, mask = active[going], tokens[kept], mask[kept]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        output = policy.states(
            reference=reference,
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=mask.sum(dim=1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        )
        hidden = output.last_hidden_state[:, -1]
    return [tuple(answer) for answer in answers]


def draw(logits: Tensor, temperature: float, uniforms: Tensor) -> Tensor:
    """[N] tokens from `softmax(logits / temperature)` by inverting its distribution function.

    Args:
        logits: [N, V].
        temperature: > 0.
        uniforms: [N] float64 in [0, 1), one for each row.
    """
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).double().cumsum(dim=-1)
    points = uniforms.to(logits.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, points, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def _left_padded(prompts: Sequence[Sequence[int]], device: Any) -> dict[str, Tensor]:
    lengths = torch.tensor([len(ids) for ids in prompts])
    width = int(lengths.max())
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    columns = torch.arange(width)[None, :] - (width - lengths[:, None])
    inputs = {
        "input_ids": ids,
        "attention_mask": (columns >= 0).long(),
        "position_ids": columns.clamp(min=0),
    }
    return {name: tensor.to(device) for name, tensor in inputs.items()}
