"""The monitor `proxy-gap`: the reward rises, but the quality that it stands for does not.

Shapes: `N` answers.
"""

from typing import NamedTuple

from sarm_control.training.monitor.checks.finding import Finding, Floats, surely_above

MOST_KL = 1.0
"""Nats per token: a rule of thumb; beyond it the answers are unlike those the reward model was trained on."""
LEAST_GAP = 1.0


class Gains(NamedTuple):
    """[N] gains over the untrained policy, answer by answer, in SDs of the untrained policy's answers."""

    reward: Floats
    gold: Floats


def proxy_gap(kl: float, gains: Gains | None = None) -> Finding:
    """Judges by gold rewards where there are any, else by the KL to the reference policy.

    Args:
        kl: nats per token to the reference policy.
        gains: of the reward, and of a gold reward that nothing is trained on.
    """
    if gains is None:
        return Finding(
            check="proxy-gap",
            value=kl,
            fires=kl >= MOST_KL,
            text=f"the policy is {kl:.2f} nats per token from the reference, where the reward model may not "
            "tell good from bad: raise kl_coef, or judge the answers by other means (sarm compare)",
        )
    gap = gains.reward - gains.gold
    rewarded, worth = float(gains.reward.mean()), float(gains.gold.mean())
    return Finding(
        check="proxy-gap",
        value=rewarded - worth,
        further={"kl": kl, "gold": worth},
        # a gold reward that follows more slowly is no exploit: half of the gain has to be without worth
        fires=surely_above(gap, LEAST_GAP) and worth <= 0.5 * rewarded,
        text=f"the reward rose by {rewarded:.2f} SD and the gold reward by {worth:+.2f}: the policy exploits "
        "the reward model; see in the ledger which latents raised it, and cap or penalise those",
    )
