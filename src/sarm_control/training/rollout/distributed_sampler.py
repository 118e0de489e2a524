"""Sampling and scoring dealt out to processes; what comes back is the whole batch, in every one of them."""

from dataclasses import dataclass, replace
from typing import Any

from sarm_control.reward_model import RewardModel, Scored
from sarm_control.training.distributed.processes import Processes
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import Rollout
from sarm_control.training.rollout.sampler import Sampler, SampleRequest, Samples


@dataclass(frozen=True)
class RankSampler:
    """Every process has a part of the prompts answered; seeds belong to answers, so by whom does not matter.

    Args:
        inner: who answers.
        processes: who shares the work.
    """

    inner: Sampler
    processes: Processes

    def sample(self, policy: Policy, request: SampleRequest) -> Samples:
        """All answers; a process without a prompt only waits for the others'."""
        mine, repeats = self.processes.part(len(request.prompts)), request.answers_per_prompt
        rows = slice(mine.start * repeats, mine.stop * repeats)
        own = replace(request, prompts=request.prompts[mine], seeds=request.seeds[rows])
        with policy.whole():
            samples = self.inner.sample(policy, own) if own.prompts else Samples(())
        parts = [part for part in self.processes.gather(samples) if part.answers]
        answers = tuple(answer for part in parts for answer in part.answers)
        if any(part.logprobs is None for part in parts):
            return Samples(answers)
        return Samples(answers, tuple(row for part in parts for row in part.logprobs or ()))


def score_rank_slice(processes: Processes, model: RewardModel, rollout: Rollout, **how: Any) -> Scored:
    """Scores N answers once, each in one process, and gives all of them to every process.

    Args:
        processes: who shares the work.
        model: the reward model.
        rollout: the same N answers in every process.
        how: further arguments of `RewardModel.score`.
    """
    mine = processes.part(len(rollout))
    own = None
    if mine.start < mine.stop:
        prompts = [row.prompt for row in rollout.prompts[mine]]
        # an error in one process alone would leave the others waiting: `check_finite` looks at all answers
        how = {"on_nonfinite": "keep", **how}
        own = model.score(prompts, rollout.texts[mine], ended=rollout.ended[mine], **how)
    return Scored.concatenate([part for part in processes.gather(own) if part is not None])
