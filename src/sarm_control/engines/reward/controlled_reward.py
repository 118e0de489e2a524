"""The reward that engines and the server ask for: answers go in, and every part of their rewards comes out.

Shapes: `N` answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import (
    SHAPING,
    TOTAL,
    Controls,
    ControlState,
    ReferenceStatistics,
    RewardBreakdown,
    RewardRule,
    Shaping,
)
from sarm_control.data import Prompt
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model import RewardModel, Scored


class ControlledReward:
    """A reward model under controls, for callers that train a policy elsewhere.

    Scoring needs the model and is slow; the reward is algebra on the scores. What learns (the discriminator
    of the human-KL term, target rates) changes only in `learn`.

    Args:
        model: the reward model.
        controls: edits, penalties, human-KL term.
        missing_end: penalty for an answer that did not end: reward units, or SDs such as `1sd`.
        reference: statistics of the reference policy's answers, on which amounts such as `1sd` are measured.
        human: demonstrations for the human-KL term.
        learner: what the controls learnt elsewhere, for instance in a run; None starts without anything.
        standardize: whether values are `(total - mean) / sd` of the reference instead of reward units.
        shaping: `par` bounds the total, see `sarm_control.control.training_reward`.
        seed: seed of what the controls learn.

    Raises:
        ConfigError: a latent that the model does not have; amounts in SDs or quantiles without a reference; a
            human-KL term without demonstrations.
        ModelError: controls, statistics or demonstrations of another head.
    """

    def __init__(
        self,
        model: RewardModel,
        controls: Controls | None = None,
        *,
        missing_end: float | str = 0.0,
        reference: ReferenceStatistics | None = None,
        human: HumanBuffer | None = None,
        learner: ControlState | None = None,
        standardize: bool = False,
        shaping: Shaping = "none",
        seed: int = 0,
    ) -> None:
        given = controls or Controls()
        given.check(model.config.latents, model.fingerprint, model.kind)
        if reference is not None:
            reference.check(model.fingerprint)
        if human is not None:
            human.check(model.fingerprint)
        self.model = model
        self.reference = reference
        self.standardize = standardize
        # amounts become numbers once, here: measured again on later answers, the same
        # setting would drift with the policy
        self.rule = RewardRule.of(given, missing_end, reference, standardize=standardize, shaping=shaping)
        self.learner = learner or self.rule.controls.start(human, seed)
        self.learnt_batches = 0

    @property
    def controls(self) -> Controls:
        """The controls, with every amount as a number in reward units."""
        return self.rule.controls

    @property
    def shaping(self) -> Shaping:
        """How totals are bounded: `none`, or `par`."""
        return "none" if self.rule.par_sd is None else "par"

    @property
    def learns(self) -> bool:
        """Whether `learn` changes anything."""
        return bool(self.learner.state_dict())

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the parts of every reward; the same for every batch."""
        names = ["reward/model", "reward/edits"]
        # several penalties on one latent are one part, as in the breakdown
        names += dict.fromkeys(f"reward/penalty/{one.latent}" for one in self.controls.penalties)
        shaped = () if self.shaping == "none" else (SHAPING,)
        return (*names, "reward/human_kl", "reward/missing_end", *shaped, TOTAL)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[str], ended: Sequence[bool] | None = None
    ) -> Scored:
        """Latents and rewards of N answers, see `RewardModel.score`."""
        return self.model.score(prompts, responses, ended=ended)

    def breakdown(self, scored: Scored) -> RewardBreakdown:
        """The rewards of N scored answers, part by part. It changes nothing."""
        return self.rule.breakdown(scored, self.learner)

    def values(self, rewards: RewardBreakdown) -> NDArray[np.float64]:
        """[N] the numbers that an engine trains on: totals in reward units, or standardised totals."""
        return rewards.scores if self.standardize else rewards.columns[TOTAL]

    def learn(self, scored: Scored) -> None:
        """Lets the controls learn from answers that have their rewards, gathered from all processes.

        Raises:
            DataError: there are more answers than the human buffer has demonstrations.
        """
        self.learner.check_size(len(scored))
        self.learner.learn(scored)
        self.learnt_batches += 1

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What was learnt, as arrays that safetensors can hold."""
        return {**self.learner.state_dict(), "learnt_batches": np.array(self.learnt_batches)}

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Loads what `state_dict` returned.

        Raises:
            TrainingError: arrays are missing, or belong to other demonstrations or penalties.
        """
        self.learner.load_state_dict(arrays)
        self.learnt_batches = int(arrays["learnt_batches"])
