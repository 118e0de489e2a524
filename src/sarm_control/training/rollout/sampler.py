"""The protocol of a sampler, and the sampler that decodes with a key-value cache.

A sampler returns token ids, and the log-probabilities it drew them with where it knows them. The training
forward pass computes those that the update needs in any case; the sampler's are compared with them to make
importance weights (`training.algorithm.importance_weights`).

Shapes: `P` prompts, `N = P * answers_per_prompt` answers, `T` tokens of the longest prompt, `V` vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sarm_control.errors import TrainingError
from sarm_control.training.policy.policy import Policy

# a log-probability that is rounded may lie a little above 0
_ROUNDING = 1e-4
_BLOCK = 256


@dataclass(frozen=True)
class SampleRequest:
    """A request for N answers.

    Args:
        prompts: [P] token ids, the answer's header included; never empty.
        answers_per_prompt: answers to each; row `p * answers_per_prompt + i` is answer i to prompt p.
        max_new_tokens: most tokens of an answer, the end-of-turn included.
        temperature: divides the logits, > 0; nothing else (top-k, top-p, penalties) may shape the draw.
        seeds: [N] 63 bits each; equal seeds must give equal answers.
        end: the end-of-turn token of the policy's template.
        other_ends: further tokens that end an answer. `end` or one of these is the last token of every
            answer that ends by itself.
    """

    prompts: tuple[tuple[int, ...], ...]
    answers_per_prompt: int
    max_new_tokens: int
    temperature: float
    seeds: tuple[int, ...]
    end: int
    other_ends: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends an answer, the end-of-turn first."""
        return (self.end, *(token for token in self.other_ends if token != self.end))


class Samples(NamedTuple):
    """What a sampler returns.

    Args:
        answers: [N] token ids, 1 to `max_new_tokens` each; a token that ends answers may only be the last.
        logprobs: [N] for each token its log-probability at the temperature, as the sampler drew it; None
            where the sampler does not report them.
    """

    answers: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...] | None = None


class Sampler(Protocol):
    """Anything that answers prompts as the policy would."""

    def sample(self, policy: Policy, request: SampleRequest) -> Samples:
        """Draws answers from the policy as it is now; a copy elsewhere must load its weights first."""


