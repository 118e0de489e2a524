"""The monitor `saturated`: the human-KL discriminator tells all answers apart, so its KL is a lower bound."""

from collections.abc import Sequence

import numpy as np

from sarm_control.training.monitor.checks.finding import Finding

LEAST_SHARE = 0.5


def saturated(flags: Sequence[float]) -> Finding:
    """Judges the metric `human_kl/saturated` over a window of steps.

    Args:
        flags: 1 or 0, one a step; at least one.
    """
    share = float(np.mean(flags))
    return Finding(
        check="saturated",
        value=share,
        fires=share >= LEAST_SHARE,
        text=f"the human-KL discriminator was saturated in {share:.0%} of {len(flags)} steps: it tells "
        "policy and people apart every time, so the KL is a lower bound and penalises all answers alike; "
        "raise beta or kl_coef, or compare fewer latents",
    )
