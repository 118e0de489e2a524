"""Whether two samples differ at all: the maximum mean discrepancy, with a permutation test."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sarm_control.control.density_ratio.logistic import Array
from sarm_control.errors import DataError
from sarm_control.latents import check_finite
from sarm_control.seeds import numpy_generator

_MOST_ROWS = 1000
_LEAST_ROWS = 2
_PERMUTATIONS = 999


class MMDTest(NamedTuple):
    """The unbiased squared maximum mean discrepancy, and the p-value of "the samples are alike".

    Args:
        statistic: may be slightly negative when they are alike.
        p: the share of permutations, the observed one included, with at least as large a statistic.
        bandwidth: of the Gaussian kernel: the median distance of the pooled rows.
    """

    statistic: float
    p: float
    bandwidth: float


def mmd_test(policy: Array, human: Array, *, seed: int = 0) -> MMDTest:
    """The two-sample test of Gretton et al., 2012, "A kernel two-sample test", with 999 permutations.

    Args:
        policy: [P, F] features; at most 1,000 rows, drawn from `seed`, are used.
        human: [H, F] likewise.
        seed: of the rows and the permutations.

    Raises:
        DataError: fewer than 2 rows per side, different widths, or a NaN or infinity.
    """
    shapes = policy.shape, human.shape
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1:] != shapes[1][1:]:
        raise DataError(
            f"the samples have shapes {shapes[0]} and {shapes[1]}, both must be [rows, features] of one width"
        )
    for rows, what in ((policy, "the policy"), (human, "the human sample")):
        if len(rows) < _LEAST_ROWS:
            raise DataError(f"{what} has {len(rows)} rows, at least {_LEAST_ROWS} are needed")
        check_finite(rows, what)
    rng = numpy_generator(seed, "mmd")
    first, second = (_some(rows, rng) for rows in (policy, human))
    rows = np.concatenate([first, second])
    norms = (rows**2).sum(axis=1)
    # |a - b|^2 expanded, which needs no [N, N, F] array; rounding may leave it below 0
    squared = np.maximum(norms[:, None] + norms[None, :] - 2 * rows @ rows.T, 0.0)
    upper = squared[np.triu_indices(len(rows), 1)]
    # the median is 0 where most rows are equal
    bandwidth = float(np.median(np.sqrt(upper))) or 1.0
    kernel = np.exp(-0.5 * squared / bandwidth**2)
    # without a row's kernel with itself the statistic is unbiased
    np.fill_diagonal(kernel, 0.0)
    side = np.concatenate([np.ones(len(first)), np.zeros(len(second))])
    observed = _statistics(kernel, side[:, None])[0]
    sides = np.stack([rng.permutation(side) for _ in range(_PERMUTATIONS)], axis=1)
    # the tolerance lets equal statistics tie, however their sums were rounded
    as_large = int((_statistics(kernel, sides) >= observed - 1e-12).sum())
    return MMDTest(float(observed), (1 + as_large) / (1 + _PERMUTATIONS), bandwidth)


def _statistics(kernel: Float[Array, "N N"], sides: Float[Array, "N R"]) -> Float[Array, " R"]:
    """[R] statistics of R assignments; sides [N, R] is 1 for policy rows and 0 for human rows."""
    inside = kernel @ sides
    p, h = sides[:, 0].sum(), (1 - sides[:, 0]).sum()
    both = (sides * inside).sum(axis=0)
    cross = ((1 - sides) * inside).sum(axis=0)
    # the kernel holds each policy-human pair twice, `cross` once
    human = kernel.sum() - both - 2 * cross
    return np.asarray(both / (p * (p - 1)) + human / (h * (h - 1)) - 2 * cross / (p * h))


def _some(rows: Float[Array, "N F"], rng: np.random.Generator) -> Float[Array, "kept F"]:
    return rows if len(rows) <= _MOST_ROWS else rows[np.sort(rng.permutation(len(rows))[:_MOST_ROWS])]
