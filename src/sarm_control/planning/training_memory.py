"""The memory of a training step by phase, from the run's own code on tensors without memory.

Shapes: `N` answers decoded together, `B` rows of a micro-batch, `T` tokens of the longest prompt and answer,
`D` hidden size, `V` vocabulary, `L` latents.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sarm_control.planning.linear import Counts, at_depth
from sarm_control.planning.live_memory import LiveMemory, bytes_of, counted, onto_device, weights_of
from sarm_control.planning.models import RewardShape
from sarm_control.planning.skeletons import (
    PolicyShape,
    make_policy,
    materialise,
    parts_of,
    policy_skeleton,
    trunk_skeleton,
)
from sarm_control.reward_model import Autoencoder
from sarm_control.training import CachedSampler, Policy, TokenBatch, draw

ENCODED_TOGETHER = 256
"""Answers whose pre-activations exist at once; see `RewardModel.score_states`."""
_MOMENTS_BYTES = 8
_PASSING = (
    "rollout/prefill",
    "rollout/pass",
    "rollout/logits",
    "logprobs/pass",
    "logprobs/logits",
)


@dataclass(frozen=True)
class Lengths:
    """Tokens of a run's conversations.

    Args:
        prompt: of the longest prompt.
        mean_prompt: of prompts on average.
        answer: the longest that an answer can be, `training.max_new_tokens`.
        mean_answer: what is expected of answers on average.
    """

    prompt: int
    mean_prompt: float
    answer: int
    mean_answer: float

    @property
    def longest(self) -> int:
        """T."""
        return self.prompt + self.answer


def policy_counts(shape: PolicyShape, reward: RewardShape, lengths: Lengths) -> Counts:
    """Bytes of the policy, its adapters and critic, and what the phases of a step add to them.

    `held/...` lasts for the run; `rollout/...`, `logprobs/...` and `update/...` are gone after their phase.
    """
    depths = [shape.layers]
    if shape.training.value == "model":
        depths.append(reward.layers)

    # counted at depths of one and two and extended: layers are alike, and each adds what the second one did
    return at_depth(depths, lambda *at: policy_counts_at(shape, reward, lengths, *at), _PASSING)


def policy_counts_at(
    shape: PolicyShape, reward: RewardShape, lengths: Lengths, layers: int, critic_layers: int = 1
) -> Counts:
    """As `policy_counts`, of a policy of that many layers and a critic of that many."""
    made = make_policy(shape, reward, layers, critic_layers)
    with counted() as live:
        policy = materialise(made)
        return {
            **_held(policy, shape),
            **_rollout(policy, shape, lengths, live),
            **_logprobs(policy, shape, lengths, live),
            **_update(policy, shape, lengths, live),
        }


def trunk_counts(shape: RewardShape, rows: int, tokens: int) -> Counts:
    """Bytes of a reward model's trunk, and what a pass over `rows` conversations of `tokens` tokens adds."""

    def measure(layers: int) -> Counts:
        made = trunk_skeleton(shape, layers)
        with counted() as live:
            trunk = onto_device(made)
            before = live.mark()
            ids, places = torch.zeros(rows, tokens, dtype=torch.long), torch.full((rows,), tokens - 1)
            trunk.states_at(ids, None, places)
            return {"weights": bytes_of(trunk), "parameters": weights_of(trunk), "pass": live.peak - before}

    return at_depth([shape.layers], measure, ("pass",))


def latent_counts(shape: RewardShape, rows: int) -> Counts:
    """Bytes of a dictionary, and what encoding `rows` answers adds; zeros without one.

    Its `decoder` is among the `weights`; what only scores leaves it in its file.
    """
    if not shape.latents:
        return {"weights": 0, "decoder": 0, "parameters": 0, "pass": 0}
    with torch.device("meta"):
        made = Autoencoder(shape.width, shape.latents, max(shape.k, 1), use_topk=shape.k > 0)
        if shape.encoder != torch.float32:
            made.hold_encoder(shape.encoder)
    with counted() as live, torch.no_grad():
        onto_device(made)
        before = live.mark()
        made.encode(torch.empty(min(rows, ENCODED_TOGETHER), shape.width))
        return {
            "weights": bytes_of(made),
            "decoder": bytes_of(made.decoder),
            "parameters": weights_of(made),
            "pass": live.peak - before,
        }


def parameters(shape: PolicyShape, reward: RewardShape) -> Counts:
    """How many weights the whole policy has, and how many are trained; nothing is extrapolated."""
    policy = make_policy(shape, reward, shape.layers, reward.layers)
    trained = {id(weight): weight.numel() for weight in _trained(policy)}
    return {"policy": weights_of(policy_skeleton(shape, shape.layers)), "trained": sum(trained.values())}


def _trained(policy: Policy) -> list[nn.Parameter]:
    return [weight for part in parts_of(policy) for weight in part.parameters() if weight.requires_grad]


def _held(policy: Policy, shape: PolicyShape) -> Counts:
    """What lasts. Gradients last too: they are given back only when the next step begins."""
    trained = sum(weight.numel() * weight.element_size() for weight in _trained(policy))
    everything = bytes_of(*parts_of(policy))
    adapters = trained if shape.lora is not None else 0
    if shape.continued:
        adapters += adapters
    frozen = 0 if shape.lora is None else everything - trained
    return {
        # the float32 copy of a half-precision head is made once and kept
        "held/weights": (everything if shape.lora is None else frozen) + _head_copy(policy),
        "held/adapters": adapters,
        "held/gradients": trained,
        # two float32 moments for each trained weight, which has 4 bytes itself
        "held/optimizer": _MOMENTS_BYTES / 4 * trained,
        "held/trained": trained,
        "held/saved": bytes_of(policy.causal) - (0 if shape.lora is None else _adapters(policy)),
        # the trained policy is written from a float32 copy of all of it
        "held/copied": 4 * weights_of(policy.causal),
    }


