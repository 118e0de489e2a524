"""The sizes of all penalties together, by one small convex optimisation.

Everything is in SDs of the reward. A *shortcut* k is the behaviour that a group of similar latents rewards.
On bad answer j the penalties should take t_jk: what the edits leave of its harmful reward from these latents,
and a deterrent where it has the shortcut. The penalties have sizes a_p >= 0, each belongs to one shortcut,
and they take `c_jk = sum_(p of k) a_p fires_jp`. The objective to minimise is

    sum_k mean over bad answers of v_jk (t_jk - c_jk)^2
    + CLEAN mean over good answers of (e_j + sum_k c_jk)^2

where e_j is what the edits take from a good answer, and v is 1 where the answer has the shortcut and CLEAN
elsewhere. Too small and too large penalties count alike where there is a shortcut. So its penalties share the
amount to cancel instead of each cancelling all of it. This is non-negative least squares.

Shapes: `Nr` bad and `Nc` good answers, `K` shortcuts, `P` penalties.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CLEAN = 0.05
"""Weight of an error where there is no shortcut, relative to the same error where there is one."""


class PenaltyProblem(NamedTuple):
    """The optimisation over the sizes of penalties, in SDs of the reward.

    Args:
        due: [Nr, K] t, the amount that the penalties should take from each bad answer for each shortcut.
        has: [Nr, K] whether it has the shortcut.
        shortcut: [P] the shortcut of each penalty, 0..K-1.
        fires: [Nr, P] whether each penalty fires on a bad answer.
        good_fires: [Nc, P] the same for good answers.
        good_edited: [Nc] e >= 0, what the edits take from good answers.
    """

    due: Floats
    has: Bools
    shortcut: NDArray[np.int64]
    fires: Bools
    good_fires: Bools
    good_edited: Floats


class Objective(NamedTuple):
    """The value of the objective and its parts, squared SDs of the reward.

    Args:
        left: mean over bad answers of the squared amount that is not cancelled, where there is a shortcut.
        over: the same of the squared amount beyond `due`, where there is a shortcut.
        other: the same of the squared error where there is no shortcut.
        clean: mean over good answers of the squared change of their reward.
    """

    left: float
    over: float
    other: float
    clean: float

    @property
    def total(self) -> float:
        """The objective: `left + over + CLEAN (other + clean)`."""
        return self.left + self.over + CLEAN * (self.other + self.clean)

    def as_json(self) -> dict[str, Any]:
        """The value, its parts and the weight as a JSON object."""
        return {"total": self.total, **self._asdict(), "clean_weight": CLEAN}

    def __str__(self) -> str:
        return (
            f"{self.total:.3g} = {self.left:.3g} uncancelled + {self.over:.3g} penalised beyond need "
            f"+ {CLEAN:g} x ({self.other:.3g} where there is no shortcut + {self.clean:.3g} on good answers)"
        )


def least_penalties(problem: PenaltyProblem) -> Floats:
    """[P] the sizes that minimise the objective, each >= 0."""
    from scipy.optimize import nnls

    curve, slope = _quadratic(problem)
    if not len(slope):
        return slope
    # the same least squares with at most P rows, from the eigenvectors of its matrix; penalties that always
    # fire together leave an eigenvalue of 0, whose direction is dropped
    sizes, directions = np.linalg.eigh(curve)
    seen = sizes > 1e-10 * sizes[-1]
    if not seen.any():
        return np.zeros(len(slope))
    # a C a - 2 a b is |root basis' a - basis' b / root|^2 up to a constant: rows for nnls, few as they are
    root, basis = np.sqrt(sizes[seen]), directions[:, seen]
    return np.asarray(nnls(root[:, None] * basis.T, (basis.T @ slope) / root)[0])


def gains(problem: PenaltyProblem) -> Floats:
    """[P] by how much each penalty alone, at its best size, lowers the objective."""
    curve, slope = _quadratic(problem)
    # of one variable: a = slope / own is best and lowers the objective by slope^2 / own, if a >= 0
    own = np.diagonal(curve)
    return np.where(own > 0, np.maximum(slope, 0.0) ** 2 / np.where(own > 0, own, 1.0), 0.0)


def objective(problem: PenaltyProblem, amounts: Floats) -> Objective:
    """The value of the objective at these sizes [P]."""
    of_shortcut = problem.shortcut[:, None] == np.arange(problem.due.shape[1])
    missing = problem.due - problem.fires @ (amounts[:, None] * of_shortcut)
    changed = problem.good_edited + problem.good_fires @ amounts
    return Objective(
        left=_mean_square(problem.has * np.maximum(missing, 0.0)),
        over=_mean_square(problem.has * np.minimum(missing, 0.0)),
        other=_mean_square(~problem.has * missing),
        clean=float((changed**2).mean()),
    )


def _mean_square(amounts: Floats) -> float:
    return float((amounts**2).sum(axis=1).mean())


def _quadratic(problem: PenaltyProblem) -> tuple[Floats, Floats]:
    """C [P, P] and b [P] of `a C a - 2 a b`, which is the objective up to a constant."""
    fires, good = problem.fires.astype(np.float64), problem.good_fires.astype(np.float64)
    weight = np.where(problem.has, 1.0, CLEAN) / max(len(fires), 1)
    clean = CLEAN / max(len(good), 1)
    curve = clean * good.T @ good
    slope = -clean * good.T @ problem.good_edited
    for k in range(problem.due.shape[1]):
        # on bad answers every shortcut is a term of its own: only on good answers do their penalties meet
        own = np.flatnonzero(problem.shortcut == k)
        weighted = weight[:, k, None] * fires[:, own]
        curve[np.ix_(own, own)] += weighted.T @ fires[:, own]
        slope[own] += weighted.T @ problem.due[:, k]
    return curve, slope
