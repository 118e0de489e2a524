"""The sum of contributions over prompts as a linear function of a redraw of the labels.

Under the null hypothesis that the labels are independent of the latents, the answers of one prompt are
exchangeable: any of them could have been the chosen ones. So a redraw picks anew, within every prompt, which
of its answers are chosen, as many as before.

Where a prompt has equally many chosen and rejected answers, swapping its sides flips the sign of its
contribution `c`, so `c` and `-c` are equally likely. Where the numbers differ, the contribution of one chosen
against seven rejected answers is skewed, and a flipped sign would give values that no labels can give. There
the answers themselves are the units.

Shapes: `P` prompts, `M` tested latents, `E` prompts with equal sides, `A` answers of the other prompts,
`U = E + A` units, `G` (latent, prompt) pairs in which the latent is active, `n` answers of a prompt.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.discovery.pairs.margins import PairLatents, diagonal, margin_contributions
from sarm_control.discovery.permutation.arrangements import log2_distinct

Vector = NDArray[np.float64]
Index = NDArray[np.int64]

_BLOCK = 256


class Shape(NamedTuple):
    """Prompts with the same numbers of answers on their smaller and their larger side.

    Args:
        few: number of answers of the smaller side.
        answers: n, the number of both sides.
        prompts: number of such prompts.
        start: the position of their first answer among the A answers; the n answers of a prompt are
            adjacent, those of the smaller side first.
    """

    few: int
    answers: int
    prompts: int
    start: int

    @property
    def stop(self) -> int:
        """The position after their last answer."""
        return self.start + self.prompts * self.answers


class Spread(NamedTuple):
    """How much redraws vary the sum of each latent, [M] float64 each.

    Args:
        variance: of the sum over all redraws.
        squared_ranges: sum over prompts of (largest - smallest contribution)^2.
        log2_arrangements: base-2 logarithm of the number of redraws that differ in the latent's values.
    """

    variance: Vector
    squared_ranges: Vector
    log2_arrangements: Vector


class ActiveGroups(NamedTuple):
    """The answers of the prompts of one shape in which a latent is active.

    Args:
        latent: [G] its position among the M.
        prompt: [G] the prompt's position in the shape.
        values: [G, n] `w z` of its answers, zeros included.
    """

    latent: Index
    prompt: Index
    values: Vector


@dataclass(frozen=True)
class Relabelling:
    """Contributions of M latents in the units that a redraw of the labels changes; made by `relabelling`.

    Args:
        equal: [M, E] `csr_array` of the contributions of prompts with equal sides.
        answers: [M, A] `csr_array` of `w z` of every answer to the other prompts, ordered by `shapes`.
        sign: [A] +1 where the smaller side of the answer's prompt is the chosen one, -1 where it is
            the rejected one.
        shapes: of the other prompts.
    """

    equal: Any
    answers: Any
    sign: Vector
    shapes: tuple[Shape, ...]

    @property
    def units(self) -> int:
        """U, the number of units."""
        return int(self.equal.shape[1] + self.answers.shape[1])

    def take(self, latents: ArrayLike) -> "Relabelling":
        """The same for some of the M latents."""
        return Relabelling(self.equal[latents], self.answers[latents], self.sign, self.shapes)

    def observed(self) -> Vector:
        """[M] sums of the contributions under the observed labels."""
        # within a prompt the answers of the smaller side stand first
        drawn = np.concatenate(
            [np.arange(one.stop - one.start) % one.answers < one.few for one in self.shapes]
        )
        few, many = self._shares()
        return _sums(self.equal) + _product(self.answers, self.sign * np.where(drawn, few, -many))

    def steps(self) -> Any:
        """[M, U] `csr_array`: what a unit that is on adds to `base`.

        A prompt with equal sides is on when its sign is flipped; an answer is on when it is drawn for the
        smaller side.
        """
        from scipy.sparse import csr_array, hstack

        few, many = self._shares()
        # a drawn answer joins the smaller side's mean and leaves the larger's: it moves w z (1/few + 1/many)
        scaled = self.answers @ diagonal(self.sign * (few + many))
        return csr_array(hstack([-2 * self.equal, scaled], format="csr"))

    def base(self) -> Vector:
        """[M] sums where no unit is on."""
        _, many = self._shares()
        return _sums(self.equal) - _product(self.answers, self.sign * many)

    def slack(self) -> Vector:
        """[M] the scale of the sums; rounding errors are a tiny share of it."""
        few, many = self._shares()
        return _sums(abs(self.equal)) + _product(abs(self.answers), few + many)

    def groups(self, one: Shape) -> Iterator[ActiveGroups]:
        """The values of the latents in the prompts of one shape, a block of latents at a time."""
        for start in range(0, self.answers.shape[0], _BLOCK):
            block = self.answers[start : start + _BLOCK, one.start : one.stop].tocoo()
            if block.nnz:
                # one key per (latent, prompt) pair
                key = block.row.astype(np.int64) * one.prompts + block.col // one.answers
                pairs, place = np.unique(key, return_inverse=True)
                values = np.zeros((len(pairs), one.answers))
                values[place, block.col % one.answers] = block.data
                yield ActiveGroups(start + pairs // one.prompts, pairs % one.prompts, values)

    def spread(self) -> Spread:
        """How much redraws vary each sum."""
        squares = _sums(self.equal.multiply(self.equal))
        # a flipped sign: variance c^2, range 2 |c|, two arrangements
        totals = np.array([squares, 4 * squares, np.diff(self.equal.indptr).astype(np.float64)])
        for one in self.shapes:
            logs = log2_distinct(one.few, one.answers)
            for group in self.groups(one):
                ordered = np.sort(group.values, axis=1)
                moves = ordered[:, -1] > ordered[:, 0]
                counts = logs[(group.values != 0).sum(axis=1)]
                for row, own in enumerate(
                    (_variance(ordered, one.few), _range(ordered, one.few) ** 2, counts)
                ):
                    totals[row] += np.bincount(
                        group.latent, weights=np.where(moves, own, 0.0), minlength=totals.shape[1]
                    )
        return Spread(*totals)

    def moved_by_answers(self) -> NDArray[np.bool_]:
        """[M] whether a latent differs between answers of a prompt with unequal sides."""
        moved = np.zeros(self.answers.shape[0], dtype=bool)
        for one in self.shapes:
            for group in self.groups(one):
                moved[group.latent[group.values.max(axis=1) > group.values.min(axis=1)]] = True
        return moved

    def _shares(self) -> tuple[Vector, Vector]:
        """[A] one over the size of the smaller and of the larger side of each answer's prompt."""
        sizes = [one.stop - one.start for one in self.shapes]
        few = np.repeat([1 / one.few for one in self.shapes], sizes)
        many = np.repeat([1 / (one.answers - one.few) for one in self.shapes], sizes)
        return few, many