def _adapters(policy: Policy) -> int:
    """Bytes of what peft added to the model, the critic's adapter included."""
    named = policy.causal.named_parameters()
    return sum(weight.numel() * weight.element_size() for name, weight in named if "lora_" in name)


def _head_copy(policy: Policy) -> int:
    weight = policy.causal.get_output_embeddings().weight
    copies = 1 if policy.reference is None else 2
    return 0 if weight.dtype == torch.float32 else 4 * weight.numel() * copies


def _rollout(policy: Policy, shape: PolicyShape, lengths: Lengths, live: LiveMemory) -> Counts:
    """One batch of answers at its longest: the cache is full, and one more token is drawn."""
    from transformers import DynamicCache

    repeats = shape.training.answers_per_prompt
    together = CachedSampler().batch_answers
    # the untrained policy answers each prompt more often where there are few; the rows are as many
    prompts = max(1, min(together // repeats, shape.training.prompts_per_step))
    rows = prompts * repeats
    config = policy.causal.config
    before = live.mark()
    with policy.decoding():
        merged = live.live - before
        cache: Any = DynamicCache(config=config)
        output = policy.states(cache=cache, **_read(prompts, lengths.prompt))
        # the prompts' own keys and values are part of the cache at its end
        read = sum(2 * layer.keys.numel() * layer.keys.element_size() for layer in cache.layers)
        prefill = live.peak - before - merged - read
        del output
        shapes = [(layer.keys.shape, layer.keys.dtype) for layer in cache.layers]
        del cache
        start = live.mark()
        cache = DynamicCache(config=config)
        for number, ((_, heads, _, size), dtype) in enumerate(shapes):
            full = (rows, heads, lengths.longest - 1, size)
            cache.update(torch.empty(full, dtype=dtype), torch.empty(full, dtype=dtype), number)
        live.mark()
        hidden = policy.states(
            input_ids=torch.zeros(rows, 1, dtype=torch.long),
            attention_mask=torch.ones(rows, lengths.longest, dtype=torch.long),
            position_ids=torch.full((rows, 1), lengths.longest - 1),
            cache=cache,
        ).last_hidden_state[:, -1]
        # with the token that was added just now
        kept = sum(2 * layer.keys.numel() * layer.keys.element_size() for layer in cache.layers)
        passing = live.peak - start - kept
        live.mark()
        logits = policy.logits(hidden)
        draw(logits, shape.training.temperature, torch.zeros(rows, dtype=torch.float64))
        drawn = live.peak - start - kept
        del cache, logits, hidden
    return {
        "rollout/merged": merged,
        "rollout/kv_cache": kept,
        "rollout/prefill": prefill,
        "rollout/pass": passing,
        "rollout/logits": drawn,
    }


def _read(rows: int, tokens: int) -> dict[str, Any]:
    """What `left_padded` gives of prompts of one length."""
    ids = torch.zeros(rows, tokens, dtype=torch.long)
    places = torch.arange(tokens).expand(rows, tokens)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": places}


def _batch(shape: PolicyShape, lengths: Lengths) -> TokenBatch:
    """What `Policy.batch` gives of a micro-batch of the longest prompts and answers."""
    training = shape.training
    minibatch = -(-training.answers_per_step // training.minibatches)
    rows, answer = min(training.micro_batch, minibatch), lengths.answer
    numbers = torch.arange(rows).repeat_interleave(answer)
    places = torch.arange(lengths.prompt - 1, lengths.longest - 1).repeat(rows)
    ids = torch.zeros(rows, lengths.longest, dtype=torch.long)
    return TokenBatch(ids, numbers, places, torch.zeros(rows * answer, dtype=torch.long))


def _logprobs(policy: Policy, shape: PolicyShape, lengths: Lengths, live: LiveMemory) -> Counts:
    """Passes without gradients; float32 weights are kept rounded beside themselves meanwhile."""
    batch = _batch(shape, lengths)
    before = live.mark()
    with policy.rounded_weights():
        rounded = live.live - before
        hidden = policy.token_states(batch)
        passing, start = live.peak - before - rounded, live.mark()
        policy._head.logprobs(hidden, batch.targets, shape.training.temperature, entropy=True)
        logits = live.peak - start
        policy.critic.values(batch, hidden)
    return {"logprobs/rounded": rounded, "logprobs/pass": passing, "logprobs/logits": logits}


def _update(policy: Policy, shape: PolicyShape, lengths: Lengths, live: LiveMemory) -> Counts:
    """One micro-batch forward and back; gradients of the trained weights are counted as held."""
    batch = _batch(shape, lengths)
    before = live.mark()
    hidden = policy.token_states(batch)
    values = policy.critic.values(batch, hidden)
    forward, kept = live.peak - before, live.live - before
    live.mark()
    found = policy._head.logprobs(hidden, batch.targets, shape.training.temperature, entropy=False)
    logits = live.peak - before - kept
    live.mark()
    # any scalar of both will do: memory depends on which graph is walked back, not on the loss at its end
    (found.logprobs.sum() + values.sum()).backward()
    grads = sum(w.numel() * w.element_size() for w in _trained(policy) if w.grad is not None)
    backward = live.peak - before - grads
    return {
        "update/kept": max(kept, forward),
        "update/logits": logits,
        "update/backward": max(backward, kept),
    }
