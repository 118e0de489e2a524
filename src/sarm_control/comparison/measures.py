"""The measures of a trained policy and its base, and their paired differences.

Both policies answered the same prompts. Answers to one prompt are averaged first, so that each prompt counts
once, and every interval is taken over prompts.

Shapes: `N` answers, `P` prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import PATTERN, Controls, Floats, Integers, ShapedReward, prompt_means, watched_name
from sarm_control.reward_model import RESIDUAL, Scored
from sarm_control.statistics import Interval, change_of_shares, mean_interval, share_interval

REWARD, TOTAL, LENGTH, ENDED = "reward/model", "reward/total", "answer/length", "answer/ended"
KL, KL3, WINS, HUMAN = "objective/kl", "objective/kl_k3", "reward/wins", "human_kl/log_ratio"
GOLD, GAP = "gold/reward", "gold/goodhart_gap"
_SHARE = "share"
_LABELS = {
    TOTAL: "Reward as trained on",
    "reward/edits": "Effect of the edits",
    "reward/human_kl": "Human-KL term",
    "reward/missing_end": "Penalty on answers that did not end",
    "reward/pattern": "Penalties on patterns",
    "reward/shaping": "Effect of PAR shaping",
}


@dataclass(frozen=True)
class PolicyAnswers:
    """One policy's answers to the prompts.

    Args:
        responses: [N] texts.
        prompts: [N] the prompt (0..P-1) of each answer.
        scored: [N] rewards and latents.
        lengths: [N] tokens the policy chose, the end-of-turn included.
        kl: [N] nats, `sum_t log pi(y_t) - log pi_base(y_t)` (k1); None for the base.
        kl_k3: [N] nats, `sum_t exp(-d_t) - 1 + d_t` with `d_t` the log ratio of a token; >= 0.
        gold: [N] gold rewards, which no policy is trained on; None where there is no judge.
    """

    responses: tuple[str, ...]
    prompts: NDArray[np.int64]
    scored: Scored
    lengths: NDArray[np.int64]
    kl: Floats | None = None
    kl_k3: Floats | None = None
    gold: Floats | None = None


class Measure(NamedTuple):
    """A measure: its name in files, its name for readers, and its unit."""

    key: str
    label: str
    unit: str


class MeasureChange(NamedTuple):
    """One measure of both policies.

    Args:
        measure: which one.
        base: mean of the base policy; None where the base has none (KL to itself).
        trained: mean of the trained policy.
        change: paired difference trained - base; None where there is no base.
    """

    measure: Measure
    base: Interval | None
    trained: Interval
    change: Interval | None

    def as_json(self, reward_sd: float) -> dict[str, Any]:
        """The row as JSON; changes in reward units are also given in SDs of the base reward."""
        row = {**self.measure._asdict(), "trained": self.trained.as_json()}
        row["base"] = self.base and self.base.as_json()
        row["change"] = self.change and self.change.as_json()
        in_reward = self.measure.unit == "reward" and self.change is not None and reward_sd > 0
        row["change_sd"] = self.change.mean / reward_sd if self.change and in_reward else None
        return row


Columns = dict[Measure, Floats]


def answer_columns(
    answers: PolicyAnswers, watched: Sequence[int], thresholds: Mapping[int, float]
) -> Columns:
    """[N] columns that do not depend on controls: reward, length, ended share, KL, firing.

    Args:
        answers: one policy's answers.
        watched: latents whose firing rate is measured: the share of answers with z > 0.
        thresholds: latent -> tau for those whose share above tau is measured too, unless tau is 0.
    """
    scored = answers.scored
    columns: Columns = {Measure(REWARD, "Reward, unedited", "reward"): _float(scored.rewards)}
    if answers.gold is not None:
        columns[Measure(GOLD, "Gold reward", "gold")] = answers.gold
    for latent in watched:
        values = scored.latents.columns([latent])[:, 0]
        columns[Measure(f"latent/{latent}/rate", f"Latent {latent} active", _SHARE)] = _float(values > 0)
        # at tau = 0 the rate is that of the latent being active, which is above
        if thresholds.get(latent):
            tau = thresholds[latent]
            above = Measure(f"penalty/{latent}/rate", f"Latent {latent} above {tau:.4g}", _SHARE)
            columns[above] = _float(values > tau)
    columns[Measure(LENGTH, "Answer length", "tokens")] = _float(answers.lengths)
    columns[Measure(ENDED, "Answers that ended by themselves", _SHARE)] = _float(scored.ended)
    if answers.kl is not None:
        columns[Measure(KL, "KL to the base policy (k1)", "nats")] = answers.kl
    if answers.kl_k3 is not None:
        columns[Measure(KL3, "KL to the base policy (k3)", "nats")] = answers.kl_k3
    return columns


def control_columns(
    shaped: ShapedReward,
    controls: Controls,
    missing_end: NDArray[np.floating[Any]] | None = None,
    pattern: NDArray[np.floating[Any]] | None = None,
    bounded: Callable[[Floats], Floats] | None = None,
) -> Columns:
    """[N] columns of the reward that a run trained on: the signed parts of its controls, and the total.

    Args:
        shaped: the reward under the run's controls.
        controls: the run's controls; the parts of others are left out.
        missing_end: [N] signed penalty on answers that did not end, if the run has one.
        pattern: [N] signed penalties on patterns in the text, if the run has any.
        bounded: maps [N] totals to shaped totals, if the run shapes them.

    Returns:
        Columns in reward units (the human log ratio in nats); empty when nothing changed the reward.
    """
    signed = shaped.columns()
    names = ["reward/edits"] if controls.edits else []
    names += [name for name in signed if name.startswith("reward/penalty/")]
    names += ["reward/human_kl"] if controls.human_kl is not None else []
    columns = {_part(name): _float(signed[name]) for name in names}
    total = shaped.total
    for name, amount in (("reward/missing_end", missing_end), (PATTERN, pattern)):
        if amount is not None:
            columns[_part(name)] = _float(amount)
            total = total + _float(amount)
    # last, because shaping bounds the whole reward: its effect is what the bounded total lacks
    if bounded is not None:
        columns[_part("reward/shaping")] = bounded(total) - total
        total = bounded(total)
    if columns:
        columns[_part(TOTAL)] = total
    if shaped.log_ratio is not None:
        columns[Measure(HUMAN, "Log density ratio to the human latents", "nats")] = shaped.log_ratio
    return columns


def compare_columns(
    base: Columns, trained: Columns, base_prompts: Integers, trained_prompts: Integers
) -> list[MeasureChange]:
    """Every measure of the trained policy with the base's and the paired difference."""
    rows = []
    for measure, values in trained.items():
        after = prompt_means(values, trained_prompts)
        # of KL to the base: the base has none, and no change from one
        if measure not in base:
            rows.append(MeasureChange(measure, None, _mean(measure, after), None))
            continue
        # prompts are the unit: answers to one prompt are not independent
        before = prompt_means(base[measure], base_prompts)
        ends = _mean(measure, before), _mean(measure, after)
        rows.append(MeasureChange(measure, *ends, _change(measure, before, after)))
    return rows


