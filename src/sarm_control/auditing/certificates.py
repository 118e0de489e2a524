"""The certificate against substitution: what else moves when one payment is removed.

A policy that is no longer rewarded for one shortcut may take another. Best-of-N by the mended reward and by
the unmended one, at equal N and so at the same distance from the policy, shows where the pressure goes. For
every attribute that was *not* targeted the certificate bounds the change of the winner's attribute:

    d_p = E[a | N, mended] - E[a | N, unmended]        for each prompt p, exact over all sets of N answers

All bounds hold together with probability .95 (Bonferroni over attributes, sizes and both sides). Where
hardly a prompt moves, the mean of `d_p` has no useful interval; a share of answers then moves by no more
than the share of prompts that move at all, whose exact binomial limit (Clopper and Pearson 1934) is the
bound.

What it does not cover: attributes that nobody listed, and policies that leave the answers sampled here.

Shapes: `P` prompts, `A` attributes.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.best_of_n import expected_attributes
from sarm_control.auditing.table import AttributeTable, Floats
from sarm_control.errors import ConfigError, DataError
from sarm_control.statistics import column_moments, interval_ends, skewness_of_mean, too_few

SIZES = (4, 16, 64)
ALPHA = 0.05
LIMIT = 0.05
"""Share of answers that an attribute may move by and still count as still; of a size, share of its mean."""

Verdict = Literal["still", "moves up", "moves down", "not shown"]


class Movement(NamedTuple):
    """What one attribute does under the mended reward, beside the unmended one.

    Args:
        name: of the attribute.
        n: best-of-n.
        change: mean over prompts of `d_p`: share of answers, or for a size its share of the unmended mean.
        low: lower simultaneous bound; minus infinity where there is none.
        high: upper simultaneous bound.
        verdict: `still` where both bounds are within `limit`; `moves up` or `moves down` where they leave
            out 0 and are not both within it; `not shown` where the data allow neither.
        prompts: that were compared.
        moved: of them, those in which it changes at all.
    """

    name: str
    n: int
    change: float
    low: float
    high: float
    verdict: Verdict
    prompts: int
    moved: int


def certificate(
    table: AttributeTable,
    mended: Floats,
    *,
    targeted: Collection[str] = (),
    n: Sequence[int] = SIZES,
    limit: float = LIMIT,
) -> tuple[Movement, ...]:
    """The movement of every attribute that was not targeted, for each size of set that the data have.

    Args:
        table: several answers to each prompt; its rewards are the unmended ones.
        mended: [N] rewards after the mend.
        targeted: names of the attributes that the mend is meant to move.
        n: sizes of set; those that fewer than ten prompts have answers for are left out.
        limit: see `LIMIT`.

    Raises:
        ConfigError: a target that is no attribute of the table.
        DataError: every attribute is targeted; or see `expected_attributes`.
    """
    names = [one.name for one in table.attributes]
    for name in targeted:
        if name not in names:
            raise ConfigError(
                f"the target {name!r} is no attribute of this audit", hint=f"it has {', '.join(names)}"
            )
    kept = [place for place, name in enumerate(names) if name not in targeted]
    if not kept:
        raise DataError(
            "every attribute of the audit is mended, so nothing is left to stay still",
            hint="ask about others",
        )
    sizes, before = expected_attributes(table, n=n)
    _, after = expected_attributes(table, n=n, rewards=mended)
    # [P, sizes, attributes that are not targeted]
    change = (after - before)[:, :, kept]
    # a share is comparable as it is; a size has no natural limit, so it is taken as a share of its own
    # mean
    scale = np.ones(len(kept))
    for place, number in enumerate(kept):
        if table.attributes[number].unit == "doubling":
            scale[place] = max(float(before[:, 0, number].mean()), 1e-12)
    change /= scale
    # bounds of every size and attribute hold together, so all of them count
    tests = change.shape[1] * change.shape[2]
    found = []
    for at, size in enumerate(sizes):
        shares = [table.attributes[number].unit != "doubling" for number in kept]
        low, high = simultaneous_bounds(change[:, at], shares=np.array(shares), tests=tests)
        # the expected values are sums of products, so equal ones may differ by their rounding
        moved = (np.abs(change[:, at]) > 1e-12).sum(axis=0)
        for place, number in enumerate(kept):
            ends = float(low[place]), float(high[place])
            found.append(
                Movement(
                    names[number],
                    size,
                    float(change[:, at, place].mean()),
                    *ends,
                    verdict_of(*ends, limit),
                    len(change),
                    int(moved[place]),
                )
            )
    return tuple(found)


def verdict_of(low: float, high: float, limit: float) -> Verdict:
    """What two bounds of a movement say, see `Movement`."""
    # first: what moves surely, and surely by less than the limit, is still
    if -limit <= low and high <= limit:
        return "still"
    if low > 0:
        return "moves up"
    return "moves down" if high < 0 else "not shown"


def simultaneous_bounds(
    change: Floats, *, shares: NDArray[np.bool_], tests: int, alpha: float = ALPHA
) -> tuple[Floats, Floats]:
    """[M] lower and [M] upper bounds of means over prompts that hold together with probability `1 - alpha`.

    Args:
        change: [P, M] one number for each prompt.
        shares: [M] whether a column is a difference of shares, so within -1 and 1.
        tests: how many columns there are in all that are to hold together.
        alpha: probability that any of them fails.
    """
    prompts = len(change)
    # Bonferroni over all columns and both of their sides
    each = alpha / (2 * tests)
    moments = column_moments(change)
    skewness = skewness_of_mean(moments)
    error = np.sqrt(moments.squares / max(prompts - 1, 1) / prompts)
    low, high = interval_ends(moments.mean, error, skewness, max(prompts - 1, 1), quantile=1 - each)
    sparse = too_few(moments.apart, skewness)
    rises, falls = ((sign * change > 1e-12).sum(axis=0) for sign in (1, -1))
    # a share moves by at most 1 in a prompt, so its mean rises by no more than the share of prompts that rise
    exact_high = np.where(shares, _binomial_limit(rises, prompts, each), np.inf)
    exact_low = np.where(shares, -_binomial_limit(falls, prompts, each), -np.inf)
    return np.where(sparse, exact_low, low), np.where(sparse, exact_high, high)


def _binomial_limit(count: NDArray[np.int64], of: int, alpha: float) -> Floats:
    """Upper limit of a share by Clopper and Pearson; 1 where all have it."""
    from scipy.special import betaincinv

    # the beta quantile has no value where all have it; the limit is 1 there
    some = np.minimum(count, of - 1)
    return np.where(count >= of, 1.0, betaincinv(some + 1.0, of - some, 1 - alpha))
