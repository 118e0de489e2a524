"""How much of each latent is taken away: one small convex programme over all that carry an attribute.

Everything is in SDs of the reward. Latent i keeps the share `1 - x_i` of its contribution, `0 <= x_i <= 1`.
The text edit t of a targeted attribute has the mean price `d_t`, of which latent i carries `c_ti`; a share
s of it is to go. What else is rewarded is to change least: the rewards of answers without the attribute,
compared within their prompts, of which latent i makes `u_ni`, and the mean prices of other attributes, of
which it carries `k_ti`. Least is

    mean over t of (s d_t - sum_i c_ti x_i)^2
    + mean over a of (s g_a - sum_i v_ai x_i)^2
    + CLEAN [ mean over n of (sum_i u_ni x_i)^2 + mean over t of (sum_i k_ti x_i)^2 ]

The second row is there where the reward is to become even in the attributes over answers as they are: g_a is
its slope on attribute a (`slopes`), of which latent i carries `v_ai`. An edit of the text shows what the
attribute itself is paid; a slope also shows what comes along with it, good or bad, such as the contents of a
longer answer.

This is least squares within bounds. It acts on latents after TopK, so it is exact for the edited reward.
Single answers' changes would be the wrong aim: they scatter around the price, and making all rewards small is
the surest way to make that scatter small.

Shapes: `m` latents; `T` text edits of targeted attributes, `K` of others, `C` clean answers; `A` targeted
attributes, 0 where slopes are left as they are.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CLEAN = 0.05
"""Weight of a change of what is not targeted, for as much of a price left; as in discovery's doses."""


class MendProblem(NamedTuple):
    """What the programme is about, in SDs of the reward.

    Args:
        price: [T] d, what the attribute changes.
        carried: [T, m] c, what each latent carries of it.
        clean: [C, m] u, each latent's contribution to a clean answer, less its prompt's mean.
        kept: [K, m] k, what each latent carries of other attributes' prices.
        slope: [A] g, the reward's slopes on the attributes.
        in_slope: [A, m] v, what each latent carries of them.
    """

    price: Floats
    carried: Floats
    clean: Floats
    kept: Floats
    slope: Floats
    in_slope: Floats


class Removed(NamedTuple):
    """What edits take, in SDs of the reward.

    Args:
        carried: [T] of the targeted prices.
        clean: [C] of clean answers, less their prompt's mean.
        kept: [K] of other prices.
        in_slope: [A] of the slopes.
    """

    carried: Floats
    clean: Floats
    kept: Floats
    in_slope: Floats


def least_removal(problem: MendProblem, strength: float) -> Floats:
    """[m] x, the share of each latent to take away, each within 0 and 1.

    Args:
        problem: see above.
        strength: s, the share of the price that is to go, 0..1.
    """
    from scipy.optimize import lsq_linear

    if not problem.carried.shape[1]:
        return np.zeros(0)
    # the unknown shares have bounds, so the normal equations do not give them: the sum of squares goes to
    # a solver as one stacked system
    weights = 1.0, 1.0, CLEAN, CLEAN
    blocks = problem.carried, problem.in_slope, problem.clean, problem.kept
    # weights and means under the root, so that the squares of the stacked rows sum to the programme
    roots = [np.sqrt(weight / max(len(block), 1)) for weight, block in zip(weights, blocks, strict=True)]
    rows = np.concatenate([root * block for root, block in zip(roots, blocks, strict=True)])
    aimed = np.concatenate([roots[0] * strength * problem.price, roots[1] * strength * problem.slope])
    aims = np.concatenate([aimed, np.zeros(len(rows) - len(aimed))])
    return np.clip(lsq_linear(rows, aims, bounds=(0.0, 1.0)).x, 0.0, 1.0)


def value(problem: MendProblem, removed: Removed, strength: float) -> float:
    """What is least, for any edits: a cap is no share of a latent.

    Args:
        problem: for its prices and slopes.
        removed: what the edits take.
        strength: s.
    """
    aims = (problem.price, removed.carried), (problem.slope, removed.in_slope)
    left = sum(float(((strength * aim - taken) ** 2).mean()) for aim, taken in aims if len(aim))
    other = sum(float((block**2).mean()) for block in (removed.clean, removed.kept) if len(block))
    return left + CLEAN * other
