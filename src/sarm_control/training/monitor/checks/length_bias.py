"""The monitor `length`: longer (or shorter) answers are rewarded, and answers became longer (or shorter).

Shapes: `N` answers.
"""

import math

import numpy as np

from sarm_control.training.monitor.checks.finding import STRICT, Finding, Floats

LEAST_CORRELATION = 0.3
LEAST_CHANGE = 1.25
"""The mean length must have grown or shrunk by this factor for a warning."""


def length(before: tuple[Floats, Floats], after: tuple[Floats, Floats]) -> Finding:
    """Compares the correlation of reward and length before training and now.

    Args:
        before: [N] rewards and [N] lengths in tokens of the untrained policy's answers.
        after: the same of the policy's answers.
    """
    was, now = correlation(*before), correlation(*after)
    ratio = float(after[1].mean() / before[1].mean())
    same_way = ratio >= LEAST_CHANGE if now > 0 else ratio <= 1.0 / LEAST_CHANGE
    word = "longer" if now > 0 else "shorter"
    return Finding(
        check="length",
        value=now,
        further={"before": was, "ratio": ratio},
        fires=abs(now) >= LEAST_CORRELATION and _beyond_chance(now, len(after[0])) and same_way,
        text=f"{word} answers are rewarded: reward and length correlate at {now:+.2f} ({was:+.2f} before) "
        f"and the mean length is {ratio:.2f} times what it was: see which latents follow length with "
        "sarm discover --target length, and edit those",
    )


def correlation(rewards: Floats, lengths: Floats) -> float:
    """Pearson's; 0 where either does not vary."""
    if len(rewards) < 2 or not rewards.std() or not lengths.std():
        return 0.0
    return float(np.corrcoef(rewards, lengths)[0, 1])


def _beyond_chance(correlation: float, answers: int) -> bool:
    # Fisher's transformation: atanh(r) has the standard error 1 / sqrt(n - 3)
    bounded = min(abs(correlation), 1.0 - 1e-12)
    return answers > 3 and math.atanh(bounded) * math.sqrt(answers - 3) >= STRICT
