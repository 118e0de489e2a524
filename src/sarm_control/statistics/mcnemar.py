"""Items that become right or wrong when a reward model is edited, with an exact test.

Shapes: `P` units; a unit is a prompt, because answers to one prompt are not independent.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sarm_control.errors import DataError


class Flips(NamedTuple):
    """The changes from one reward model to another on the same units.

    Args:
        n: the number of units.
        gained: the number of units whose credit rose.
        lost: the number of units whose credit fell.
        p: two-sided exact p of "a changed unit is as likely to gain as to lose" (McNemar); 1
            when nothing changed.
    """

    n: int
    gained: int
    lost: int
    p: float

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return self._asdict()


def flips(before: ArrayLike, after: ArrayLike) -> Flips:
    """McNemar's exact test (binomial with probability 1/2) on the units that changed.

    For credit that is 0 or 1 this is McNemar's test. For credit in between (a shared tie, the share of a
    prompt's comparisons) only the direction of the change counts, which is the sign test.

    Args:
        before: [P] credit of each unit, 0..1.
        after: [P] the same of the other reward model.

    Raises:
        DataError: the two have different lengths.
    """
    from scipy.stats import binomtest

    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise DataError(f"{len(first)} units before but {len(second)} after")
    gained, lost = int((second > first).sum()), int((second < first).sum())
    p = float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
    return Flips(len(first), gained, lost, p)
