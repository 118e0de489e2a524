"""Seconds of a step by timing its passes here, with models of the real width and few layers.

Weights are random: speed does not depend on what they say. Every phase is timed by the run's own code with
one layer and with two, and each layer more is taken to cost what the second one did. Times are those of the
process's own processor time where that is less than the clock's, so that a busy machine says little more
than a quiet one: other programs take the clock, not the processor time.

Shapes: `N` answers decoded together, `B` rows of a micro-batch, `T` tokens of prompt and answer.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from sarm_control.build import AutoencoderConfig, train_topk
from sarm_control.planning.linear import Counts, at_depth
from sarm_control.planning.machines import growth
from sarm_control.planning.models import RewardShape
from sarm_control.planning.skeletons import PolicyShape, make_policy, parts_of, trunk_skeleton
from sarm_control.planning.training_memory import Lengths
from sarm_control.reward_model import Autoencoder, scoring_batch_tokens
from sarm_control.training import CachedSampler, Policy, SampleRequest, TokenBatch

SECONDS = 20.0
"""What a probe takes, about."""
_PHASES = 4
_TIMES = 2
"""That one layer and two are timed, in turn."""
_DECODED = 8
_TRAINED = 4


def probed_seconds(
    shape: PolicyShape, reward: RewardShape, lengths: Lengths, device: str, seconds: float = SECONDS
) -> Counts:
    """Seconds of each phase of a step.

    Args:
        shape: of the policy.
        reward: of the reward model.
        lengths: of the conversations; the mean ones count.
        device: where it is timed.
        seconds: what the probe may take, about; a single pass may take longer.
    """
    each = seconds / (2 * 2 * _PHASES * _TIMES)
    depths = [shape.layers, *([reward.layers] if shape.training.value == "model" else [])]

    def of_policy(layers: int, critic_layers: int = 1) -> Counts:
        policy = with_weights(make_policy(shape, reward, layers, critic_layers), device)
        with policy.precision():
            return _policy_seconds(policy, shape, lengths, each)

    def of_trunk(layers: int) -> Counts:
        trunk = trunk_skeleton(reward, layers)
        _fill(trunk, device)
        return {"reward": _trunk_seconds(trunk, shape, lengths, device, each)}

    found = at_depth(depths, of_policy, times=_TIMES)
    scored = at_depth([reward.layers], of_trunk, times=_TIMES)
    # what a layer more takes is a difference of two timings, which noise may turn below 0
    return {name: max(value, 0.0) for name, value in {**found, **scored}.items()}


def probed_pass(shape: RewardShape, rows: int, tokens: int, device: str, seconds: float = SECONDS) -> float:
    """Seconds of scoring `rows` conversations of `tokens` tokens at once, their latents included.

    Args:
        shape: of the reward model.
        rows: of a batch.
        tokens: of each.
        device: where it is timed.
        seconds: what the probe may take, about.
    """
    ids = torch.zeros(rows, tokens, dtype=torch.long, device=device)
    places = torch.full((rows,), tokens - 1, device=device)

    def of_trunk(layers: int) -> Counts:
        trunk = trunk_skeleton(shape, layers)
        _fill(trunk, device)
        return {"pass": least(lambda: trunk.states_at(ids, None, places), seconds / 3 / _TIMES)}

    found = at_depth([shape.layers], of_trunk, times=_TIMES)["pass"]
    if shape.latents:
        dictionary, states = _dictionary(shape, device), torch.randn(rows, shape.width, device=device)
        found += least(lambda: dictionary.encode(states), seconds / 3)
    return max(found, 0.0)


def probed_pass_memory(
    shape: RewardShape, passes: Sequence[tuple[int, int]], device: str
) -> tuple[int | None, int | None]:
    """Bytes that passes of the trunk take at their peak beside its weights, and then those of encoding.

    A processor's kernels pack and copy, and the heap of its C library keeps what was freed in pieces that do
    not fit the next block: neither can be counted without memory. None where the system does not tell.

    Args:
        shape: of the reward model.
        passes: rows and tokens of each, in the order in which they run.
        device: where they run; a GPU's memory is not this process's.
    """
    if device != "cpu":
        return None, None
    # activations of a pass are those of one layer at a time; the second finds what the first left in the heap
    trunk = trunk_skeleton(shape, min(2, shape.layers))
    _fill(trunk, device)
    inputs = [(torch.zeros(rows, tokens, dtype=torch.long), rows, tokens) for rows, tokens in passes]
    dictionary = _dictionary(shape, device) if shape.latents else None

    def score() -> None:
        for ids, rows, tokens in inputs:
            trunk.states_at(ids, None, torch.full((rows,), tokens - 1))

    def encode() -> None:
        assert dictionary is not None
        for _, rows, _ in inputs:
            dictionary.encode(torch.randn(rows, shape.width))

    return growth(score), growth(encode) if dictionary is not None else 0


def _dictionary(shape: RewardShape, device: str) -> Autoencoder:
    """An autoencoder of the shape's size with random weights."""
    with torch.device(device):
        made = Autoencoder(shape.width, shape.latents, max(shape.k, 1), use_topk=shape.k > 0)
    return made.requires_grad_(False)


