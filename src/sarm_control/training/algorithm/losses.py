"""The arithmetic of PPO and of its critic-free relatives: advantages, whitening, losses, KL estimates.

Pure functions of tensors; nothing here logs or reads settings. Sources: Schulman et al., PPO
(arXiv 1707.06347) and GAE (arXiv 1506.02438); RLOO (arXiv 2402.14740); GRPO (arXiv 2402.03300); KL
estimates: joschu.net/blog/kl-approx.html; the moving KL coefficient: Ziegler et al., Fine-Tuning Language
Models from Human Preferences (arXiv 1909.08593), section 2.2.

On one frozen batch the numbers of TRL 1.12.0's PPO are equal, but for these differences, which are intended:

- The score is on the last answer token, and the value after it is 0. TRL puts both one column later where
  there is room.
- A loss is a sum over tokens divided by all tokens of the update. TRL averages the means of micro-batches.
- Advantages are whitened over all processes by the SD over all tokens. TRL whitens by process, by the
  unbiased SD.
- The end is found by lengths, not by `ids == pad`; old log-probabilities are of the training pass.

Shapes: `N` answers, `T` tokens of the longest answer, `M` answer tokens of some rows, concatenated
row after row. An answer's tokens are its first `lengths[n]` columns; the rest is padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Advantages(NamedTuple):
    """Float32 advantages and the returns the value head is fitted to, both [N, T], 0 in padding."""

    advantages: Float[Tensor, "N T"]
    returns: Float[Tensor, "N T"]


class PolicyLoss(NamedTuple):
    """Sums over the M tokens given.

    Args:
        loss: scalar with gradient; divide by the token count of the whole update.
        clipped: number of tokens whose ratio was clipped.
        approx_kl: k3 estimate of KL(old || new).
    """

    loss: Float[Tensor, ""]
    clipped: Int[Tensor, ""]
    approx_kl: Float[Tensor, ""]


def length_mask(lengths: Sequence[int] | Int[Tensor, " N"], width: int) -> Bool[Tensor, "N {width}"]:
    """[N, width] bool, true on the first `lengths[n]` columns.

    It is made from lengths and not from token ids, since a policy may choose the padding token.
    """
    return torch.arange(width)[None, :] < torch.as_tensor(lengths)[:, None]


def token_rewards(
    scores: Float[Tensor, " N"], kl: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], kl_coef: float
) -> Float[Tensor, "N T"]:
    """[N, T] float32: `-kl_coef * kl_t` on every token, plus the score on the last one.

    Args:
        scores: [N] the terminal reward of each answer.
        kl: [N, T] k1 estimate of each token, `log pi_old - log pi_ref`.
        mask: [N, T] bool; every row has at least one token.
        kl_coef: weight of the KL.
    """
    # the KL is known for each token and is charged there; the score is known only for the whole answer
    rewards = torch.where(mask, -kl_coef * kl.float(), 0.0)
    rows = torch.arange(len(scores))
    # an answer's tokens are its first columns, so their number less one is the last one's column
    rewards[rows, mask.sum(dim=1) - 1] += scores.float()
    return rewards


def gae(
    rewards: Float[Tensor, "N T"],
    values: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    gamma: float,
    lam: float,
) -> Advantages:
    """Generalised advantage estimation over the answer's tokens; the value after the end is 0.

    `delta_t = r_t + gamma V_(t+1) - V_t`, `A_t = delta_t + gamma lam A_(t+1)`, `return_t = A_t + V_t`.

    Args:
        rewards: [N, T].
        values: [N, T] value of the state that each token was chosen in.
        mask: [N, T] bool.
        gamma: discount per token, 0..1.
        lam: lambda, 0..1.
    """
    # 0 in padding, so that the value after each row's own last token is 0
    values = torch.where(mask, values.float(), 0.0)
    rewards = torch.where(mask, rewards.float(), 0.0)
    advantages = torch.zeros_like(values)
    # both are 0 after the end: what follows an answer has no worth
    next_value = next_advantage = torch.zeros(len(values))
    # along tokens, from the last one, since A_t needs A_(t+1); rows are independent of each other
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(mask[:, t], delta + gamma * lam * next_advantage, 0.0)
        advantages[:, t], next_value = next_advantage, values[:, t]
    # A + V is the lambda-return, the target of TD(lambda)
    return Advantages(advantages, torch.where(mask, advantages + values, 0.0))


def leave_one_out(totals: Float[Tensor, " N"], group: int) -> Float[Tensor, " N"]:
    """RLOO: [N] each answer's reward minus the mean reward of the other answers to its prompt.

    Args:
        totals: [N] reward of each answer, KL included; the answers to a prompt are `group` successive rows.
        group: answers to each prompt, at least 2.
    """
    grouped = totals.float().view(-1, group)
    # the baseline leaves the answer itself out, so it is independent of it and adds no bias
    others = (grouped.sum(dim=1, keepdim=True) - grouped) / (group - 1)
    return (grouped - others).flatten()


def group_standardised(totals: Float[Tensor, " N"], group: int) -> Float[Tensor, " N"]:
    """GRPO: [N] each answer's reward minus its prompt's mean, over its prompt's SD (unbiased, + 1e-4).

    Args:
        totals: [N] as in `leave_one_out`.
        group: answers to each prompt, at least 2.
    """
    grouped = totals.float().view(-1, group)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    # equal rewards have an SD of 0: the 1e-4 makes their advantages 0 and not NaN
    return (centred / (grouped.std(dim=1, keepdim=True) + 1e-4)).flatten()


def whiten(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Mean 0 and SD 1 over all masked entries of the whole batch at once; 0 in padding.

    Entries that are all equal become 0.
    """
    # in float64: the sum over a long batch would lose the small differences that are left
    chosen = values[mask].double()
    centred = values.double() - chosen.mean()
    # without the 1e-8 a batch of equal values would be divided by 0
    scale = torch.rsqrt(chosen.var(unbiased=False) + 1e-8)
    return torch.where(mask, centred * scale, 0.0).float()


