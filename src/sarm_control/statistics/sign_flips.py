"""Sign-flip permutation tests with the prompt as the unit.

The tests are for differences of two numbers that are exchangeable under the null hypothesis, so that `c` and
`-c` are equally likely: two figures of one unit, or the means of equally many chosen and rejected answers.
The mean of one answer and the mean of three are not exchangeable; see `discovery.permutation.label_tests`.
The sign of a prompt is flipped for all latents together, which keeps their dependence.

By hand, because `scipy.stats.permutation_test` takes no sparse columns and keeps every draw, and no library
at hand has the step-down max-T.

Shapes: `P` prompts, `M` tested latents, `B` sign vectors, `S` nonzero prompts of a latent.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from sarm_control.seeds import numpy_generator
from sarm_control.statistics.mixed_density import MixedRows

FloatVector = NDArray[np.float64]

EXACT_UP_TO = 14
ENOUGH_REACHED = 100
MAX_T_DRAWS = 2000
_CHUNK = 1000
_BLOCK = 2048
# Sums of the same numbers in another order may differ in the last bits; within this share they tie.
SLACK = 1e-10


def sign_flip_test(columns: Any, *, draws: int = 20_000, seed: int = 0) -> Float[FloatVector, " M"]:
    """Two-sided p of "the mean over prompts is 0" for M columns, by flipping signs of prompts.

    The sign patterns of a column with at most 14 nonzero prompts are enumerated, `p = count / 2^S`. Other
    columns use up to `B` sign vectors shared by all columns, `p = (1 + count) / (1 + drawn)`, where `count`
    is the number of flips whose `|sum|` reaches the observed one. A column stops drawing after the thousand
    in which its count reaches 100: its p is then at least 100 / drawn, and `P(p <= x) <= x` still
    holds for every x (sequential test of Besag and Clifford 1991).

    Hoeffding's bound of the exact p is `2 exp(-T^2 / 2)` with `T = sum / sqrt(sum of squares)`. Where it is
    at most `1 / (B + 1)^2`, nothing is drawn and the bound is the p: B sign vectors could not distinguish it
    from 0.

    Args:
        columns: [P, M] contributions of equal sides, dense or scipy sparse.
        draws: B, the sign vectors of the Monte Carlo part.
        seed: the same seed gives the same p.

    Returns:
        [M] float64 p-values in (0, 1]; 1 for a column without a nonzero prompt.
    """
    rows = _nonzero_rows(columns)
    nonzero = np.diff(rows.indptr)
    result = np.ones(rows.shape[0])
    for count in range(1, EXACT_UP_TO + 1):
        chosen = np.flatnonzero(nonzero == count)
        if len(chosen):
            # rows with equally many nonzero prompts and no stored zeros make a dense table
            values = rows[chosen].data.reshape(len(chosen), count)
            result[chosen] = _exact_p(values)
    # zeros are the same under both signs, so only nonzero prompts count
    many = np.flatnonzero(nonzero > EXACT_UP_TO)
    bound = hoeffding_bound(rows[many].T)
    extreme = bound <= (1 + draws) ** -2.0
    result[many[extreme]] = bound[extreme]
    drawn = many[~extreme]
    if len(drawn):
        result[drawn] = _monte_carlo_p(rows[drawn], draws, seed)
    return result


def hoeffding_bound(columns: Any) -> Float[FloatVector, " M"]:
    """[M] upper bound of the exact two-sided sign-flip p (Hoeffding 1963, theorem 2).

    Args:
        columns: [P, M] contributions, dense or scipy sparse.
    """
    bound: FloatVector = 2 * np.exp(-(_standardised_sums(_nonzero_rows(columns)) ** 2) / 2)
    return bound


def max_t_test(columns: Any, *, draws: int = MAX_T_DRAWS, seed: int = 0) -> Float[FloatVector, " M"]:
    """Adjusted p-values of M columns: rejecting all with p <= x makes an error with probability at most x.

    This is the step-down max-T method of Westfall and Young (1993, algorithm 4.1) with
    `T = |sum| / sqrt(sum of squares)`, whose denominator sign flips do not change. The columns' dependence is
    kept, so it is less strict than Bonferroni where latents fire together.

    Args:
        columns: [P, M] contributions, dense or scipy sparse.
        draws: B, sign vectors; the smallest p is `1 / (B + 1)`.
        seed: the same seed gives the same p.

    Returns:
        [M] float64 in (0, 1].
    """
    rows = _nonzero_rows(columns)
    observed = np.abs(_standardised_sums(rows))
    if not len(observed):
        return observed
    order = np.argsort(-observed, kind="stable")
    mixed, scale = MixedRows(rows[order]), _scale(rows)[order, None]
    threshold = observed[order, None] * (1 - SLACK)
    count = np.zeros(len(order))
    total = np.asarray(rows.sum(axis=1)).ravel()[order]
    for turned in _turned(rows.shape[1], draws, seed, "max-t"):
        # step-down: a column competes with itself and the columns of smaller T
        largest = np.maximum.accumulate((_flipped_sums(mixed, total, turned) * scale)[::-1], axis=0)[::-1]
        count += (largest >= threshold).sum(axis=1)
    result = np.empty(len(order))
    # 1 + : the observed signs are one of the draws that the null hypothesis allows. The running maximum keeps
    # the order of T: none is rejected before those with a larger T.
    result[order] = np.maximum.accumulate((1 + count) / (1 + draws))
    return np.where(observed > 0, result, 1.0)


def _nonzero_rows(columns: Any) -> Any:
    """[M, P] `csr_array` without stored zeros."""
    from scipy.sparse import csr_array, issparse

    matrix: Any = columns if issparse(columns) else np.asarray(columns)
    rows = csr_array(csr_array(matrix.astype(np.float64)).T)
    rows.eliminate_zeros()
    return rows


def _scale(rows: Any) -> Float[FloatVector, " M"]:
    """[M] one over the root of the sum of squares; 0 for an empty row."""
    squares = np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
    return np.where(squares > 0, 1 / np.sqrt(np.where(squares > 0, squares, 1.0)), 0.0)


def _standardised_sums(rows: Any) -> Float[FloatVector, " M"]:
    sums: FloatVector = np.asarray(rows.sum(axis=1)).ravel() * _scale(rows)
    return sums


def _turned(prompts: int, draws: int, seed: int, purpose: str) -> Iterator[NDArray[np.float64]]:
    """`draws` sign vectors in blocks [P, up to 1000]: 1 where a prompt's sign is flipped, 0 where it stays.

    All blocks share one buffer, because allocating 80 MB takes longer than drawing it.
    """
    generator = numpy_generator(seed, purpose, prompts)
    memory = np.empty((prompts, min(_CHUNK, draws)))
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        # a sign is one random bit, so a byte draws eight
        packed = generator.integers(0, 256, size=(prompts, (size + 7) // 8), dtype=np.uint8)
        memory[:, :size] = np.unpackbits(packed, axis=1, count=size)
        yield memory[:, :size]


def _flipped_sums(
    rows: MixedRows, total: Float[FloatVector, " M"], turned: Float[NDArray[np.float64], "P B"]
) -> Float[NDArray[np.float64], "M B"]:
    """[M, B] |sum| after the flips: a flipped prompt changes from +c to -c, so the sum changes by -2c."""
    sums = rows @ turned
    sums *= -2
    sums += total[:, None]
    return np.abs(sums, out=sums)


def _exact_p(values: Float[NDArray[np.float64], "M S"]) -> Float[FloatVector, " M"]:
    """[M] p from all `2^S` sign patterns of [M, S] nonzero values.

    Flipping all signs does not change `|sum|`, so one sign is fixed at + and half of the patterns suffice.
    """
    count = values.shape[1]
    patterns = np.arange(1 << (count - 1))[:, None] >> np.arange(count)
    signs = 1.0 - 2.0 * (patterns & 1)
    result = np.empty(len(values))
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        slack = SLACK * np.abs(block).sum(axis=1)
        reached = np.abs(block @ signs.T) >= (np.abs(block.sum(axis=1)) - slack)[:, None]
        result[start : start + _BLOCK] = reached.mean(axis=1)
    return result


def _monte_carlo_p(rows: Any, draws: int, seed: int) -> Float[FloatVector, " M"]:
    """[M] p of rows [M, P]; a row leaves the draws once 100 flips have reached its sum."""
    total = np.asarray(rows.sum(axis=1)).ravel()
    threshold = np.abs(total) - SLACK * np.asarray(abs(rows).sum(axis=1)).ravel()
    count, drawn = np.zeros(len(total)), np.zeros(len(total))
    running, mixed = np.arange(len(total)), MixedRows(rows)
    for turned in _turned(rows.shape[1], draws, seed, "sign-flip"):
        sums = _flipped_sums(mixed, total[running], turned)
        count[running] += (sums >= threshold[running, None]).sum(axis=1)
        drawn[running] += turned.shape[1]
        keep = count[running] < ENOUGH_REACHED
        if not keep.all():
            running = running[keep]
            mixed = MixedRows(rows[running])
        if not len(running):
            break
    # 1 + : the observed signs are one of the draws that the null hypothesis allows, so p is never 0
    return (1 + count) / (1 + drawn)
