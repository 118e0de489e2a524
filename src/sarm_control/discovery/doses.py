"""The control that fits a harming latent, with a dose that at least cancels what it pays.

- paid-for-bad (w > 0, fires on rejected answers): an indicator penalty on its firing, and a cap
  at what a typical chosen answer has.
- charged-for-good (w < 0, fires on chosen answers): an edit that removes the charge that good
  answers pay and keeps what worse ones pay on top of it. Removing the whole charge would also
  free the answers that fire most, which a policy finds; penalising the firing would make the harm worse.

To *fire* means z above a threshold here, as in a penalty: a latent active at z < 0 pays the other way.
"""

import math

import numpy as np

from sarm_control.control.edits import Edit
from sarm_control.control.penalties import Penalty
from sarm_control.discovery.effects import reward_sd
from sarm_control.discovery.margins import PairLatents, Values, latent_values

Control = Edit | Penalty

_QUANTILES = np.arange(0.05, 0.96, 0.05)
# A threshold above 0 has to tell the two sides apart by this much better than "fires at all".
_WORTH_A_THRESHOLD = 0.05
_USUAL = 0.9


def suggested_controls(pairs: PairLatents, latent: int, kind: str) -> tuple[Control, ...]:
    """Controls for one latent; none for a latent that does not harm.

    The indicator costs `max(1 SD of the reward, median of w z over answers that fire)`,
    written in SDs and rounded up, so that firing never pays. A run reads SDs of its own reference
    policy's reward, which may be smaller than those of the pairs: the penalty keeps what the latent
    `pays`, and the run warns when its charge is less.

    Args:
        pairs: the answers the doses are read from.
        latent: its number.
        kind: as `discovery.naming` names it.
    """
    if kind == "charged-for-good":
        return (Edit(latent, add=-_usual(pairs, latent), min=0.0),)
    if kind != "paid-for-bad":
        return ()
    values = latent_values(pairs, latent)
    cap = Edit(latent, max=_rounded(max(0.0, float(np.median(values.chosen)))))
    tau = _threshold(values)
    paid = typical_payment(pairs, latent, tau)
    unit = reward_sd(pairs)
    if not unit:
        return (cap,)
    sds = max(1.0, math.ceil(100 * paid / unit) / 100)
    return Penalty(latent, tau=tau, alpha=f"{sds:g}sd", pays=_rounded(paid)), cap


def typical_payment(pairs: PairLatents, latent: int, tau: float = 0.0) -> float:
    """Median of `w z` over the answers with z > tau, in reward units; 0 when there are none."""
    z = np.concatenate(latent_values(pairs, latent))
    firing = z[z > tau]
    return float(np.median(firing) * pairs.head[latent]) if len(firing) else 0.0


def _usual(pairs: PairLatents, latent: int) -> float:
    """What nine in ten of the chosen answers that fire stay below."""
    z = latent_values(pairs, latent).chosen
    return _rounded(float(np.quantile(z[z > 0], _USUAL))) if (z > 0).any() else 0.0


def _threshold(values: Values) -> float:
    """The threshold on z that best tells rejected from chosen answers: 0 unless another is clearly better."""
    z = np.concatenate(values)
    firing = z[z > 0]
    if not len(firing):
        return 0.0
    levels = np.concatenate([[0.0], np.quantile(firing, _QUANTILES)])
    gain = np.array([(values.rejected > t).mean() - (values.chosen > t).mean() for t in levels])
    best = int(gain.argmax())
    return _rounded(float(levels[best])) if gain[best] > gain[0] + _WORTH_A_THRESHOLD else 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
