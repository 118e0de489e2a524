"""The sampler that decodes with transformers' own `generate` and a static cache.

On a GPU transformers compiles the pass for one token and replays it as a CUDA graph. That needs a cache and a
batch of fixed size: a row that has ended stays in the batch until the last row ends. `generate` only runs the
model. The tokens are drawn here, from the random numbers of each answer: on equal logits the answers equal
those of `CachedSampler`. The checkpoint's generation config and global random generators play no part.
On a CPU nothing is compiled and it is no faster; on a GPU it has not been measured yet.

`generate_batch` (continuous batching) is not used: in transformers 5.23 it draws from one global generator in
the order in which its own thread schedules requests, so equal seeds would not give equal answers, and that
thread does not see the autocast that float32 adapters on a bfloat16 base need.

Shapes: `N` rows of a batch, `T` tokens of its longest prompt, `V` vocabulary.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sarm_control.errors import ConfigError
from sarm_control.reward_model import cache_argument
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.sampler import (
    SampleRequest,
    Samples,
    draw,
    left_padded,
    logprobs_of,
    uniforms_of,
)

if TYPE_CHECKING:
    from transformers import GenerationConfig


class _Batch(NamedTuple):
    """Rows decoded together: their numbers, their prompts, and [N, max_new_tokens] random numbers."""

    rows: range
    prompts: list[tuple[int, ...]]
    uniforms: Tensor


@dataclass(frozen=True)
class GenerateSampler:
    """Decodes by `generate` and reports the log-probabilities of its draws, for importance weights.

    In half precision the logits are the model's own, rounded to bfloat16, whereas training computes them in
    float32: the metric `rollout/sampler_kl` measures how far that moves the answers' distribution.

    Args:
        longest: tokens of the longest prompt and answer together, the size of the cache. It is fixed for a
            run, so that a resumed run computes with a cache of the same size.
        batch_answers: rows decoded together; the last batch of several is filled up to this number.
    """

    longest: int
    batch_answers: int = 64

    def sample(self, policy: Policy, request: SampleRequest) -> Samples:
        """See `Sampler`.

        Raises:
            ConfigError: see `check_decodes`.
        """
        check_decodes(policy)
        answers: list[tuple[int, ...]] = []
        logprobs: list[tuple[float, ...]] = []
        with policy.rounded_weights(), policy.half_precision():
            for batch in _batches(request, self.batch_answers):
                tokens, drawn_with = self._decode(policy.causal, policy.device, batch, request)
                # the rows that only fill the batch up are dropped
                for answer, values in zip(tokens[: len(batch.rows)], drawn_with, strict=False):
                    length = _length(answer, request.ends)
                    answers.append(tuple(answer[:length]))
                    logprobs.append(tuple(values[:length]))
        return Samples(tuple(answers), tuple(logprobs))

    def _decode(
        self, model: Any, device: torch.device, batch: _Batch, request: SampleRequest
    ) -> tuple[list[list[int]], list[list[float]]]:
        from transformers import LogitsProcessorList, StaticCache

        inputs = left_padded(batch.prompts, device)
        width = inputs["input_ids"].shape[1]
        drawer = _Drawer(width, request.temperature, batch.uniforms)
        # A cache of our own: how transformers sizes its cache, and whether an earlier one's size stays, is
        # not the same in all its versions.
        cache = StaticCache(
            config=model.config, max_cache_len=max(self.longest, width + request.max_new_tokens)
        )
        with _settings_aside(model):
            generated = model.generate(
                inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                **{cache_argument(model.base_model): cache},
                generation_config=_greedy_config(request),
                logits_processor=LogitsProcessorList([drawer]),
                synced_gpus=False,  # each process decodes its own rows and need not wait
            )
        return generated[:, width:].tolist(), torch.stack(drawer.logprobs, dim=1).tolist()


def _length(answer: Sequence[int], ends: Sequence[int]) -> int:
    """Tokens up to and including the first that ends an answer."""
    return next((place + 1 for place, token in enumerate(answer) if token in ends), len(answer))


def check_decodes(policy: Policy) -> None:
    """Refuses a policy that cannot be decoded with a static cache.

    Raises:
        ConfigError: an architecture without one; or float32 weights that compute in bfloat16, whose keys and
            values have two types while the cache has one.
    """
    check_static_cache(policy.causal, mixed=policy.autocast and policy.reference is not None)


def check_static_cache(model: Any, *, mixed: bool) -> None:
    """As `check_decodes`, for the model alone.

    Args:
        model: a causal language model; its weights are not looked at.
        mixed: whether float32 weights compute in bfloat16.

    Raises:
        ConfigError: see `check_decodes`.
    """
    if not hasattr(model, "generate") or not getattr(model, "_can_compile_fullgraph", False):
        raise ConfigError(
            f"{type(model).__name__} cannot decode with a static cache of transformers",
            hint="leave training.sampler at ours",
        )
    if mixed:
        raise ConfigError(
            "training.sampler: generate cannot decode float32 weights in bfloat16",
            hint="leave training.sampler at ours, train adapters (policy.lora), or say policy.dtype: float32",
        )


class _Drawer:
    """A logits processor that draws a token from the softmax and leaves only that one possible.

    `generate` then picks it greedily, so its own sampling settings have no effect.
    """

    def __init__(self, width: int, temperature: float, uniforms: Tensor) -> None:
        self.width = width
        self.temperature = temperature
        self.uniforms = uniforms
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[N, T + step] ids and [N, V] logits to [N, V] scores, 0 for the token drawn and else -inf."""
        step = input_ids.shape[1] - self.width
        tokens = draw(scores, self.temperature, self.uniforms[:, step])
        self.logprobs.append(logprobs_of(tokens, scores, self.temperature))
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


def _greedy_config(request: SampleRequest) -> "GenerationConfig":
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        eos_token_id=list(request.ends),
        pad_token_id=request.end,
    )


@contextlib.contextmanager
def _settings_aside(model: Any) -> Iterator[None]:
    """Sets the checkpoint's generation config aside."""
    from transformers import GenerationConfig

    kept = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept


def _batches(request: SampleRequest, most: int) -> Iterator[_Batch]:
    prompts = [ids for ids in request.prompts for _ in range(request.answers_per_prompt)]
    uniforms = uniforms_of(request)
    for start in range(0, len(prompts), most):
        rows = range(start, min(start + most, len(prompts)))
        # filled up with copies of the last row, which end when it ends
        padded = [*rows, *[rows[-1]] * (min(most, len(prompts)) - len(rows))]
        yield _Batch(rows, [prompts[row] for row in padded], uniforms[padded])
