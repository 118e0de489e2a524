"""Seconds of a training step from counted operations and a machine's rates: a rough figure, see `probe`.

Shapes: `N` answers of a step, `T` tokens of prompt and answer, `D` hidden size, `V` vocabulary.
"""

from dataclasses import dataclass

from sarm_control.planning.linear import Counts
from sarm_control.planning.machines import Machine
from sarm_control.planning.models import RewardShape
from sarm_control.planning.skeletons import PolicyShape
from sarm_control.planning.training_memory import Lengths
from sarm_control.training import CachedSampler


@dataclass(frozen=True)
class Sizes:
    """Weights of a model, those of its embeddings apart, and what a head has.

    Args:
        body: weights of the decoder layers.
        head: V x D.
        bytes_each: of a weight.
        cache: bytes of keys and values of one token.
    """

    body: float
    head: float
    bytes_each: int
    cache: float


def phase_seconds(
    shape: PolicyShape, reward: RewardShape, sizes: Sizes, trunk: float, lengths: Lengths, machine: Machine
) -> Counts:
    """Seconds of each phase of a step.

    Args:
        shape: of the policy.
        reward: of the reward model.
        sizes: of the policy.
        trunk: weights of the reward model's layers.
        lengths: of the conversations; the mean ones count.
        machine: whose rates are taken.
    """
    training = shape.training
    # below, 2 operations for each weight and token: a multiplication and an addition
    answers, tokens = training.answers_per_step, lengths.mean_prompt + lengths.mean_answer
    rate = machine.half_flops if shape.half else machine.flops
    of_reward = machine.half_flops if reward.dtype.itemsize == 2 else machine.flops
    # the head is applied in float32; a GPU and bfloat16 units round its factors
    head = 2 * sizes.head * answers * lengths.mean_answer / rate
    forward = 2 * sizes.body * answers * tokens / rate
    critic = forward if training.value == "adapter" else 0.0
    if training.value == "model":
        critic = 2 * trunk * answers * tokens / rate
    weights_too = 1 if shape.lora is None else 0
    again = 1 if shape.settings.gradient_checkpointing else 0
    return {
        "rollout": _rollout(shape, sizes, lengths, machine, rate),
        "reward": 2 * trunk * answers * tokens / of_reward,
        # the policy's pass and the reference's
        "logprobs": 2 * (forward + head) + critic,
        # forward, backward to the inputs and to trained weights, and forward again with checkpointing
        "update": training.epochs * ((forward + critic) * (2 + weights_too + again) + 2 * head),
    }


def _rollout(shape: PolicyShape, sizes: Sizes, lengths: Lengths, machine: Machine, rate: float) -> float:
    """A pass over the prompts, then one over all weights and the cache for every token of a batch."""
    training = shape.training
    prompts, answers = training.prompts_per_step, training.answers_per_step
    most = CachedSampler().batch_answers
    batches = -(-answers // most)
    rows = answers / batches
    # on average the answers are half written
    filled = lengths.mean_prompt + lengths.mean_answer / 2
    bytes_read = sizes.body * sizes.bytes_each + 4 * sizes.head + rows * filled * sizes.cache
    computed = 2 * (sizes.body + sizes.head) * rows / rate
    prefill = 2 * sizes.body * prompts * lengths.mean_prompt / rate
    return prefill + batches * lengths.mean_answer * max(bytes_read / machine.bytes_a_second, computed)