@dataclass(frozen=True)
class CachedSampler:
    """Decodes the policy itself; a row leaves the batch when its answer ends.

    Every answer has random numbers of its own, so it does not depend on the other rows of its batch.

    Args:
        batch_answers: most answers decoded together.
        reference: answer with the frozen reference instead.
    """

    batch_answers: int = 64
    reference: bool = False

    def sample(self, policy: Policy, request: SampleRequest) -> Samples:
        """See `Sampler`; reports log-probabilities in bfloat16 only, which rounds unlike the training pass.

        In float32 they equal those of the training pass within rounding.
        """
        repeats, uniforms = request.answers_per_prompt, uniforms_of(request)
        answers: list[tuple[int, ...]] = []
        logprobs: list[tuple[float, ...]] = []
        # all answers to a prompt are in one batch, since they share the pass over it
        group = max(1, self.batch_answers // repeats)
        for start in range(0, len(request.prompts), group):
            prompts = request.prompts[start : start + group]
            rows = slice(start * repeats, (start + len(prompts)) * repeats)
            with policy.decoding(reference=self.reference):
                found = self._decode(policy, prompts, uniforms[rows], request)
            answers += found.answers
            logprobs += found.logprobs or ()
        return Samples(tuple(answers), tuple(logprobs) or None)

    def _decode(
        self, policy: Policy, prompts: Sequence[Sequence[int]], uniforms: Tensor, request: SampleRequest
    ) -> Samples:
        """Answers to some prompts at once; `uniforms` is [rows, max_new_tokens]."""
        from sarm_control.training.rollout.growing_cache import growing_cache

        repeats, reference = request.answers_per_prompt, self.reference
        # padded on the left, so that all rows write their next token in the same column
        inputs = left_padded(prompts, policy.device)
        longest = inputs["input_ids"].shape[1] + request.max_new_tokens
        cache = growing_cache(policy.causal.config, longest)
        output = policy.states(reference=reference, cache=cache, **inputs)
        # a prompt is read once; its answers start from copies of its keys and values
        cache.batch_repeat_interleave(repeats)
        # left padding: the last column holds every prompt's last token, which predicts the first new one
        hidden = output.last_hidden_state[:, -1].repeat_interleave(repeats, dim=0)
        mask = inputs["attention_mask"].repeat_interleave(repeats, dim=0)

        answers: list[list[int]] = [[] for _ in range(len(uniforms))]
        logprobs: list[list[float]] = [[] for _ in range(len(uniforms))]
        active = torch.arange(len(uniforms))
        ends = torch.tensor(request.ends, device=policy.device)
        for step in range(uniforms.shape[1]):
            logits = policy.logits(hidden, reference=reference)
            # random numbers by answer, not by place: they stay an answer's own when other rows leave
            tokens = draw(logits, request.temperature, uniforms[active, step])
            for row, token in zip(active.tolist(), tokens.tolist(), strict=True):
                answers[row].append(token)
            if policy.autocast:
                values = logprobs_of(tokens, logits, request.temperature)
                for row, value in zip(active.tolist(), values.tolist(), strict=True):
                    logprobs[row].append(value)
            going = ~torch.isin(tokens, ends).cpu()
            if step + 1 == uniforms.shape[1] or not going.any():
                break
            # ended rows leave the batch and its cache, so later passes are smaller
            if not going.all():
                kept = going.nonzero()[:, 0].to(policy.device)
                cache.batch_select_indices(kept)
                active, tokens, mask = active[going], tokens[kept], mask[kept]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            output = policy.states(
                reference=reference,
                input_ids=tokens[:, None],
                attention_mask=mask,
                # a row's own tokens are counted, without the padding on its left
                position_ids=mask.sum(dim=1, keepdim=True) - 1,
                cache=cache,
            )
            hidden = output.last_hidden_state[:, -1]
        found = tuple(tuple(values) for values in logprobs) if policy.autocast else None
        return Samples(tuple(tuple(answer) for answer in answers), found)


def check_samples(samples: Samples, request: SampleRequest, name: str) -> None:
    """Refuses samples that do not answer the request.

    Raises:
        TrainingError: names the sampler and the first row that is wrong.
    """
    wanted = len(request.seeds)
    if len(samples.answers) != wanted:
        raise TrainingError(f"{name} gave {len(samples.answers)} answers, {wanted} were asked for")
    rows = samples.logprobs or tuple((0.0,) * len(answer) for answer in samples.answers)
    if len(rows) != wanted:
        raise TrainingError(f"{name} gave log-probabilities of {len(rows)} answers, not {wanted}")
    for row, (answer, logprobs) in enumerate(zip(samples.answers, rows, strict=True)):
        if not 1 <= len(answer) <= request.max_new_tokens:
            most = request.max_new_tokens
            raise TrainingError(f"{name}: answer {row} has {len(answer)} tokens, not 1 to {most}")
        stops = [token in request.ends for token in answer]
        if any(stops[:-1]) or not (stops[-1] or len(answer) == request.max_new_tokens):
            raise TrainingError(
                f"{name}: answer {row} does not stop at its {_end_names(request)}",
                hint="give the ids as they were drawn, the one that ends the answer included",
            )
        if len(logprobs) != len(answer) or not all(value <= _ROUNDING for value in logprobs):
            raise TrainingError(f"{name}: answer {row} needs one log-probability, at most 0, for each token")


def _end_names(request: SampleRequest) -> str:
    others = ", ".join(map(str, request.ends[1:]))
    return f"end-of-turn token {request.end}" + (f", or at {others}" if others else "")


def draw(logits: Tensor, temperature: float, uniforms: Tensor) -> Tensor:
    """[N] tokens from `softmax(logits / temperature)` by inverting its distribution function.

    The function is inverted in two steps: first the block of 256 tokens is found, then the token inside it.

    Args:
        logits: [N, V].
        temperature: > 0.
        uniforms: [N] float64 in [0, 1), one for each row.
    """
    weights = torch.softmax(logits.float() / temperature, dim=-1)
    # float64 sums: in float32 a cumulative sum over a vocabulary would round small probabilities away
    blocks = _blocks(weights)
    ends = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    # scaled by the sum and not compared with 1: rounding keeps the sum from being exactly 1
    points = uniforms.to(logits.device)[:, None] * ends[:, -1:]
    # right=True finds the first sum above the point and so passes over weights of 0; the clamps are for
    # points that rounding moved past the last sum
    block = torch.searchsorted(ends, points, right=True).clamp(max=blocks.shape[1] - 1)
    # [N, 1] the sum up to the block; the clamp keeps the index of the first block legal, where 0 is taken
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].double().cumsum(dim=-1)
    token = block * _BLOCK + torch.searchsorted(inside, points - before, right=True).clamp(max=_BLOCK - 1)
    return token[:, 0].clamp(max=logits.shape[-1] - 1)


def logprobs_of(tokens: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """[N] log-probabilities of [N] tokens in `softmax(logits / temperature)`, at most 0."""
    scaled = logits.float() / temperature
    return (scaled.gather(1, tokens[:, None])[:, 0] - scaled.logsumexp(dim=-1)).clamp(max=0.0)


def _blocks(weights: Tensor) -> Tensor:
    """[N, V] to [N, V / 256 rounded up, 256]: float64 sums over a whole vocabulary are slow on a CPU."""
    missing = -weights.shape[-1] % _BLOCK
    padded = nn.functional.pad(weights, (0, missing)) if missing else weights
    return padded.view(len(weights), -1, _BLOCK)


def uniforms_of(request: SampleRequest) -> Tensor:
    """[N, max_new_tokens] float64 random numbers in [0, 1), each row from the seed of its answer."""
    most = request.max_new_tokens
    # on the CPU whatever the policy's device: a GPU's generator gives other numbers for the same seed
    generators = (torch.Generator().manual_seed(seed) for seed in request.seeds)
    return torch.stack([torch.rand(most, generator=own, dtype=torch.float64) for own in generators])


def left_padded(prompts: Sequence[Sequence[int]], device: Any) -> dict[str, Tensor]:
    """Prompts as `input_ids`, `attention_mask` and `position_ids`, each [P, T] and padded on the left."""
    lengths = torch.tensor([len(ids) for ids in prompts])
    width = int(lengths.max())
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    # each token's place in its own prompt; negative in the padding
    columns = torch.arange(width)[None, :] - (width - lengths[:, None])
    inputs = {
        "input_ids": ids,
        "attention_mask": (columns >= 0).long(),
        # padding is masked, but a table of learnt positions has no negative rows
        "position_ids": columns.clamp(min=0),
    }
    return {name: tensor.to(device) for name, tensor in inputs.items()}
