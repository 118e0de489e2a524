"""The harmful reward of one latent, and the limits of its control, computed from scored pairs.

The *harmful reward* of a paid-for-bad latent (w > 0, fires on rejected answers) is its contribution above
that of a typical chosen answer:

    h_ji = w_i max(0, z_ji - m_i),    m_i = max(0, median of z_i over the chosen answers)

A cap of z_i at m_i removes exactly that. Here, as for a penalty, a latent *fires* where z is above a
threshold: a latent active at z < 0 contributes with the opposite sign.

Shapes: `Nc` chosen and `Nr` rejected answers, `C` latents.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit
from sarm_control.discovery.pairs.margins import PairLatents, Values, latent_values

Floats = NDArray[np.float64]

_QUANTILES = np.arange(0.05, 0.96, 0.05)
# A threshold above 0 must separate the two sides by this much better than "fires at all".
_WORTH_A_THRESHOLD = 0.05
_USUAL = 0.9


class Fires(NamedTuple):
    """Whether something fires: [Nc] over chosen and [Nr] over rejected answers."""

    chosen: NDArray[np.bool_]
    rejected: NDArray[np.bool_]


def cap(pairs: PairLatents, latent: int) -> Edit:
    """The cap at `m`, the latent's value in a typical chosen answer, never below 0."""
    # a negative cap would take from every answer on which the latent is not active
    return Edit(latent, max=rounded(max(0.0, float(np.median(latent_values(pairs, latent).chosen)))))


def without_penalty(pairs: PairLatents, latent: int) -> Edit:
    """An edit that removes what a charged-for-good latent subtracts from good answers, and keeps the excess.

    It is sized for nine in ten of the chosen answers on which the latent fires. To remove the latent entirely
    would also favour the answers on which it fires most, and a policy would find them.
    """
    z = latent_values(pairs, latent).chosen
    usual = rounded(float(np.quantile(z[z > 0], _USUAL))) if (z > 0).any() else 0.0
    return Edit(latent, add=-usual, min=0.0)


def harmful_reward(pairs: PairLatents, caps: Sequence[Edit]) -> Values:
    """`h`, [Nc, C] and [Nr, C] in reward units: what each of these caps removes from each answer."""
    wanted = [one.latent for one in caps]
    limits = np.array([one.max for one in caps], dtype=np.float64)
    return Values(
        *(
            np.maximum(side[:, wanted].toarray() - limits, 0.0) * pairs.head[wanted]
            for side in (pairs.chosen, pairs.rejected)
        )
    )


def threshold(values: Values) -> float:
    """The threshold that best separates rejected from chosen answers: 0 unless another is clearly better."""
    z = np.concatenate(values)
    firing = z[z > 0]
    if not len(firing):
        return 0.0
    # 0 stays the default, because a threshold fitted to noise would not hold on other answers
    levels = np.concatenate([[0.0], np.quantile(firing, _QUANTILES)])
    gain = np.array([(values.rejected > t).mean() - (values.chosen > t).mean() for t in levels])
    best = int(gain.argmax())
    return rounded(float(levels[best])) if gain[best] > gain[0] + _WORTH_A_THRESHOLD else 0.0


def typical_reward(pairs: PairLatents, latent: int, tau: float = 0.0) -> float:
    """Median of `w z` over the answers with z > tau, in reward units; 0 when there are none."""
    z = np.concatenate(latent_values(pairs, latent))
    firing = z[z > tau]
    return float(np.median(firing) * pairs.head[latent]) if len(firing) else 0.0


def rounded(value: float) -> float:
    """The value with four significant digits, so that the value in a file is the one that was used."""
    return float(f"{value:.4g}")