def probed_dictionary_step(width: int, latents: int, k: int, batch: int, device: str) -> float:
    """Seconds of a step of the training of a dictionary, by a training of one step and one of a few.

    Args:
        width: of the states.
        latents: of the dictionary.
        k: latents kept of a state.
        batch: states of a step.
        device: where it is timed.

    Raises:
        MissingExtraError: SAELens is not installed.
    """
    states = [torch.randn(batch, width), torch.empty(0, width)]

    def train(steps: int) -> Callable[[], Any]:
        config = AutoencoderConfig(latents, k, steps=steps, batch=batch)
        return lambda: train_topk(states, config, device=device)

    # a difference, since a training of any length sets up its optimizer and reads its states once
    more = least(train(1 + _TRAINED), 0.0) - least(train(1), 0.0)
    return max(more, 0.0) / _TRAINED


def with_weights(policy: Policy, device: str) -> Policy:
    """The policy of a skeleton with random weights, on a device."""
    for part in parts_of(policy):
        _fill(part, device)
    policy.device = torch.device(device)
    return policy


def _fill(module: nn.Module, device: str) -> None:
    """Gives a module of the meta device memory and small random weights."""
    module.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(0, 0.02, generator=generator)
    for part in module.modules():
        # not weights but constants, which a skeleton of the meta device lacks
        if hasattr(part, "rope_init_fn") or hasattr(part, "inv_freq"):
            for name, buffer in part.named_buffers(recurse=False):
                if name.endswith("inv_freq"):
                    buffer.copy_(torch.logspace(0, -4, buffer.numel(), device=device))


def _policy_seconds(policy: Policy, shape: PolicyShape, lengths: Lengths, each: float) -> Counts:
    training = shape.training
    rows = min(training.micro_batch, -(-training.answers_per_step // training.minibatches))
    prompt, answer = max(1, round(lengths.mean_prompt)), max(1, round(lengths.mean_answer))
    batch = policy.batch([[0] * prompt] * rows, [[0] * answer] * rows)
    passes = training.answers_per_step / rows

    def logprobs() -> None:
        with policy.rounded_weights():
            policy.answer_stats(batch, training.temperature, entropy=True)
            policy.answer_stats(batch, training.temperature, reference=True)

    def update() -> None:
        _step_back(policy, batch, training.temperature)

    return {
        "rollout": _rollout(policy, shape, prompt, answer, each),
        "logprobs": passes * least(logprobs, each),
        "update": training.epochs * passes * least(update, each),
    }


def _step_back(policy: Policy, batch: TokenBatch, temperature: float) -> None:
    stats = policy.answer_stats(batch, temperature)
    assert stats.values is not None
    (stats.logprobs.sum() + stats.values.sum()).backward()
    policy.model.zero_grad(set_to_none=True)


def _rollout(policy: Policy, shape: PolicyShape, prompt: int, answer: int, each: float) -> float:
    """Decoding a few tokens and one token: the difference is what a token more takes.

    A token late in an answer reads a longer cache, so the few are decoded behind prompts of the mean length.
    """
    training = shape.training
    repeats = training.answers_per_prompt
    together = max(1, min(CachedSampler().batch_answers // repeats, training.prompts_per_step))
    batches = training.prompts_per_step / together
    few = min(_DECODED, answer)
    middle = prompt + max(0, answer - few) // 2

    def decode(tokens: int, length: int) -> Callable[[], Any]:
        request = SampleRequest(
            prompts=((1,) * length,) * together,
            answers_per_prompt=repeats,
            max_new_tokens=tokens,
            temperature=training.temperature,
            seeds=tuple(range(together * repeats)),
            # no token has this id: every answer runs to its full length
            end=-1,
        )
        return lambda: CachedSampler().sample(policy, request)

    first = least(decode(1, prompt), each)
    if answer == 1:
        return batches * first
    more = (least(decode(few, middle), each) - least(decode(1, middle), each)) / max(1, few - 1)
    return batches * (first + max(more, 0.0) * (answer - 1))


def _trunk_seconds(trunk: Any, shape: PolicyShape, lengths: Lengths, device: str, each: float) -> float:
    tokens = max(1, round(lengths.mean_prompt + lengths.mean_answer))
    answers = shape.training.answers_per_step
    rows = max(1, min(answers, scoring_batch_tokens(device) // tokens))
    ids = torch.zeros(rows, tokens, dtype=torch.long, device=device)
    places = torch.full((rows,), tokens - 1, device=device)
    return answers / rows * least(lambda: trunk.states_at(ids, None, places), each)


def least(work: Callable[[], Any], seconds: float) -> float:
    """Seconds of the quickest of several runs, the first not counted, in about that much time."""
    times: list[float] = []
    started = time.perf_counter()
    work()
    while not times or time.perf_counter() - started < seconds:
        clock, processor = time.perf_counter(), time.process_time()
        work()
        _wait()
        times.append(min(time.perf_counter() - clock, _alone(time.process_time() - processor)))
    # the quickest, since other programs can only add to it
    return min(times)


def _alone(seconds: float) -> float:
    """Processor time as the clock would show it without other programs; with several threads unknown."""
    return seconds if torch.get_num_threads() == 1 and not torch.cuda.is_available() else float("inf")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
