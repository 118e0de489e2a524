"""Permutation tests of a preference: the labels "chosen" and "rejected" are redrawn within each prompt.

Where every prompt has as many chosen as rejected answers, these are the sign-flip tests of
`statistics.sign_flips`; otherwise see `discovery.permutation.relabelling`. All latents share the redraws,
which keeps their dependence.

Shapes: `P` prompts, `M` tested latents, `B` redraws, `U` units that a redraw moves.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.discovery.pairs.margins import PairLatents, margin_contributions
from sarm_control.discovery.permutation.arrangements import distinct
from sarm_control.discovery.permutation.redraws import RunningSums, redraws
from sarm_control.discovery.permutation.relabelling import Relabelling, has_equal_sides, relabelling
from sarm_control.statistics import (
    ENOUGH_REACHED,
    EXACT_UP_TO,
    MAX_T_DRAWS,
    SLACK,
    max_t_test,
    sign_flip_test,
)

Vector = NDArray[np.float64]
Index = NDArray[np.int64]


def label_test(pairs: PairLatents, latents: ArrayLike, *, draws: int = 20_000, seed: int = 0) -> Vector:
    """Two-sided p of "the labels are independent of the latent" for M latents, by redrawing labels.

    The statistic is the mean contribution. A latent that varies only within prompts with equal sides has the
    p of `sign_flip_test`. For any other latent the null distribution is skewed and its tails differ, so p is
    twice that of the smaller tail, at most 1. (A test of `|sum|` would have no power in the flat tail: with
    50 prompts of one chosen and seven rejected answers, a latent that fires in one answer of each and never
    in a chosen one has .0026 by this test, and .0083 by `|sum|`.)

    The tails are exact where at most 2^14 redraws differ. Otherwise they come from up to `B` redraws,
    `(1 + count) / (1 + drawn)`, and each tail stops drawing when its count reaches 100, as in
    `sign_flip_test`. Where Hoeffding's bound, `p <= 2 exp(-2 T^2 / sum of squared ranges)`, is at
    most `1 / (B + 1)^2`, the bound is the p.

    Args:
        pairs: the answers by prompt.
        latents: [M] their numbers.
        draws: B, the redraws of the Monte Carlo part.
        seed: the same seed gives the same p.

    Returns:
        [M] float64 in (0, 1]; 1 for a latent whose sum no redraw changes.
    """
    wanted = np.asarray(latents, dtype=np.int64)
    if has_equal_sides(pairs):
        return sign_flip_test(margin_contributions(pairs)[:, wanted], draws=draws, seed=seed)
    form = relabelling(pairs, wanted)
    # where only prompts with equal sides matter, sign flips have the null of redraws and are cheaper
    skewed = form.moved_by_answers()
    result = np.ones(len(wanted))
    result[~skewed] = sign_flip_test(form.equal[~skewed].T, draws=draws, seed=seed)
    result[skewed] = _skewed_p(form.take(skewed), draws, seed)
    return result


def label_max_t_test(
    pairs: PairLatents, latents: ArrayLike, *, draws: int = MAX_T_DRAWS, seed: int = 0
) -> Vector:
    """Adjusted p of M latents: rejecting all with p <= x makes an error with probability at most x.

    This is step-down max-T like `max_t_test`, with `T = |sum| / SD of the sum over all redraws`. The SD does
    not depend on the labels.

    Args:
        pairs: the answers by prompt.
        latents: [M] their numbers.
        draws: B, redraws; the smallest p is `1 / (B + 1)`.
        seed: the same seed gives the same p.

    Returns:
        [M] float64 in (0, 1].
    """
    wanted = np.asarray(latents, dtype=np.int64)
    if has_equal_sides(pairs):
        return max_t_test(margin_contributions(pairs)[:, wanted], draws=draws, seed=seed)
    form = relabelling(pairs, wanted)
    deviation = np.sqrt(form.spread().variance)
    scale = np.divide(1.0, deviation, out=np.zeros(len(wanted)), where=deviation > 0)
    observed = np.abs(form.observed()) * scale
    order = np.argsort(-observed, kind="stable")
    ordered = form.take(order)
    threshold = (observed - SLACK * form.slack() * scale)[order, None]
    count = np.zeros(len(order))
    running = RunningSums(ordered)
    for drawn in redraws(ordered, draws, seed, "max-t"):
        sizes = np.abs(running.of(drawn)) * scale[order, None]
        # step-down: a latent competes with itself and the latents of smaller T
        largest = np.maximum.accumulate(sizes[::-1], axis=0)[::-1]
        count += (largest >= threshold).sum(axis=1)
    result = np.empty(len(order))
    # 1 + : the observed labels are one of the draws that the null hypothesis allows. The running maximum
    # keeps the order of T: none is rejected before those with a larger T.
    result[order] = np.maximum.accumulate((1 + count) / (1 + draws))
    return np.where(observed > 0, result, 1.0)


def label_bound(form: Relabelling) -> Vector:
    """[M] upper bound of the exact p of `label_test` (Hoeffding 1963, theorem 2)."""
    ranges = form.spread().squared_ranges
    usable = np.where(ranges > 0, ranges, 1.0)
    bound: Vector = 2 * np.exp(-2 * np.where(ranges > 0, form.observed(), 0.0) ** 2 / usable)
    return bound


def _skewed_p(form: Relabelling, draws: int, seed: int) -> Vector:
    """[M] equal-tailed p of latents with a skewed null."""
    # a sum of logarithms is rounded
    few = form.spread().log2_arrangements <= EXACT_UP_TO + 1e-9
    result = label_bound(form)
    result[few] = _exact_p(form.take(few))
    drawn = np.flatnonzero(~few & (result > (1 + draws) ** -2.0))
    if len(drawn):
        result[drawn] = _monte_carlo_p(form.take(drawn), draws, seed)
    return result


def _exact_p(form: Relabelling) -> Vector:
    """[M] equal-tailed p over all redraws that differ."""
    parts = _parts(form)
    observed, slack = form.observed(), SLACK * form.slack()
    result = np.empty(len(observed))
    for latent, own in enumerate(parts):
        # the distribution of the sum is the convolution of those of the prompts
        sums, chance = np.zeros(1), np.ones(1)
        for values, chances in own:
            sums = (sums[:, None] + values).ravel()
            chance = (chance[:, None] * chances).ravel()
        upper = chance[sums >= observed[latent] - slack[latent]].sum()
        lower = chance[sums <= observed[latent] + slack[latent]].sum()
        result[latent] = min(1.0, 2 * min(upper, lower))
    return result


def _parts(form: Relabelling) -> list[list[tuple[Vector, Vector]]]:
    """By latent, for each prompt in which it varies: its possible contributions and their probabilities."""
    half = np.full(2, 0.5)
    parts = [
        [(np.array([c, -c]), half) for c in form.equal.data[start:stop]]
        for start, stop in zip(form.equal.indptr[:-1], form.equal.indptr[1:], strict=True)
    ]
    for one in form.shapes:
        few, many = 1 / one.few, 1 / (one.answers - one.few)
        for group in form.groups(one):
            signs = form.sign[one.start + group.prompt * one.answers]
            for latent, sign, values in zip(group.latent, signs, group.values, strict=True):
                if values.max() > values.min():
                    active = values[values != 0]
                    ways = distinct(one.few, one.answers, len(active))
                    # the mean of the picked less that of the others: picked few - (sum - picked) many
                    moved = sign * ((ways.taken @ active) * (few + many) - active.sum() * many)
                    parts[latent].append((moved, ways.chance))
    return parts


def _monte_carlo_p(form: Relabelling, draws: int, seed: int) -> Vector:
    """[M] equal-tailed p.

    Each tail stops by itself, so that `P(tail <= x) <= x` holds for each, and twice the smaller one is valid.
    """
    observed, slack = form.observed(), SLACK * form.slack()
    count, drawn = np.zeros((2, len(observed))), np.zeros((2, len(observed)))
    running = RunningSums(form)
    for chunk in redraws(form, draws, seed, "labels"):
        rows = running.latents
        sums = running.of(chunk)
        reached = (
            (sums >= (observed - slack)[rows, None]).sum(axis=1),
            (sums <= (observed + slack)[rows, None]).sum(axis=1),
        )
        for tail, found in enumerate(reached):
            still = count[tail, rows] < ENOUGH_REACHED
            count[tail, rows] += np.where(still, found, 0)
            drawn[tail, rows] += np.where(still, chunk.size, 0)
        if not running.keep(np.asarray((count < ENOUGH_REACHED).any(axis=0))):
            break
    tails: Vector = (1 + count) / (1 + drawn)
    # twice the smaller tail: the price of choosing the tail after seeing the data
    return np.asarray(np.minimum(2 * tails.min(axis=0), 1.0))
