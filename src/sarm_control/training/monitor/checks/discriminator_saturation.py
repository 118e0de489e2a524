"""A saturated discriminator: the human-KL estimate is a lower bound, and its charge is clipped."""

from collections.abc import Sequence

import numpy as np

from sarm_control.training.monitor.checks.finding import Finding

LEAST_SHARE = 0.5


def saturated(flags: Sequence[float]) -> Finding:
    """Looks at the `human_kl/saturated` of a window of steps.

    Args:
        flags: 1 or 0, one a step; at least one.
    """
    share = float(np.mean(flags))
    return Finding(
        check="saturated",
        value=share,
        fires=share >= LEAST_SHARE,
        text=f"the human-KL discriminator was saturated in {share:.0%} of {len(flags)} steps: it tells "
        "policy and people apart every time, so the KL is a lower bound and charges all answers alike; raise "
        "beta or kl_coef, or compare fewer latents",
    )
