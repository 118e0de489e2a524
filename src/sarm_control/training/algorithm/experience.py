"""What a step learns from: answers with their log-probabilities, values and advantages.

Shapes: `N` answers, `T` tokens of the longest answer, `M` answer tokens of some rows in one line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sarm_control.training.algorithm.importance_weights import sampler_mismatch
from sarm_control.training.algorithm.losses import (
    Advantages,
    gae,
    group_standardised,
    kl_k1,
    kl_k3,
    leave_one_out,
    length_mask,
    token_rewards,
    whiten,
)
from sarm_control.training.algorithm.minibatches import MicroBatch
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.distributed.processes import ALONE, Processes
from sarm_control.training.policy.policy import Policy
from sarm_control.training.policy.token_batch import TokenBatch, TokenStats
from sarm_control.training.rollout.rollout import Rollout


class KeptPass:
    """The forward pass of a micro-batch with what its backward pass needs, so that the update has it already.

    No weight changes between the log-probabilities of a step and its first update, so that both would
    compute the same.

    Args:
        rows: the micro-batch.
        stats: what the policy computed for its answer tokens, with gradients.
    """

    def __init__(self, rows: MicroBatch, stats: TokenStats) -> None:
        self.rows = rows
        self._stats: TokenStats | None = stats

    def take(self, rows: MicroBatch) -> TokenStats | None:
        """The pass if it is of these rows, and once: its backward pass frees it, and then weights change."""
        if rows is not self.rows:
            return None
        stats, self._stats = self._stats, None
        return stats


@dataclass(frozen=True)
class Experience:
    """Float32 [N, T] tensors on the CPU, 0 in padding.

    Args:
        rollout: the answers.
        mask: bool, true on answer tokens.
        logprobs: log-probabilities under the policy that sampled, by the training forward pass.
        reference: log-probabilities under the frozen reference.
        entropy: nats.
        values: the critic's value of the state that each token was chosen in.
        advantages: by the algorithm; PPO's are whitened over the whole batch. They are already multiplied by
            the importance weights, where a sampler of its own drew the tokens.
        returns: what the value head is fitted to; not used without a critic.
        sampling: how far the sampler's log-probabilities are from ours, where the sampler reports them.
        kept: the forward pass of the first update, where `collect` was asked to keep it.
    """

    rollout: Rollout
    mask: Tensor
    logprobs: Tensor
    reference: Tensor
    entropy: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    sampling: Mapping[str, float] = field(default_factory=dict)
    kept: KeptPass | None = None

    def token_batch(self, policy: Policy, rows: MicroBatch) -> TokenBatch:
        """The rows as input of the policy."""
        return policy.batch(*_ids(self.rollout, rows))

    def tokens(self, rows: MicroBatch, values: Tensor, policy: Policy) -> Tensor:
        """[M] the rows' entries of an [N, T] tensor, on the policy's device."""
        return values[rows][self.mask[rows]].to(policy.device)

    def kl_metrics(self) -> dict[str, float]:
        """KL to the reference in nats per answer: k1, as in the reward, and k3, which is never negative."""
        k1 = torch.where(self.mask, kl_k1(self.logprobs, self.reference), 0.0)
        # samples of the policy, so d is log reference - log policy, the negative of k1
        k3 = torch.where(self.mask, kl_k3(self.reference - self.logprobs), 0.0)
        answers = len(self.mask)
        return {"objective/kl": float(k1.sum()) / answers, "objective/kl_k3": float(k3.sum()) / answers}


def collect(
    policy: Policy,
    rollout: Rollout,
    scores: Tensor,
    micro_batches: Sequence[MicroBatch],
    settings: TrainingConfig,
    processes: Processes = ALONE,
    *,
    kl_coef: float,
    keep: MicroBatch | None = None,
) -> Experience:
    """Log-probabilities, values and advantages of a rollout.

    Args:
        policy: the policy, as it was when it sampled.
        rollout: N answers.
        scores: [N] terminal rewards.
        micro_batches: the micro-batches that the update will use in this process.
        settings: algorithm, temperature, gamma and lambda.
        processes: the others have the other micro-batches; the result is whole in every process.
        kl_coef: weight of the KL as it is now: `training.kl_target` moves it from `settings.kl_coef`.
        keep: one of the micro-batches, whose forward pass is kept for the update (`Updater.kept_rows`).
    """
    mask = length_mask(rollout.lengths, max(rollout.lengths))
    logprobs, reference, entropy, values = (torch.zeros(mask.shape) for _ in range(4))
    kept: KeptPass | None = None
    tables = (logprobs, reference, entropy, values)
    # the same micro-batches as in the update: equal batches round equally, so the first ratio is exactly 1;
    # the kept one last, since what it keeps takes memory
    for rows in sorted(micro_batches, key=lambda rows: rows is keep):
        batch = policy.batch(*_ids(rollout, rows))
        with policy.rounded_weights():
            theirs = policy.answer_stats(batch, settings.temperature, reference=True)
        with torch.enable_grad() if rows is keep else policy.rounded_weights():
            ours = policy.answer_stats(batch, settings.temperature, entropy=True)
        if rows is keep:
            kept = KeptPass(rows, ours)
        columns = (ours.logprobs, theirs.logprobs, ours.entropy, ours.values)
        for table, tokens in zip(tables, columns, strict=True):
            assert tokens is not None
            # [M] back to [rows, T]: a mask is filled row by row, which is the order of a `TokenBatch`
            table[rows] = table[rows].masked_scatter(mask[rows], tokens.detach().cpu())
    # a row is filled in one process and 0 in all others, so the sum is exact
    processes.all_reduce(tables)
    # k1 and not k3: with k1 in the reward the policy gradient is that of the KL, with k3 it is biased
    rewards = token_rewards(scores, kl_k1(logprobs, reference), mask, kl_coef)
    advantages, returns = advantages_of(rewards, values, mask, settings)
    sampling: Mapping[str, float] = {}
    if rollout.sampler_logprobs is not None:
        weights, sampling = sampler_mismatch(
            logprobs, rollout.sampler_logprobs, mask, settings.importance_cap
        )
        # after whitening, whose mean and SD would otherwise depend on the sampler's precision
        advantages = advantages * weights
    return Experience(
        rollout, mask, logprobs, reference, entropy, values, advantages, returns, sampling, kept
    )


def advantages_of(rewards: Tensor, values: Tensor, mask: Tensor, settings: TrainingConfig) -> Advantages:
    """The advantages of the algorithm, [N, T].

    PPO gives every token an advantage of its own, whitened over the batch. RLOO and GRPO give all tokens of
    an answer one advantage, which compares the answer with the others to its prompt.
    """
    if settings.algorithm == "ppo":
        estimate = gae(rewards, values, mask, settings.gamma, settings.lam)
        return Advantages(whiten(estimate.advantages, mask), estimate.returns)
    compare = leave_one_out if settings.algorithm == "rloo" else group_standardised
    of_answers = compare(rewards.sum(dim=1), settings.answers_per_prompt)
    return Advantages(torch.where(mask, of_answers[:, None], 0.0), values)


def _ids(rollout: Rollout, rows: MicroBatch) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    return [rollout.prompts[row].ids for row in rows], [rollout.answers[row] for row in rows]
