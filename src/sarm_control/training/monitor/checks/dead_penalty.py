"""The monitor `dead-penalty`: a penalty without effect, as it hits no answer, every answer, or is tiny."""

from collections.abc import Sequence

import numpy as np

from sarm_control.control import Penalty
from sarm_control.training.monitor.checks.finding import Finding

LOWEST_RATE, HIGHEST_RATE = 0.02, 0.98
LEAST_SHARE = 0.001


def dead_penalty(penalty: Penalty, rates: Sequence[float], shares: Sequence[float]) -> Finding:
    """Judges the firing rate, and the penalty's share of the reward's variance, over a window of steps.

    A sigmoid penalises below tau too, so only its variance is judged. With a target rate, a low rate and then
    a penalty of 0 are the aim: only a rate that stays high is dead.

    Args:
        penalty: the penalty.
        rates: share of answers above tau, one a step; at least one.
        shares: variance of the penalty over variance of the total reward, one a step.
    """
    rate, share = float(np.mean(rates)), float(np.mean(shares))
    wrong = _wrong(penalty, rate, share)
    return Finding(
        check="dead-penalty",
        latent=penalty.latent,
        value=rate,
        further={"variance_share": share},
        fires=wrong is not None,
        text=f"the penalty on {penalty.watched} is dead: over {len(rates)} steps {wrong}",
    )


def _wrong(penalty: Penalty, rate: float, share: float) -> str | None:
    banded = penalty.form != "sigmoid"
    if banded and rate > HIGHEST_RATE:
        return f"{rate:.1%} of the answers were above tau, so all lose the same; raise tau, or use form=hinge"
    if penalty.target_rate is not None:
        return None
    if banded and rate < LOWEST_RATE:
        return (
            f"{rate:.1%} of the answers were above tau; see whether the reward went to similar latents or "
            "just under tau, or lower tau"
        )
    if share < LEAST_SHARE:
        return f"it made up {share:.2%} of the reward's variance; raise alpha, or give target_rate instead"
    return None
