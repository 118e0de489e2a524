"""The KL of a policy to its reference on its own answers, for evaluations.

Shapes: `N` answers.
"""

from collections.abc import Sequence

import torch

from sarm_control.training.algorithm.losses import kl_k1
from sarm_control.training.distributed.processes import ALONE, Processes
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import Rollout


def kl_of_answers(
    policy: Policy,
    rollout: Rollout,
    *,
    temperature: float,
    micro_batch: int,
    processes: Processes = ALONE,
) -> float:
    """Nats per answer, k1 as `objective/kl`: `log pi - log pi_ref`, summed over tokens, mean over answers.

    Args:
        policy: it wrote the answers.
        rollout: N answers, the same in every process.
        temperature: of the sampling.
        micro_batch: the most answers of a forward pass.
        processes: share the work.
    """
    rows = range(len(rollout))
    pieces = [rows[start : start + micro_batch] for start in range(0, len(rollout), micro_batch)]
    sums = torch.zeros(len(rollout), dtype=torch.float64)
    with policy.whole(), policy.precision(), policy.rounded_weights():
        for piece in processes.rank_slice(pieces):
            sums[piece.start : piece.stop] = _sums(policy, rollout, piece, temperature)
    # every answer's sum is in one process and 0 in the others
    processes.all_reduce([sums])
    return float(sums.mean())


def _sums(policy: Policy, rollout: Rollout, rows: Sequence[int], temperature: float) -> torch.Tensor:
    answers = [rollout.answers[row] for row in rows]
    batch = policy.batch([rollout.prompts[row].ids for row in rows], answers)
    ours = policy.answer_stats(batch, temperature).logprobs
    theirs = policy.answer_stats(batch, temperature, reference=True).logprobs
    tokens = kl_k1(ours, theirs).double().cpu()
    return torch.stack([part.sum() for part in tokens.split([len(answer) for answer in answers])])
