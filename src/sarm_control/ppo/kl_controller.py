"""A KL coefficient that holds the policy at a distance from the reference.

Source: Ziegler et al., Fine-Tuning Language Models from Human Preferences (arXiv 1909.08593), section 2.2:
`e = clip((KL - target) / target, -0.2, 0.2)`, `coef <- coef (1 + 0.1 e)`.
"""

GAIN = 0.1
LARGEST_ERROR = 0.2


def next_kl_coef(coef: float, kl: float, target: float | None) -> float:
    """The coefficient of the next step; it moves by at most 2 % and stays above 0.

    Args:
        coef: of the step that was just done, >= 0.
        kl: that step's KL to the reference, in nats per answer; an estimate, which may be negative.
        target: nats per answer, > 0; None leaves the coefficient alone.
    """
    if target is None:
        return coef
    error = (kl - target) / target
    return coef * (1 + GAIN * min(max(error, -LARGEST_ERROR), LARGEST_ERROR))
