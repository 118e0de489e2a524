"""PPO against a reward function: one step, and the state it leaves behind.

A step does these in order: sample answers; score them; take log-probabilities and values by the training
forward pass; advantages; PPO epochs; update the controls that learn; metrics. Controls are updated last, so
that no answer is scored by a control that has already learnt from it. Everything random is derived from
(seed, step, purpose), so a resumed run equals the uninterrupted one.
"""

import contextlib
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sarm_control.control import RewardBreakdown
from sarm_control.errors import DataError
from sarm_control.training.algorithm.experience import Experience, collect
from sarm_control.training.algorithm.losses import explained_variance, next_kl_coef
from sarm_control.training.algorithm.minibatches import MicroBatch, plan_minibatches, prompts_of_step
from sarm_control.training.algorithm.reward import RewardFunction, check_finite
from sarm_control.training.algorithm.update import Updater
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.distributed.processes import ALONE, Processes
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.distributed_sampler import RankSampler
from sarm_control.training.rollout.rollout import OURS, PromptRow, Rollout, sample_answers
from sarm_control.training.rollout.sampler import CachedSampler, Sampler

SAMPLES_KEPT = 4


@dataclass(frozen=True)
class StepReport:
    """One step's rows.

    Args:
        step: from 1.
        metrics: the same in two equal runs.
        timing: seconds by phase, and peak memory in MiB.
        samples: a few answers with their rewards.
    """

    step: int
    metrics: dict[str, float]
    timing: dict[str, float]
    samples: list[dict[str, Any]]


class TrainerState(NamedTuple):
    """What a checkpoint holds: tensors by file and name, and JSON values."""

    tensors: dict[str, dict[str, Tensor]]
    values: dict[str, Any]