def _mean(measure: Measure, values: Floats) -> Interval:
    return share_interval(values) if measure.unit == _SHARE else mean_interval(values)


def _change(measure: Measure, before: Floats, after: Floats) -> Interval:
    if measure.unit == _SHARE:
        return change_of_shares(before, after)
    return mean_interval(after - before)


def wins(base: PolicyAnswers, trained: PolicyAnswers) -> MeasureChange:
    """The share of prompts whose mean reward is strictly higher for the trained policy."""
    before = prompt_means(base.scored.rewards, base.prompts)
    after = prompt_means(trained.scored.rewards, trained.prompts)
    measure = Measure(WINS, "Prompts where the trained policy is rewarded more", _SHARE)
    return MeasureChange(measure, None, share_interval(after > before), None)


def goodhart_gap(base: PolicyAnswers, trained: PolicyAnswers) -> MeasureChange | None:
    """Reward-model gain minus gold gain, each in SDs over the base policy's answers.

    None without gold rewards, and where an SD is 0.
    """
    if base.gold is None or trained.gold is None:
        return None
    gains = []
    for before, after in ((base.scored.rewards, trained.scored.rewards), (base.gold, trained.gold)):
        spread = float(_float(before).std(ddof=1)) if len(before) > 1 else 0.0
        if not spread:
            return None
        gained = prompt_means(_float(after), trained.prompts) - prompt_means(_float(before), base.prompts)
        # each in the spread of the base's own answers: the two rewards have no unit in common
        gains.append(gained / spread)
    measure = Measure(GAP, "Goodhart gap: reward gain minus gold gain", "SD")
    return MeasureChange(measure, None, mean_interval(gains[0] - gains[1]), None)


def arm_differences(
    first: Columns, second: Columns, first_prompts: Integers, second_prompts: Integers
) -> list[tuple[Measure, Interval]]:
    """Paired differences second - first of every measure that both arms have."""
    return [
        (
            measure,
            _change(
                measure, prompt_means(values, first_prompts), prompt_means(second[measure], second_prompts)
            ),
        )
        for measure, values in first.items()
        if measure in second
    ]


def reward_sd(answers: PolicyAnswers) -> float:
    """The SD (n - 1) of the unedited reward over answers; 0 for a single answer."""
    rewards = _float(answers.scored.rewards)
    return float(rewards.std(ddof=1)) if len(rewards) > 1 else 0.0


def _part(name: str) -> Measure:
    if name.startswith("reward/penalty/"):
        watched = name.rsplit("/", 1)[1]
        return Measure(
            name, f"Penalty on {watched_name(RESIDUAL if watched == RESIDUAL else int(watched))}", "reward"
        )
    return Measure(name, _LABELS[name], "reward")


def _float(values: NDArray[Any]) -> Floats:
    return np.asarray(values, dtype=np.float64)
