"""From scored answers to training rewards: controls, penalties on texts and on missing ends, shaping.

Shaping by Preference As Reward (PAR) bounds the reward, so that the last SDs of the reward model's score
add next to nothing.

Shapes: `N` answers, `M` reference answers to each prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.controls import Controls
from sarm_control.control.edits.specs import in_sd
from sarm_control.control.pattern_penalty import PatternPenalty, pattern_amounts
from sarm_control.control.reference import ReferenceStatistics
from sarm_control.control.state import ControlState
from sarm_control.errors import ConfigError
from sarm_control.reward_model import Scored

Array = NDArray[np.float64]
Shaping = Literal["none", "par"]


def preference_as_reward(total: Array, mean: float, sd: float, reference: Array | None = None) -> Array:
    """[N] `mean + sd * average of sigmoid((total - r_ref) / sd)`: between `mean` and `mean + sd`.

    Preference As Reward (arXiv 2502.18770) averages `sigmoid(r - r_ref)` over reference answers to the same
    prompt; here the difference is taken in SDs of the reference policy's rewards.

    Args:
        total: [N] under all controls, the penalty on answers that did not end included.
        mean: of the reference policy's rewards, frozen before the first step.
        sd: of the same rewards, > 0.
        reference: [N, M] rewards of M reference answers to the prompt of each answer; without them `mean`
            is used for every prompt.
    """
    away = total[:, None] - (mean if reference is None else reference)
    # tanh does not overflow where exp would
    return np.asarray(mean + sd * 0.5 * (1.0 + np.tanh(away / (2.0 * sd))).mean(axis=1))


TOTAL, MISSING_END, SHAPING = "reward/total", "reward/missing_end", "reward/shaping"
PATTERN = "reward/pattern"


@dataclass(frozen=True, eq=False)
class RewardBreakdown:
    """The rewards of N answers, part by part.

    Args:
        scores: [N] float64, the terminal reward that the policy is trained on.
        columns: metric name -> [N] signed parts in reward units; all but `reward/total` sum to it.
        metrics: further numbers of the batch, such as `latent/<id>/rate`.
        scored: the latents behind the rewards, for controls that learn from them.
    """

    scores: Array
    columns: Mapping[str, Array]
    metrics: Mapping[str, float] = field(default_factory=dict)
    scored: Scored | None = None

    def means(self) -> dict[str, float]:
        """The mean of every column, and `metrics`."""
        return {**self.metrics, **{name: float(column.mean()) for name, column in self.columns.items()}}


@dataclass(frozen=True)
class RewardRule:
    """How an answer is rewarded, with a number for every amount. A score is `(total - mean) / scale`.

    Args:
        controls: resolved.
        missing_end: subtracted from the reward of an answer that did not end, reward units, >= 0.
        mean: reward units.
        scale: reward units, > 0.
        par_sd: the SD of the reference rewards when totals are shaped by `preference_as_reward`, else None.
        patterns: resolved penalties on texts.
    """

    controls: Controls
    missing_end: float = 0.0
    mean: float = 0.0
    scale: float = 1.0
    par_sd: float | None = None
    patterns: tuple[PatternPenalty, ...] = ()

    @classmethod
    def of(
        cls,
        controls: Controls,
        missing_end: float | str,
        reference: ReferenceStatistics | None,
        *,
        standardize: bool,
        shaping: Shaping = "none",
        patterns: tuple[PatternPenalty, ...] = (),
    ) -> "RewardRule":
        """The rule with symbolic amounts resolved by the reference policy's answers.

        Args:
            controls: with numbers or symbolic amounts.
            missing_end: reward units, or SDs of the reference reward such as `1sd`.
            reference: None where every amount is a number already.
            standardize: scores are `(total - mean) / sd` of the reference; else only the mean is subtracted.
            shaping: `par` bounds the total, see `preference_as_reward`.
            patterns: penalties on texts.

        Raises:
            ConfigError: something is in SDs or quantiles, or to be standardised, and there is no reference.
        """
        in_sds = in_sd(missing_end, "missing_end_penalty")
        if reference is None:
            symbolic = [*_symbolic(controls), *(["missing_end_penalty"] if in_sds else [])]
            symbolic += [
                f"the penalty on the pattern {one.pattern!r}" for one in patterns if not one.resolved
            ]
            if symbolic or standardize or shaping != "none":
                what = f"{symbolic[0]} is given in SDs or quantiles" if symbolic else "standardised rewards"
                raise ConfigError(
                    f"{what}: that needs answers of the reference policy",
                    hint="give them, or write every amount in reward units",
                )
            return cls(controls, 0.0 if in_sds is not None else float(missing_end), patterns=patterns)
        amount = float(missing_end) if in_sds is None else in_sds * reference.sd
        scale = reference.sd if standardize else 1.0
        par_sd = reference.sd if shaping == "par" else None
        found = tuple(one.resolve(reference) for one in patterns)
        return cls(controls.resolve(reference), amount, reference.mean, scale, par_sd, found)

    def frozen(self) -> "RewardRule":
        """The rule without learning controls and shaping, whose rewards of reference answers never change."""
        fixed = tuple(penalty for penalty in self.controls.penalties if penalty.target_rate is None)
        return replace(self, controls=replace(self.controls, penalties=fixed, human_kl=None), par_sd=None)

    def breakdown(
        self,
        scored: Scored,
        learner: ControlState | None = None,
        reference: Array | None = None,
        texts: Sequence[str] | None = None,
    ) -> RewardBreakdown:
        """The rewards of answers; they depend only on the answers and on the state of the controls.

        Args:
            scored: N answers.
            learner: the state of the controls.
            reference: [N, M] rewards of reference answers to the same prompts, for `preference_as_reward`.
            texts: [N] the answers, which `patterns` are searched for in.

        Raises:
            ConfigError: see `Controls.shape`; there are patterns and no texts.
            ModelError: the answers were scored with another head.
        """
        shaped = self.controls.shape(scored, learner)
        # outside the controls: an answer that hit the limit was scored with an end that it does not have
        missing = np.where(np.asarray(scored.ended), 0.0, -self.missing_end)
        total = shaped.total + missing
        columns = {**shaped.columns(), MISSING_END: missing}
        if self.patterns:
            columns[PATTERN] = pattern_amounts(self.patterns, texts, len(scored))
            total = total + columns[PATTERN]
        if self.par_sd is not None:
            bounded = preference_as_reward(total, self.mean, self.par_sd, reference)
            # what shaping changed is a column too, so that the columns still sum to the total
            columns[SHAPING], total = bounded - total, bounded
        columns[TOTAL] = total
        return RewardBreakdown((total - self.mean) / self.scale, columns, shaped.info, scored)


def _symbolic(controls: Controls) -> list[str]:
    """The controls that cannot be used without a reference, in words."""
    penalties = [
        f"the penalty on {penalty.watched}"
        for penalty in controls.penalties
        if not penalty.resolved or (penalty.target_rate is not None and controls.reward_sd is None)
    ]
    kl = controls.human_kl
    return [*penalties, *(["the beta of human_kl"] if kl is not None and not kl.resolved else [])]