class Trainer:
    """Trains a policy against a reward function.

    Args:
        policy: changed in place.
        reward: rewards the answers.
        prompts: each is answered once before any is answered again.
        settings: sizes, rates, seed.
        sampler: decodes the answers of a step; `CachedSampler` always decodes the reference's.
        processes: share the work. All do the same steps and have the same state. `prompts` and `settings`
            are those of the whole run, and `reward` is asked for the whole batch in each process.
    """

    def __init__(
        self,
        policy: Policy,
        reward: RewardFunction,
        prompts: Sequence[PromptRow],
        settings: TrainingConfig,
        *,
        sampler: Sampler = OURS,
        processes: Processes = ALONE,
    ) -> None:
        if not prompts:
            raise DataError("there are no prompts to train on")
        self.policy = policy
        self.reward = reward
        self.prompts = prompts
        self.settings = settings
        self.sampler = sampler
        self.processes = processes
        self.updater = Updater(policy, settings, processes)
        self.kl_coef = settings.kl_coef
        self.done = 0

    def calibrate(self) -> None:
        """Scores the reference policy's answers, once before the first step."""
        wanted = self.settings.reference_answers
        chosen = prompts_of_step(len(self.prompts), min(wanted, len(self.prompts)), 1, self.settings.seed)
        # rounded up: few prompts are answered several times each
        repeats = -(-wanted // len(chosen))
        self.reward.calibrate(self._sample(chosen, repeats, ("reference",), reference=True))

    def step(self) -> StepReport:
        """Does one step and reports it.

        Raises:
            TrainingError: a reward or gradient is NaN or infinite; the policy was not updated by it.
        """
        settings, step, clock = self.settings, self.done + 1, _Clock()
        # sharded layers are gathered once for what follows: hundreds of passes without gradients, over
        # weights that do not change before the update
        with self.policy.whole():
            with clock("rollout"):
                numbers = prompts_of_step(len(self.prompts), settings.prompts_per_step, step, settings.seed)
                rollout = self._sample(numbers, settings.answers_per_prompt, (step, "rollout"))
            with clock("reward"):
                rewards = self.reward.score(rollout)
                check_finite(rewards.scores, rollout, "the reward")
            plan = self._plan(rollout, step)
            with clock("logprobs"), self.policy.precision():
                scores = torch.from_numpy(rewards.scores.astype(np.float32))
                # the slice of every minibatch that this process also has in the update
                own = list(chain.from_iterable(map(self.processes.rank_slice, plan)))
                experience = collect(
                    self.policy,
                    rollout,
                    scores,
                    own,
                    settings,
                    self.processes,
                    kl_coef=self.kl_coef,
                    keep=self.updater.kept_rows(plan, step),
                )
        with clock("update"), self.policy.precision():
            update = self.updater.update(experience, plan, step)
        with clock("controls"):
            self.reward.learn(rewards)
        # last: a step that raised is not counted
        self.done = step
        metrics = {**_answer_metrics(experience, critic=settings.has_critic), **update, **rewards.means()}
        metrics["objective/kl_coef"] = self.kl_coef
        # for the next step: this step's rewards already used the old coefficient
        self.kl_coef = next_kl_coef(self.kl_coef, metrics["objective/kl"], settings.kl_target)
        timing = {**clock.seconds(sum(rollout.lengths)), **_peak_memory(self.policy.device)}
        return StepReport(step, metrics, timing, _samples(rollout, rewards))

    def state(self) -> TrainerState:
        """Everything that the next step depends on."""
        tensors = self.policy.state_tensors()
        tensors["optimizer"] = self.updater.state_tensors()
        tensors["controls"] = self.reward.state_tensors()
        filled = {name: named for name, named in tensors.items() if named}
        values = {"done": self.done, "kl_coef": self.kl_coef, "reward": self.reward.state()}
        return TrainerState(filled, values)

    def load_state(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self.policy.load_state_tensors(tensors)
        self.updater.load_state_tensors(tensors.get("optimizer", {}))
        self.reward.load_state(tensors.get("controls", {}), values["reward"])
        # checkpoints of older versions have no coefficient of their own
        self.kl_coef = float(values.get("kl_coef", self.settings.kl_coef))
        self.done = int(values["done"])

    def _plan(self, rollout: Rollout, step: int) -> list[list[MicroBatch]]:
        return plan_minibatches(
            [len(row.ids) + n for row, n in zip(rollout.prompts, rollout.lengths, strict=True)],
            minibatches=self.settings.minibatches,
            micro_batch=self.settings.micro_batch,
            seed=self.settings.seed,
            step=step,
            processes=self.processes.count,
        )

    def _sample(
        self, numbers: Sequence[int], repeats: int, purpose: Sequence[int | str], *, reference: bool = False
    ) -> Rollout:
        settings = self.settings
        sampler = CachedSampler(reference=True) if reference else self.sampler
        with self.policy.precision():
            return sample_answers(
                self.policy,
                [self.prompts[i] for i in numbers],
                answers_per_prompt=repeats,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                seed=settings.seed,
                purpose=purpose,
                sampler=RankSampler(sampler, self.processes) if self.processes.count > 1 else sampler,
            )


class _Clock:
    """Wall seconds by phase."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[f"seconds/{phase}"] = time.perf_counter() - start

    def seconds(self, tokens: int) -> dict[str, float]:
        """Seconds by phase, their sum, and answer tokens a second."""
        total = sum(self._seconds.values())
        return {**self._seconds, "seconds/step": total, "answer_tokens_per_second": tokens / total}


def _peak_memory(device: torch.device) -> dict[str, float]:
    """The process's peak in MiB, and on a GPU the peak of what PyTorch holds there."""
    # Linux counts in KiB
    peak = {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        peak["peak_cuda_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peak


def _answer_metrics(experience: Experience, *, critic: bool) -> dict[str, float]:
    rollout, mask = experience.rollout, experience.mask
    explained = explained_variance(experience.values[mask], experience.returns[mask])
    return {
        **experience.kl_metrics(),
        **experience.sampling,
        "policy/entropy": float(experience.entropy[mask].mean()),
        **({"value/explained_variance": explained} if critic else {}),
        "answers/length": sum(rollout.lengths) / len(rollout),
        "answers/ended": sum(rollout.ended) / len(rollout),
    }


def _samples(rollout: Rollout, rewards: RewardBreakdown) -> list[dict[str, Any]]:
    return [
        {
            "prompt": rollout.prompts[j].prompt,
            "response": rollout.texts[j],
            "ended": rollout.ended[j],
            **{name: float(column[j]) for name, column in rewards.columns.items()},
        }
        for j in range(min(SAMPLES_KEPT, len(rollout)))
    ]
