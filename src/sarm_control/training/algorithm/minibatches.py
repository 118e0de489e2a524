"""Which prompts a step takes, and how its answers are split into minibatches.

Pure functions of the seed and the step, so a resumed run takes what the uninterrupted run took.
"""

from collections.abc import Sequence

from sarm_control.seeds import numpy_generator

MicroBatch = list[int]


def prompts_of_step(count: int, per_step: int, step: int, seed: int) -> list[int]:
    """Prompt numbers of a step (from 1): each prompt once, in random order, before any comes again.

    Args:
        count: number of prompts.
        per_step: prompts of a step.
        step: from 1.
        seed: the run's seed.
    """
    # the prompts of all steps as one endless sequence of shuffled rounds, of which a step takes its part; a
    # round is shuffled from its own seed, so no state has to be kept
    positions = range((step - 1) * per_step, step * per_step)
    orders = {i // count: None for i in positions}
    shuffled = {turn: numpy_generator(seed, "prompts", turn).permutation(count) for turn in orders}
    return [int(shuffled[i // count][i % count]) for i in positions]


def plan_minibatches(
    lengths: Sequence[int], *, minibatches: int, micro_batch: int, seed: int, step: int, processes: int = 1
) -> list[list[MicroBatch]]:
    """Answers of a step by minibatch (one optimizer update) and micro-batch (one forward pass).

    The minibatch of an answer does not depend on `micro_batch`. Micro-batches hold answers of similar
    length. They are the same in all epochs and for the log-probabilities at rollout: equal batches round
    equally, so the probability ratio of the first micro-batch is exactly 1.

    Args:
        lengths: [N] tokens of prompt and answer.
        minibatches: 1..N.
        micro_batch: most answers of one forward pass.
        seed: the run's seed.
        step: from 1.
        processes: micro-batches are small enough to give each process one of every minibatch.
    """
    order = numpy_generator(seed, step, "minibatches").permutation(len(lengths)).tolist()
    plan = []
    # every `minibatches`-th answer of a random order: the sizes differ by one at most
    for start in range(minibatches):
        # by length, so that micro-batches have little padding; ties go by row, to be reproducible
        rows = sorted(order[start::minibatches], key=lambda row: (-lengths[row], row))
        # -(-a // b) is a / b rounded up
        size = min(micro_batch, -(-len(rows) // processes))
        plan.append([rows[i : i + size] for i in range(0, len(rows), size)])
    return plan


def epoch_order(minibatches: int, *, seed: int, step: int, epoch: int) -> list[int]:
    """The order in which an epoch takes the minibatches."""
    order: list[int] = numpy_generator(seed, step, "epoch", epoch).permutation(minibatches).tolist()
    return order
