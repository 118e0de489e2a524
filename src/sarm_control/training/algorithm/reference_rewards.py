"""Rewards of the untrained policy's own answers to a prompt, which PAR compares an answer with.

PAR (Preference As Reward, arXiv 2502.18770) bounds a reward by a sigmoid around these. A prompt's reference
answers are sampled and scored when a step first draws the prompt, and are kept for the run and in its
checkpoints. Their random numbers are derived from the prompt's tokens alone, so the answers do not depend on
the step or on the other prompts in it.

Shapes: `N` answers, `P` prompts seen so far, `M` reference answers to each prompt.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.data import prompt_text
from sarm_control.seeds import derive_seed
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.distributed.processes import ALONE, Processes
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.distributed_sampler import RankSampler
from sarm_control.training.rollout.rollout import PromptRow, Rollout, sample_answers
from sarm_control.training.rollout.sampler import CachedSampler

Array = NDArray[np.float64]
PROMPTS, REWARDS = "par/prompts", "par/rewards"


class ReferenceRewards:
    """Rewards of reference answers, by prompt.

    Args:
        policy: its frozen reference answers.
        training: longest answer, temperature, seed.
        answers: M, at least 1.
        processes: share the sampling; all must ask for the same prompts.
    """

    def __init__(
        self, policy: Policy, training: TrainingConfig, answers: int, processes: Processes = ALONE
    ) -> None:
        self.policy = policy
        self.training = training
        self.answers = answers
        self.processes = processes
        self._known: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, prompts: Sequence[PromptRow], score: Callable[[Rollout], Array]) -> Array:
        """[N, M] the rewards of the reference answers to the prompt of each answer.

        Args:
            prompts: [N], often the same one several times.
            score: gives reference answers their rewards.
        """
        keys = [self._key(row) for row in prompts]
        # a prompt often has several answers in a batch; its reference answers are sampled once
        new = {key: row for key, row in zip(keys, prompts, strict=True) if key not in self._known}
        if new:
            # row p M + i is answer i to prompt p
            rewards = score(self._sample(new)).reshape(len(new), self.answers)
            self._known.update(zip(new, rewards, strict=True))
        return np.stack([self._known[key] for key in keys])

    def state_tensors(self) -> dict[str, Tensor]:
        """[P] hashed prompts and [P, M] rewards; empty before the first prompt."""
        if not self._known:
            return {}
        return {
            PROMPTS: torch.tensor(list(self._known), dtype=torch.int64),
            REWARDS: torch.from_numpy(np.stack(list(self._known.values()))),
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state_tensors` returned."""
        if PROMPTS in tensors:
            self._known = dict(zip(tensors[PROMPTS].tolist(), tensors[REWARDS].numpy(), strict=True))

    def _key(self, row: PromptRow) -> int:
        # cut prompts may end alike; the reward model reads them whole
        whole = (prompt_text(row.prompt),) if row.cut else ()
        return derive_seed(self.training.seed, "reference of", *row.ids, *whole)

    def _sample(self, prompts: Mapping[int, PromptRow]) -> Rollout:
        with self.policy.precision():
            return sample_answers(
                self.policy,
                list(prompts.values()),
                answers_per_prompt=self.answers,
                max_new_tokens=self.training.max_new_tokens,
                temperature=self.training.temperature,
                seed=self.training.seed,
                purpose=("reference of",),
                # of the prompt alone: its reference answers are the same whatever else is in the batch
                seeds=[derive_seed(key, number) for key in prompts for number in range(self.answers)],
                sampler=RankSampler(CachedSampler(reference=True), self.processes),
            )
