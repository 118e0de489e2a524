"""The evaluation step: the policy and its reference answer fixed prompts, and the answers are compared.

Nothing is trained here. For the same prompt both get the same random numbers, in every evaluation. The
reference's answers are sampled once; a resumed run samples the same answers again.

Shapes: `N` prompts, one answer each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import TOTAL, RewardBreakdown
from sarm_control.reward_model import RESIDUAL
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
"""Gold rewards of prompts and answers: a judge that no policy is trained on."""
GOLD = "evaluation/gold"


@dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation.

    Args:
        metrics: `evaluation/...`: means over the answers, the same in equal runs.
        findings: of the monitors.
        entries: the ledger: what the change since the untrained policy is made of.
    """

    metrics: dict[str, float]
    findings: list[Finding]
    entries: list[Entry]

    def line(self) -> str:
        """The reward's change, the five latents that raised it most, and the changes of controls and gold."""
        change = sum(entry.change for entry in self.entries)
        rewarded = [f"latent {entry.latent} {entry.change:+.3g}" for entry in most_rewarded(self.entries)]
        parts = [
            f"{entry.term}{'' if entry.latent is None else f' {entry.latent}'} {entry.change:+.3g}"
            for entry in self.entries
            if entry.term not in ("latent", RESIDUAL, "rounding") and entry.change
        ]
        outside = sum(entry.change for entry in self.entries if entry.term == RESIDUAL)
        gold = self.metrics.get(f"{GOLD}_change")
        return (
            f"reward {change:+.3g} since the untrained policy; raised most by "
            f"{', '.join(rewarded) or 'no latent'}"
            + (f"; residual {outside:+.3g}" if outside else "")
            + (f"; controls: {', '.join(parts)}" if parts else "")
            + (f"; gold {gold:+.3g}" if gold is not None else "")
        )


class PromptEvaluation:
    """Answers fixed prompts and compares the answers with the reference's.

    Args:
        policy: answers as it is when `run` is called.
        reward: rewards both policies' answers, under the controls as they are when `run` is called.
        prompts: N of them.
        training: lengths, temperature, seed.
        should_respond: prompts that should be answered, for the monitor of over-refusal; may be empty.
        gold: judges the answers, where a program can.
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
        """Evaluates the policy as it is now.

        Args:
            kl: nats per token to the reference in the step just done, for the monitor of the proxy gap.

        Raises:
            TrainingError: a reward is NaN or infinite.
        """
        # once: a frozen policy with the same random numbers would answer the same in every evaluation
        if self._reference is None:
            self._reference = self._side(reference=True)
        before, after = self._reference, self._side()
        # The reference's answers are rewarded anew, by the controls as they are now. With the rewards of the
        # run's start a moving control would look like a change of the policy.
        reward_before, reward_after = (
            self.reward.breakdown(side.scored, side.rollout) for side in (before, after)
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
                # without the step: all evaluations draw by the same numbers, so what changes is the policy
                purpose=(purpose,),
                sampler=RankSampler(CachedSampler(reference=reference), self.reward.processes),
            )

    def _gains(self, before: PolicySide, after: PolicySide) -> Gains | None:
        if before.gold is None or after.gold is None:
            return None
        # gold rewards that are all equal have no SD to measure in
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
