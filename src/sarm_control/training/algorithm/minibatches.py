"""Which prompts and which answers go together: pure functions of the seed and the step."""

from collections.abc import Sequence

from sarm_control.seeds import numpy_generator

MicroBatch = list[int]


def prompts_of_step(count: int, per_step: int, step: int, seed: int) -> list[int]:
    """Prompt numbers of a step (from 1): each prompt once, in random order, before any comes again.

    Args:
        count: prompts there are.
        per_step: prompts of a step.
        step: from 1.
        seed: the run's seed.
    """
    positions = range((step - 1) * per_step, step * per_step)
    orders = {i // count: None for i in positions}
    shuffled = {turn: numpy_generator(seed, "prompts", turn).permutation(count) for turn in orders}
    return [int(shuffled[i // count][i % count]) for i in positions]


def plan_minibatches(
    lengths: Sequence[int], *, minibatches: int, micro_batch: int, seed: int, step: int, processes: int = 1
) -> list[list[MicroBatch]]:
    """Answers of a step by minibatch (one optimizer update) and micro-batch (one forward pass).

    The minibatch of an answer does not depend on `micro_batch`. Micro-batches hold answers of like
    length, and stay as they are in all epochs and for the log-probabilities at rollout, so the ratio
    of the first micro-step is 1 whatever the arithmetic.

    Args:
        lengths: [N] tokens of prompt and answer.
        minibatches: 1..N.
        micro_batch: most answers of one forward pass.
        seed: the run's seed.
        step: from 1.
        processes: micro-batches are no larger than gives each of them one of every minibatch.
    """
    order = numpy_generator(seed, step, "minibatches").permutation(len(lengths)).tolist()
    plan = []
    for start in range(minibatches):
        rows = sorted(order[start::minibatches], key=lambda row: (-lengths[row], row))
        size = min(micro_batch, -(-len(rows) // processes))
        plan.append([rows[i : i + size] for i in range(0, len(rows), size)])
    return plan


def epoch_order(minibatches: int, *, seed: int, step: int, epoch: int) -> list[int]:
    """The order minibatches come in."""
    order: list[int] = numpy_generator(seed, step, "epoch", epoch).permutation(minibatches).tolist()
    return order
