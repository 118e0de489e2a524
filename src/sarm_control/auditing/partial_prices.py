"""What one more of an attribute goes with, beside all other attributes: a regression within prompts.

For answer n to prompt p

    r_pn / SD = a_p + sum_i b_i x_pni + e_pn

with an intercept `a_p` for each prompt, so that only answers to the same prompt are compared. `b_i` is the
*partial price* of attribute i. Standard errors are robust to whatever correlation answers to one prompt
have (cluster-robust; Cameron and Miller 2015, Journal of Human Resources 50), the reference distribution is
Student's t with one degree less than prompts.

A partial price is an association. Attributes that nobody listed and that come along with a listed one are
in its price: the causal price (`causal_prices`) changes the text itself.

Shapes: `N` answers, `P` prompts, `A` attributes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.table import AttributeTable, Floats, within_prompts
from sarm_control.errors import DataError
from sarm_control.statistics import benjamini_hochberg

LEAST_PROMPTS = 10
"""Prompts in which an attribute must vary; with fewer the robust errors are far too small."""
_SAME = 1e-8
"""Share of a column's own variation that the others must leave over for it to be told from them."""


class PartialPrice(NamedTuple):
    """The partial price of one attribute.

    Args:
        name: of the attribute.
        sd: reward SDs for one more of it (see `Attribute.unit`); NaN where it cannot be told.
        low: lower end of the 95 % interval.
        high: upper end.
        p: two-sided p-value.
        q: the same after Benjamini and Hochberg over all attributes that were tested.
        n: prompts in which it varies.
        why: why there is no price; None where there is one.
    """

    name: str
    sd: float
    low: float
    high: float
    p: float
    q: float
    n: int
    why: str | None = None


def partial_prices(table: AttributeTable) -> tuple[PartialPrice, ...]:
    """[A] partial prices, in the order of the attributes.

    Raises:
        DataError: no prompt has two answers, or all rewards are equal.
    """
    counts = np.bincount(table.prompt, minlength=len(table.prompts))
    kept = counts[table.prompt] > 1
    if not kept.any():
        raise DataError(
            "no prompt has two answers, so nothing can be compared within a prompt",
            hint="give pairs, or several answers to a prompt",
        )
    if table.reward_sd == 0.0:
        raise DataError(
            "all answers have the same reward", hint="see `sarm score`: the reward model may be broken"
        )
    prompt = table.prompt[kept]
    # deviations from prompts' means give the same b as an intercept for every prompt (Frisch and Waugh, 1933)
    y = within_prompts(table.rewards[kept] / table.reward_sd, prompt)
    x = within_prompts(table.regressors[kept], prompt)
    varies = _prompts_with_variation(x, prompt)
    # before the fit: a column that hardly varies has no price itself and would still take some from the
    # others
    usable = np.flatnonzero(varies >= LEAST_PROMPTS)
    told = usable[_independent(x[:, usable])]
    found = dict(zip(told.tolist(), _fitted(y, x[:, told], prompt), strict=True))
    q = dict(zip(told.tolist(), benjamini_hochberg(np.array([row.p for row in found.values()])), strict=True))
    nan = float("nan")
    return tuple(
        PartialPrice(one.name, **found[i]._asdict(), q=float(q[i]), n=int(varies[i]))
        if i in found
        else PartialPrice(one.name, nan, nan, nan, nan, nan, int(varies[i]), _why(int(varies[i])))
        for i, one in enumerate(table.attributes)
    )


def _why(varies: int) -> str:
    if varies == 0:
        return "it differs between no two answers to a prompt"
    if varies < LEAST_PROMPTS:
        return f"it differs in {varies} prompts; {LEAST_PROMPTS} or more are needed"
    return "it always comes with other attributes, so their prices cannot be told apart"


def _prompts_with_variation(x: Floats, prompt: NDArray[np.int64]) -> NDArray[np.int64]:
    """[A] in how many prompts each column is not constant."""
    _, place = np.unique(prompt, return_inverse=True)
    moved = np.zeros((place.max() + 1, x.shape[1]), dtype=bool)
    rows, columns = np.nonzero(np.abs(x) > 1e-12)
    moved[place[rows], columns] = True
    return np.asarray(moved.sum(axis=0))


def _independent(x: Floats) -> NDArray[np.bool_]:
    """[A] whether the other columns leave something of a column over; of such a group none is priced."""
    # columns of length 1, so that what is left over is a share, whatever units an attribute has
    scaled = x / np.sqrt((x**2).sum(axis=0))
    gram = scaled.T @ scaled
    left = np.empty(len(gram))
    for i in range(len(gram)):
        others = np.delete(np.arange(len(gram)), i)
        # least squares and not `solve`: the others may be collinear among themselves
        solution, *_ = np.linalg.lstsq(gram[np.ix_(others, others)], gram[others, i], rcond=None)
        # 1 - R^2 of column i on the others
        left[i] = 1.0 - gram[i, others] @ solution
    return np.asarray(left > _SAME)


class _Estimate(NamedTuple):
    """Estimate, both ends of the interval and p of a column."""

    sd: float
    low: float
    high: float
    p: float


def _fitted(y: Floats, x: Floats, prompt: NDArray[np.int64]) -> list[_Estimate]:
    """What is estimated of every column, by least squares with errors clustered by prompt.

    By hand: importing statsmodels took as long as reading the attributes of some thousand answers. Tests hold
    it against statsmodels.
    """
    if not x.shape[1]:
        return []
    from scipy.special import stdtr, stdtrit

    inverse = np.linalg.inv(x.T @ x)
    sd = inverse @ (x.T @ y)
    _, place = np.unique(prompt, return_inverse=True)
    groups, answers = int(place.max()) + 1, len(y)
    # what one prompt adds to the normal equations: answers to it may go together in any way
    scores = np.zeros((groups, x.shape[1]))
    np.add.at(scores, place, x * (y - x @ sd)[:, None])
    small = groups / (groups - 1) * (answers - 1) / (answers - x.shape[1])
    parts = scores @ inverse
    error = np.sqrt(small * (parts**2).sum(axis=0))
    half = stdtrit(groups - 1, 0.975) * error
    # a reward that does not differ within prompts has prices of 0 and no error
    t = np.divide(sd, error, out=np.zeros_like(sd), where=error > 0)
    p = 2 * stdtr(groups - 1, -np.abs(t))
    return [_Estimate(*map(float, row)) for row in zip(sd, sd - half, sd + half, p, strict=True)]
