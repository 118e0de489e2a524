"""The reward of answers: the protocol of a reward function, and the SARM under controls as one.

The trainer knows only `RewardFunction`. Everything is in reward units except `scores`, which is what PPO
sees: `(total - mean) / sd` with the mean and SD of the reference policy's unedited rewards, frozen
before the first step. A constant added to every reward therefore changes nothing.

Shapes: `N` answers.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sarm_control.control import (
    TOTAL,
    Array,
    Controls,
    PatternPenalty,
    ReferenceStatistics,
    RewardBreakdown,
    RewardRule,
    Shaping,
)
from sarm_control.errors import TrainingError
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model import RewardModel, Scored
from sarm_control.training.algorithm.reference_rewards import PROMPTS, REWARDS, ReferenceRewards
from sarm_control.training.distributed.processes import ALONE, Processes
from sarm_control.training.rollout.distributed_sampler import score_rank_slice
from sarm_control.training.rollout.rollout import Rollout


class RewardFunction(Protocol):
    """Anything that rewards answers; `sarm train` uses `PolicyReward`."""

    def calibrate(self, rollout: Rollout) -> None:
        """Learns the scale of rewards from the reference policy's answers, once before the first step."""

    def score(self, rollout: Rollout) -> RewardBreakdown:
        """Rewards of answers; changes no state."""

    def learn(self, rewards: RewardBreakdown) -> None:
        """Updates the controls by a scored batch; called once a step, after the policy's update."""

    def state_tensors(self) -> dict[str, Tensor]:
        """The state of the controls that learn."""

    def state(self) -> dict[str, Any]:
        """What `calibrate` measured, as JSON."""

    def load_state(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restores what `state_tensors` and `state` returned."""


class PolicyReward:
    """The SARM's reward under controls, minus a penalty on answers that did not end.

    Args:
        model: the reward model.
        controls: edits, penalties and human-KL term; symbolic amounts are resolved by `calibrate`.
        missing_end: penalty on an answer that hit the length limit: reward units, or text such as `1sd`.
        standardize: divide by the reference SD; the reference mean is subtracted in any case.
        shaping: `par` bounds the total, see `sarm_control.control.training_reward`; it comes last.
        patterns: penalties on texts.
        references: rewards of reference answers to each prompt, for `par`; None takes their mean over all
            prompts.
        human: demonstrations for the human-KL term.
        seed: of the controls that learn.
        processes: share the scoring; all ask for the same answers, and learn from all of them.
    """

    def __init__(
        self,
        model: RewardModel,
        controls: Controls,
        *,
        missing_end: float | str = "1sd",
        standardize: bool = True,
        shaping: Shaping = "none",
        patterns: tuple[PatternPenalty, ...] = (),
        references: ReferenceRewards | None = None,
        human: HumanBuffer | None = None,
        seed: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        # before the first answer: a control of another head would act on unrelated latents
        controls.check(model.config.latents, model.fingerprint, model.kind)
        self.model = model
        self.controls = controls
        self.missing_end = missing_end
        self.standardize = standardize
        self.shaping: Shaping = shaping
        self.patterns = patterns
        self.references = references if shaping == "par" else None
        self.human = human
        self.seed = seed
        self.processes = processes
        self.learner = controls.start(human, seed)
        self.statistics: ReferenceStatistics | None = None
        self._rule = RewardRule(controls)

    def calibrate(self, rollout: Rollout) -> None:
        """Freezes the reference statistics; the controls then learn from the reference's latents first."""
        scored = self.scored(rollout, "the reference policy's reward")
        # of every penalty, not only of those whose tau is a quantile: the monitors compare with them
        latents = {penalty.latent for penalty in self.controls.penalties}
        self._freeze(ReferenceStatistics.from_scored(scored, latents))
        # after `_freeze`, which starts the controls anew
        self.learner.learn(scored)

    def score(self, rollout: Rollout) -> RewardBreakdown:
        """Rewards of answers, with every part as its own column.

        Raises:
            TrainingError: `calibrate` was not called, or a reward is NaN or infinite.
        """
        return self.breakdown(self.scored(rollout), rollout)

    def breakdown(self, scored: Scored, rollout: Rollout) -> RewardBreakdown:
        """Rewards of answers that were scored before, under the controls as they are now.

        Args:
            scored: N answers.
            rollout: the same answers: `references` looks their prompts up, and `patterns` are searched for in
                their texts.

        Raises:
            TrainingError: `calibrate` was not called.
        """
        if self.statistics is None:
            raise TrainingError("the reward was not calibrated on the reference policy's answers")
        reference = None
        if self.references is not None:
            reference = self.references.of(rollout.prompts, self.reference_rewards)
        return self._rule.breakdown(scored, self.learner, reference, rollout.texts)

    @property
    def rule(self) -> RewardRule:
        """How the reward is made of its parts; after `calibrate` every amount is a number."""
        return self._rule

    def learn(self, rewards: RewardBreakdown) -> None:
        """Updates the human-KL discriminator and the penalties with a target rate by a scored batch.

        Raises:
            DataError: it has more answers than the human buffer has demonstrations.
        """
        if rewards.scored is not None:
            self.learner.check_size(len(rewards.scored))
            self.learner.learn(rewards.scored)

    def state_tensors(self) -> dict[str, Tensor]:
        """The state of the controls that learn; empty when none does."""
        learnt = {name: torch.as_tensor(array) for name, array in self.learner.state_dict().items()}
        return learnt if self.references is None else {**learnt, **self.references.state_tensors()}

    def state(self) -> dict[str, Any]:
        """The reference statistics."""
        return {"statistics": None if self.statistics is None else self.statistics.to_dict()}

    def load_state(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restores a checkpoint's statistics and the state of the controls.

        Raises:
            TrainingError: they belong to another head, buffer or penalties.
        """
        statistics = ReferenceStatistics.from_dict(state["statistics"])
        # frozen SDs and quantiles mean nothing for another head
        if statistics.fingerprint != self.model.fingerprint:
            raise TrainingError(
                f"the checkpoint was made with head {statistics.fingerprint}, "
                f"this reward model has {self.model.fingerprint}",
                hint="use the reward model the run was started with",
            )
        self._freeze(statistics)
        if self.references is not None:
            self.references.load_state_tensors(tensors)
        learnt = {name: tensor.numpy() for name, tensor in tensors.items() if name not in (PROMPTS, REWARDS)}
        self.learner.load_state_dict(learnt)

    def scored(self, rollout: Rollout, what: str = "the reward", *, keep_states: bool = False) -> Scored:
        """The latents and unedited rewards of answers.

        Args:
            rollout: N answers.
            what: the reward's name in an error.
            keep_states: with the trunk states [N, D].

        Raises:
            TrainingError: a reward is NaN or infinite.
        """
        further = {"keep_states": True} if keep_states else {}
        scored = score_rank_slice(self.processes, self.model, rollout, **further)
        check_finite(scored.rewards.astype(np.float64), rollout, what)
        return scored

    def reference_rewards(self, rollout: Rollout) -> Array:
        """[N] totals of answers under the controls that do not learn, for `shaping`.

        Raises:
            TrainingError: a reward is NaN or infinite.
        """
        scored = self.scored(rollout, "the reference policy's reward")
        return np.asarray(self._rule.frozen().breakdown(scored, texts=rollout.texts).columns[TOTAL])

    def _freeze(self, statistics: ReferenceStatistics) -> None:
        self.statistics = statistics
        self._rule = RewardRule.of(
            self.controls,
            self.missing_end,
            statistics,
            standardize=self.standardize,
            shaping=self.shaping,
            patterns=self.patterns,
        )
        # anew: a target rate counts firings above its threshold, which is a number only from now on
        self.learner = self._rule.controls.start(self.human, self.seed)


def check_finite(values: Array, rollout: Rollout, what: str) -> None:
    """Stops a run that has a reward of NaN or infinity.

    Raises:
        TrainingError: naming the prompt's row and showing the answer.
    """
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        j = int(bad[0])
        raise TrainingError(
            f"{what} of an answer to {rollout.prompts[j].where} is {values[j]}: {rollout.texts[j][:80]!r}",
            hint="look at that prompt; a reward model in float16 can overflow, try bfloat16 or float32",
        )
