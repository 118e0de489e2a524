"""The evaluation step: the policy and its reference answer fixed prompts, and the difference is explained.

Nothing learns here. Both get the same random numbers for the same prompt, in every evaluation. The
reference answers are made once; a resumed run makes the same again.

Shapes: `N` prompts, one answer each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import TOTAL, RewardBreakdown
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.monitor.checks import Finding, over_refusal
from sarm_control.training.monitor.checks.proxy_gap import Gains
from sarm_control.training.monitor.ledger_file import Entry, ledger_entries, most_rewarded
from sarm_control.training.monitor.paired_checks import PolicySide, families_of, findings_of
from sarm_control.training.monitor.reference_kl import kl_of_answers
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.distributed_sampler import RankSampler
from sarm_control.training.rollout.rollout import PromptRow, Rollout, sample_answers
from sarm_control.training.rollout.sampler import CachedSampler

Gold = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]
"""Prompts and answers to the worth of each answer, by something no policy trains on."""
GOLD = "evaluation/gold"


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Args:
        metrics: `evaluation/...`: means over the answers, equal in equal runs.
        findings: of the monitors.
        entries: the ledger since the untrained policy.
    """

    metrics: dict[str, float]
    findings: list[Finding]
    entries: list[Entry]

    def line(self) -> str:
        """The change, the five latents that paid most for it, what the controls and the gold reward say."""
        change = sum(entry.change for entry in self.entries)
        rewarded = [f"latent {entry.latent} {entry.change:+.3g}" for entry in most_rewarded(self.entries)]
        parts = [
            f"{entry.term}{'' if entry.latent is None else f' {entry.latent}'} {entry.change:+.3g}"
            for entry in self.entries
            if entry.term not in ("latent", "rounding") and entry.change
        ]
        gold = self.metrics.get(f"{GOLD}_change")
        return (
            f"reward {change:+.3g} since the untrained policy; paid most: "
            f"{', '.join(rewarded) or 'no latent'}"
            + (f"; controls: {', '.join(parts)}" if parts else "")
            + (f"; gold {gold:+.3g}" if gold is not None else "")
        )


class PromptEvaluation:
    """Answers fixed prompts and judges the answers.

    Args:
        policy: as it is when `run` is called.
        reward: pays both policies' answers, under the controls as they are then.
        prompts: N of them.
        should_respond: prompts a refusal of which counts as over-refusal; may be empty.
        training: lengths, temperature, seed.
        gold: the worth of answers, where a program knows it.
    """

    def __init__(
        self,
        policy: Policy,
        reward: PolicyReward,
        prompts: Sequence[PromptRow],
        training: TrainingConfig,
        *,
        should_respond: Sequence[PromptRow] = (),
        gold: Gold | None = None,
    ) -> None:
        self.policy = policy
        self.reward = reward
        self.prompts = prompts
        self.should_respond = should_respond
        self.training = training
        self.gold = gold
        self._families = families_of(reward)
        self._reference: PolicySide | None = None
        self._reference_refusals: tuple[str, ...] | None = None

    def run(self, kl: float) -> Evaluated:
        """One evaluation of the policy as it is.

        Args:
            kl: nats per token to the reference in the step just done, for the proxy gap.

        Raises:
            TrainingError: a reward is NaN or infinite.
        """
        if self._reference is None:
            self._reference = self._side(reference=True)
        before, after = self._reference, self._side()
        reward_before, reward_after = (
            self.reward.breakdown(side.scored, side.rollout.prompts) for side in (before, after)
        )
        findings = findings_of(self.reward, self._families, before, after, kl, self._gains(before, after))
        if self.should_respond:
            findings.append(self._over_refusal())
        metrics = {**_means(reward_after), **_changes(reward_before, reward_after), **_length(after.rollout)}
        metrics["evaluation/kl"] = kl_of_answers(
            self.policy,
            after.rollout,
            temperature=self.training.temperature,
            micro_batch=self.training.micro_batch,
            processes=self.reward.processes,
        )
        if before.gold is not None and after.gold is not None:
            metrics[GOLD] = float(after.gold.mean())
            metrics[f"{GOLD}_change"] = float(after.gold.mean() - before.gold.mean())
        return Evaluated(metrics, findings, ledger_entries(reward_before, reward_after))

    def _side(self, *, reference: bool = False) -> PolicySide:
        rollout = self._answers(self.prompts, "evaluation", reference=reference)
        scored = self.reward.scored(rollout, "the reward", keep_states=True)
        gold = None
        if self.gold is not None:
            gold = self.gold([_text(row) for row in rollout.prompts], rollout.texts)
        return PolicySide(rollout, scored, gold)

    def _answers(self, prompts: Sequence[PromptRow], purpose: str, *, reference: bool) -> Rollout:
        with self.policy.precision():
            return sample_answers(
                self.policy,
                prompts,
                answers_per_prompt=1,
                max_new_tokens=self.training.max_new_tokens,
                temperature=self.training.temperature,
                seed=self.training.seed,
                purpose=(purpose,),
                sampler=RankSampler(CachedSampler(reference=reference), self.reward.processes),
            )

    def _gains(self, before: PolicySide, after: PolicySide) -> Gains | None:
        if before.gold is None or after.gold is None:
            return None
        spread = float(before.gold.std()) or 1.0
        assert self.reward.statistics is not None
        rewards = after.scored.rewards.astype(np.float64) - before.scored.rewards.astype(np.float64)
        return Gains(rewards / self.reward.statistics.sd, (after.gold - before.gold) / spread)

    def _over_refusal(self) -> Finding:
        if self._reference_refusals is None:
            first = self._answers(self.should_respond, "should respond", reference=True)
            self._reference_refusals = first.texts
        now = self._answers(self.should_respond, "should respond", reference=False)
        return over_refusal(self._reference_refusals, now.texts)


def _text(row: PromptRow) -> str:
    return row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"]


def _means(rewarded: RewardBreakdown) -> dict[str, float]:
    return {f"evaluation/{name}": float(column.mean()) for name, column in rewarded.columns.items()}


def _changes(before: RewardBreakdown, after: RewardBreakdown) -> dict[str, float]:
    change = after.columns[TOTAL].mean() - before.columns[TOTAL].mean()
    return {"evaluation/change": float(change)}


def _length(rollout: Rollout) -> dict[str, float]:
    return {
        "evaluation/length": sum(rollout.lengths) / len(rollout),
        "evaluation/ended": sum(rollout.ended) / len(rollout),
    }
