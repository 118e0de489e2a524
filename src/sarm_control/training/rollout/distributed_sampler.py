"""Sampling and scoring shared by processes: each gets a slice of the prompts, and all get the whole batch."""

from dataclasses import dataclass, replace
from typing import Any

from sarm_control.reward_model import RewardModel, Scored
from sarm_control.training.distributed.processes import Processes
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import Rollout
from sarm_control.training.rollout.sampler import Sampler, SampleRequest, Samples


@dataclass(frozen=True)
class RankSampler:
    """Each process samples the answers to its slice of the prompts.

    Every answer has a seed of its own, so the answers do not depend on the number of processes.

    Args:
        inner: decodes a slice.
        processes: share the work.
    """

    inner: Sampler
    processes: Processes

    def sample(self, policy: Policy, request: SampleRequest) -> Samples:
        """All answers, in every process; a process whose slice is empty only waits for the others."""
        mine, repeats = self.processes.part(len(request.prompts)), request.answers_per_prompt
        # row p * repeats + i is answer i to prompt p, so a slice of prompts is a slice of rows
        rows = slice(mine.start * repeats, mine.stop * repeats)
        own = replace(request, prompts=request.prompts[mine], seeds=request.seeds[rows])
        # layers are gathered once for the rollout; this waits for all, so without prompts it is done too
        with policy.whole():
            samples = self.inner.sample(policy, own) if own.prompts else Samples(())
        # an empty slice reports no log-probabilities, which must not decide for all below
        parts = [part for part in self.processes.gather(samples) if part.answers]
        answers = tuple(answer for part in parts for answer in part.answers)
        if any(part.logprobs is None for part in parts):
            return Samples(answers)
        return Samples(answers, tuple(row for part in parts for row in part.logprobs or ()))


def score_rank_slice(processes: Processes, model: RewardModel, rollout: Rollout, **how: Any) -> Scored:
    """Scores N answers once, each in one process, and gives all of them to every process.

    Args:
        processes: share the work.
        model: the reward model.
        rollout: the same N answers in every process.
        how: further arguments of `RewardModel.score`.
    """
    mine = processes.part(len(rollout))
    own = None
    if mine.start < mine.stop:
        prompts = [row.prompt for row in rollout.prompts[mine]]
        # an error in one process would leave the others waiting in `gather`: `check_finite` runs after it
        how = {"on_nonfinite": "keep", **how}
        own = model.score(prompts, rollout.texts[mine], ended=rollout.ended[mine], **how)
    return Scored.concatenate([part for part in processes.gather(own) if part is not None])
