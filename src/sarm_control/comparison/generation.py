"""Answers of a policy and of its base, with the same randomness for the same prompt.

Shapes: `P` prompts, `N` answers, `M` answer tokens of some rows, concatenated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from sarm_control.comparison.measures import PolicyAnswers
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.control import Floats
from sarm_control.reward_model import RewardModel
from sarm_control.training import CachedSampler, Policy, PromptRow, Rollout, kl_k1, kl_k3, sample_answers

# The random numbers of an answer are derived from its place in such a group, so this is not a setting.
_PROMPTS_AT_ONCE = 16


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Args:
        answers_per_prompt: at least 1.
        max_new_tokens: longest answer, the end-of-turn included.
        temperature: divides the logits, > 0.
        seed: the same seed gives every policy the same random numbers for the same prompt.
        batch: answers decoded together; changes memory, not results.
    """

    answers_per_prompt: int
    max_new_tokens: int
    temperature: float
    seed: int
    batch: int


class AnswerKL(NamedTuple):
    """KL of each answer to the base policy, nats: [N] k1 and [N] k3 sums over its tokens."""

    k1: Floats
    k3: Floats


def answer_prompts(
    policy: Policy,
    prompts: Sequence[PromptRow],
    sampling: Sampling,
    *,
    reference: bool = False,
    label: str = "Answering",
    progress: ProgressFactory = no_progress,
) -> Rollout:
    """Every prompt's answers; row `p * answers_per_prompt + i` is answer i to prompt p.

    Args:
        policy: the trained policy.
        prompts: P prompts.
        sampling: how answers are sampled.
        reference: answer with the base policy instead.
        label: of the progress bar.
        progress: see `sarm_control.console.progress`.
    """
    parts = []
    with progress(label, len(prompts)) as advance, policy.precision():
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            group = prompts[start : start + _PROMPTS_AT_ONCE]
            parts.append(
                sample_answers(
                    policy,
                    group,
                    answers_per_prompt=sampling.answers_per_prompt,
                    max_new_tokens=sampling.max_new_tokens,
                    temperature=sampling.temperature,
                    seed=sampling.seed,
                    # not the policy's name: with the same random numbers for all, differences are paired
                    purpose=("compare", start),
                    sampler=CachedSampler(sampling.batch, reference),
                )
            )
            advance(len(group))
    return _concatenated(parts)


@torch.no_grad()
def kl_to_base(policy: Policy, rollout: Rollout, sampling: Sampling) -> AnswerKL:
    """`log pi(y) - log pi_base(y)` of answers the trained policy sampled, at the sampling temperature."""
    k1, k3 = np.zeros(len(rollout)), np.zeros(len(rollout))
    # batches of similar length waste the least on padding
    by_length = np.argsort(
        [len(row.ids) + n for row, n in zip(rollout.prompts, rollout.lengths, strict=True)], kind="stable"
    )
    with policy.precision():
        for start in range(0, len(rollout), sampling.batch):
            rows = by_length[start : start + sampling.batch]
            batch = policy.batch([rollout.prompts[j].ids for j in rows], [rollout.answers[j] for j in rows])
            # in float64: a sum over an answer takes differences of logarithms that nearly cancel
            ours = policy.answer_stats(batch, sampling.temperature).logprobs.double()
            base = policy.answer_stats(batch, sampling.temperature, reference=True).logprobs.double()
            row_of_token = batch.rows.cpu().numpy()
            size = len(rows)
            k1[rows] = np.bincount(row_of_token, weights=kl_k1(ours, base).cpu().numpy(), minlength=size)
            k3[rows] = np.bincount(row_of_token, weights=kl_k3(base - ours).cpu().numpy(), minlength=size)
    return AnswerKL(k1, k3)


def scored_answers(
    rollout: Rollout,
    rm: RewardModel,
    sampling: Sampling,
    *,
    divergence: AnswerKL | None = None,
    progress: ProgressFactory = no_progress,
) -> PolicyAnswers:
    """The answers with their rewards and latents; a `divergence` for a trained policy's."""
    scored = rm.score(
        [row.prompt for row in rollout.prompts], list(rollout.texts), ended=rollout.ended, progress=progress
    )
    return PolicyAnswers(
        responses=rollout.texts,
        prompts=np.arange(len(rollout)) // sampling.answers_per_prompt,
        scored=scored,
        lengths=np.asarray(rollout.lengths, dtype=np.int64),
        kl=None if divergence is None else divergence.k1,
        kl_k3=None if divergence is None else divergence.k3,
    )


def _concatenated(parts: Sequence[Rollout]) -> Rollout:
    return Rollout(
        prompts=tuple(row for part in parts for row in part.prompts),
        answers=tuple(answer for part in parts for answer in part.answers),
        texts=tuple(text for part in parts for text in part.texts),
        ended=tuple(flag for part in parts for flag in part.ended),
    )
