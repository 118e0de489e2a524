"""Which of N candidates wins: exact shares over all sets of N of the candidates given.

A set of N candidates is drawn from the m given, without replacement, each set as likely as any
other; the highest reward wins, ties share the win. For the k-th smallest of m different rewards

    P(wins) = C(k - 1, N - 1) / C(m, N)

which needs no simulation (the best-of-n estimator of arXiv 2112.09332).

Shapes: `m` candidates of one prompt.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sarm_control.evaluation.answer_table import Floats


def win_shares(rewards: Floats, n: int) -> Floats:
    """[m] the share of all sets of n candidates that each one wins; they sum to 1.

    Args:
        rewards: [m] what each candidate is paid.
        n: size of a set, 1..m; with n = m the best candidate wins alone, with n = 1 each wins as often.
    """
    ordered = np.sort(rewards)
    lower, not_higher = (np.searchsorted(ordered, rewards, side=side) for side in ("left", "right"))
    within = _share_within(len(rewards), n)
    shares: Floats = (within[not_higher] - within[lower]) / (not_higher - lower)
    return shares


@lru_cache(maxsize=256)
def _share_within(m: int, n: int) -> NDArray[np.float64]:
    """[m + 1] C(k, n) / C(m, n) for k = 0..m: how many sets lie within k of the candidates."""
    k, i = np.arange(m + 1)[:, None], np.arange(n)[None, :]
    return np.asarray(np.prod(np.maximum(k - i, 0) / (m - i), axis=1))