def policy_loss(
    new: Float[Tensor, " M"], old: Float[Tensor, " M"], advantages: Float[Tensor, " M"], clip: float
) -> PolicyLoss:
    """The clipped surrogate, summed over tokens.

    Args:
        new: [M] log-probabilities with gradient.
        old: [M] log-probabilities at rollout.
        advantages: [M].
        clip: the clipped ratio stays within `1 - clip .. 1 + clip`.
    """
    # exp of a difference and not a quotient of probabilities, which underflow
    log_ratio = new - old
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    # the larger loss of the two: clipping may only take gradient away, never give more
    loss = torch.maximum(unclipped, clipped).sum()
    # clipped counts tokens whose gradient the clip removed; a ratio that moved against its advantage keeps
    # its gradient however far it went. The old policy drew the tokens, so k3 estimates KL(old || new)
    return PolicyLoss(loss, (clipped > unclipped).sum(), kl_k3(log_ratio.detach()).sum())


def value_loss(
    new: Float[Tensor, " M"], old: Float[Tensor, " M"], returns: Float[Tensor, " M"], clip: float
) -> Float[Tensor, ""]:
    """Half the squared error of the value or of the clipped value, whichever is larger, summed over tokens.

    Args:
        new: [M] values with gradient.
        old: [M] values at rollout.
        returns: [M].
        clip: the clipped value stays within `old - clip .. old + clip`.
    """
    # value clipping as in OpenAI Baselines' ppo2: a value that moved far enough towards its return gets no
    # further gradient, one that moved away from it keeps its gradient
    clipped = old + (new - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((new - returns) ** 2, (clipped - returns) ** 2).sum()


def kl_k1(log_p: Float[Tensor, "*shape"], log_q: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Per token `log p - log q` on samples of p: unbiased for KL(p || q), may be negative."""
    return log_p - log_q


def kl_k3(log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Per token `exp(d) - 1 - d` with `d = log q - log p` on samples of p: unbiased, never negative."""
    # expm1 keeps the small difference that exp(d) - 1 would round away near d = 0
    return torch.expm1(log_ratio) - log_ratio


def explained_variance(values: Float[Tensor, " M"], returns: Float[Tensor, " M"]) -> float:
    """`1 - var(returns - values) / var(returns)` over [M] tokens; 0 when the returns do not vary."""
    variance = returns.double().var(unbiased=False)
    # equal returns leave nothing to explain, and rounding would decide the quotient
    if variance <= 1e-12:
        return 0.0
    return float(1 - (returns.double() - values.double()).var(unbiased=False) / variance)


# the numbers of Ziegler et al.
GAIN = 0.1
LARGEST_ERROR = 0.2


def next_kl_coef(coef: float, kl: float, target: float | None) -> float:
    """The KL coefficient of the next step; it moves by at most 2 % and stays above 0.

    `e = clip((KL - target) / target, -0.2, 0.2)`, `coef <- coef (1 + 0.1 e)`: a policy too far from the
    reference gets a larger coefficient, one too near a smaller one.

    Args:
        coef: of the step that was just done, >= 0.
        kl: that step's KL to the reference, in nats per answer; an estimate, which may be negative.
        target: nats per answer, > 0; None leaves the coefficient alone.
    """
    if target is None:
        return coef
    # an estimate of one step is noisy: the clip bounds what a single step can change
    error = (kl - target) / target
    return coef * (1 + GAIN * min(max(error, -LARGEST_ERROR), LARGEST_ERROR))
