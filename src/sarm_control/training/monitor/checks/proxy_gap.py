"""The proxy gap: the reward rises and what it stands for does not.

Shapes: `N` answers.
"""

from typing import NamedTuple

from sarm_control.training.monitor.checks.finding import Finding, Floats, surely_above

MOST_KL = 1.0
"""Nats per token: a rule of thumb for where a reward model no longer knows the answers it judges."""
LEAST_GAP = 1.0


class Gains(NamedTuple):
    """[N] gains since the untrained policy, answer by answer, each in SDs of the untrained policy's own."""

    reward: Floats
    gold: Floats


def proxy_gap(kl: float, gains: Gains | None = None) -> Finding:
    """Judges by gold rewards where they are known, else by the distance from the reference policy.

    Args:
        kl: nats per token to the reference policy.
        gains: of the reward and of a gold reward that nothing trains on.
    """
    if gains is None:
        return Finding(
            check="proxy-gap",
            value=kl,
            fires=kl >= MOST_KL,
            text=f"the policy is {kl:.2f} nats per token from the reference, where the reward model need not "
            "know good from bad: raise kl_coef, or judge the answers by other means (sarm compare)",
        )
    gap = gains.reward - gains.gold
    rewarded, worth = float(gains.reward.mean()), float(gains.gold.mean())
    return Finding(
        check="proxy-gap",
        value=rewarded - worth,
        further={"kl": kl, "gold": worth},
        fires=surely_above(gap, LEAST_GAP) and worth <= 0.5 * rewarded,
        text=f"the reward rose by {rewarded:.2f} SD and the gold reward by {worth:+.2f}: the policy exploits "
        "the reward model; see in the ledger which latents paid, and cap or penalise those",
    )
