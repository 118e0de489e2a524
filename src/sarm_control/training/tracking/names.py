"""What a step's numbers are called in a tracker: as in the run's own files, and as in TRL and verl.

An alias is given only where the other library's number has the same definition. Numbers that are merely
akin, such as TRL's `policy/approxkl_avg` (half the mean squared difference; ours is k3), have none.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sarm_control.training.run.jsonl import stable


class Alias(NamedTuple):
    """A number under another library's name.

    Args:
        theirs: the name there.
        library: whose it is.
        ours: the name in the run's files.
        read: our number -> theirs.
    """

    theirs: str
    library: str
    ours: str
    read: Callable[[float], float] = lambda value: value


def _rest(share: float) -> float:
    return 1.0 - share


ALIASES: Final = (
    Alias("objective/scores", "TRL PPO", "reward/total"),
    Alias("loss/policy_avg", "TRL PPO", "policy/loss"),
    Alias("loss/value_avg", "TRL PPO", "value/loss"),
    Alias("policy/clipfrac_avg", "TRL PPO", "policy/clip_fraction"),
    Alias("policy/entropy_avg", "TRL PPO", "policy/entropy"),
    Alias("reward", "TRL GRPO, RLOO", "reward/total"),
    Alias("entropy", "TRL GRPO, RLOO", "policy/entropy"),
    Alias("completions/mean_length", "TRL GRPO, RLOO", "answers/length"),
    Alias("completions/clipped_ratio", "TRL GRPO, RLOO", "answers/ended", _rest),
    Alias("critic/score/mean", "verl", "reward/total"),
    Alias("critic/vf_loss", "verl", "value/loss"),
    Alias("critic/vf_explained_var", "verl", "value/explained_variance"),
    Alias("critic/grad_norm", "verl", "value/grad_norm"),
    Alias("actor/pg_loss", "verl", "policy/loss"),
    Alias("actor/pg_clipfrac", "verl", "policy/clip_fraction"),
    Alias("actor/entropy", "verl", "policy/entropy"),
    Alias("actor/grad_norm", "verl", "policy/grad_norm"),
    Alias("actor/reward_kl_penalty_coeff", "verl", "objective/kl_coef"),
    Alias("response_length/mean", "verl", "answers/length"),
    Alias("timing_s/gen", "verl", "seconds/rollout"),
    Alias("timing_s/reward", "verl", "seconds/reward"),
    Alias("timing_s/step", "verl", "seconds/step"),
)
"""The table in docs/metrics.md has them too, which a test compares."""


def tracked_numbers(row: Mapping[str, Any]) -> Mapping[str, float]:
    """The numbers of a step for a tracker: those of the run's files, digit for digit, and the aliases.

    Args:
        row: metrics, evaluation and timing of one step. What is no finite number is left out.
    """
    ours = {
        name: value
        for name, value in stable(row).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    theirs = {
        alias.theirs: stable(float(alias.read(ours[alias.ours]))) for alias in ALIASES if alias.ours in ours
    }
    return MappingProxyType({**ours, **theirs})