def has_equal_sides(pairs: PairLatents) -> bool:
    """Whether every prompt has as many chosen as rejected answers."""
    chosen, rejected = _side_sizes(pairs)
    return bool((chosen == rejected).all())


def relabelling(pairs: PairLatents, latents: ArrayLike) -> Relabelling:
    """The contributions of some latents in the units that a redraw of the labels changes.

    Args:
        pairs: the answers; at least one prompt has unequal sides.
        latents: [M] their numbers.
    """
    from scipy.sparse import csr_array, vstack

    wanted = np.asarray(latents, dtype=np.int64)
    chosen, rejected = _side_sizes(pairs)
    few, answers = np.minimum(chosen, rejected), chosen + rejected
    prompt = np.concatenate([pairs.chosen_prompt, pairs.rejected_prompt])
    is_chosen = np.arange(len(prompt)) < len(pairs.chosen_prompt)
    in_few = is_chosen == (chosen < rejected)[prompt]
    # prompts of one shape are adjacent, and within a prompt the smaller side comes first
    order = np.lexsort((~in_few, prompt, few[prompt], answers[prompt]))
    order = order[(chosen != rejected)[prompt[order]]]
    stacked = csr_array(vstack([pairs.chosen[:, wanted], pairs.rejected[:, wanted]], format="csr"))[order]
    stacked.data *= pairs.head[wanted][stacked.indices]
    equal = margin_contributions(pairs)[:, wanted][np.flatnonzero(chosen == rejected)]
    return Relabelling(
        _by_latent(equal),
        _by_latent(stacked),
        np.where((chosen < rejected)[prompt[order]], 1.0, -1.0),
        _shapes(few[prompt[order]], answers[prompt[order]]),
    )


def _side_sizes(pairs: PairLatents) -> tuple[Index, Index]:
    count = pairs.prompts
    return (
        np.bincount(pairs.chosen_prompt, minlength=count),
        np.bincount(pairs.rejected_prompt, minlength=count),
    )


def _shapes(few: Index, answers: Index) -> tuple[Shape, ...]:
    """The shapes of the ordered answers: runs of equal sizes."""
    changes = np.flatnonzero((np.diff(few) != 0) | (np.diff(answers) != 0)) + 1
    starts = np.concatenate([[0], changes, [len(few)]])
    return tuple(
        Shape(int(few[start]), int(answers[start]), int((stop - start) // answers[start]), int(start))
        for start, stop in pairwise(starts)
    )


def _by_latent(matrix: Any) -> Any:
    from scipy.sparse import csr_array

    rows = csr_array(matrix.T)
    rows.eliminate_zeros()
    rows.sort_indices()
    return rows


def _sums(rows: Any) -> Vector:
    return np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()


def _product(rows: Any, weights: Vector) -> Vector:
    return np.asarray(rows @ weights, dtype=np.float64)


def _variance(ordered: Vector, few: int) -> Vector:
    """[G] variance of `mean(few drawn) - mean(the others)`, with sampling without replacement."""
    many = ordered.shape[1] - few
    # exact: the finite-population corrections of both means cancel against their covariance
    return np.asarray(ordered.var(axis=1, ddof=1) * (1 / few + 1 / many))


def _range(ordered: Vector, few: int) -> Vector:
    """[G] the largest minus the smallest value of the same difference."""
    highest = ordered[:, -few:].mean(axis=1) - ordered[:, :-few].mean(axis=1)
    lowest = ordered[:, :few].mean(axis=1) - ordered[:, few:].mean(axis=1)
    return np.asarray(highest - lowest)
