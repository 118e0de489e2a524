"""Pair accuracy and best of n: oracle by hand, property (hypothesis), and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.errors import DataError
from sarm_control.evaluation.preferences import best_of_n, pair_accuracy

Scores = list[list[float]]

# Few distinct values, so that ties occur.
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=5)
table = st.lists(st.tuples(scores, scores), min_size=1, max_size=6)


def test_oracle_pair_accuracy_counts_strict_wins_within_each_row() -> None:
    shares = pair_accuracy([[2.0, 1.0], [0.5]], [[0.0, 1.0, 3.0], [0.5, 0.4]])
    # Row 0: 2 beats 0 and 1; 1 beats 0 and ties 1. Row 1: ties 0.5, beats 0.4.
    np.testing.assert_array_equal(shares, [3 / 6, 1 / 2])


def test_oracle_best_of_n_follows_rewardbench_2() -> None:
    chosen = [[3.0], [3.0], [1.0], [2.0]]
    rejected = [[1.0, 2.0, 0.0], [3.0, 3.0, 0.0], [2.0, 0.0, 0.0], [2.0, 2.0, 2.0]]
    np.testing.assert_allclose(best_of_n(chosen, rejected), [1, 1 / 3, 0, 1 / 4])


def test_oracle_best_of_n_shares_ties_between_several_chosen() -> None:
    np.testing.assert_allclose(best_of_n([[4.0, 4.0, 1.0]], [[4.0, 0.0]]), [2 / 3])


@settings(deadline=None, max_examples=40)
@given(table)
def test_property_shares_lie_in_the_unit_interval_and_ignore_order(
    rows: list[tuple[list[float], list[float]]],
) -> None:
    chosen, rejected = [good for good, _ in rows], [bad for _, bad in rows]
    for measure in (pair_accuracy, best_of_n):
        value = measure(chosen, rejected)
        assert value.shape == (len(rows),)
        assert ((value >= 0) & (value <= 1)).all()
        flipped = measure([row[::-1] for row in chosen], [row[::-1] for row in rejected])
        np.testing.assert_array_equal(value, flipped)


@settings(deadline=None, max_examples=40)
@given(table, st.sampled_from([0.5, 2.0, 8.0]), st.integers(-4, 4))
def test_metamorphic_a_positive_affine_map_of_the_scores_changes_nothing(
    rows: list[tuple[list[float], list[float]]], scale: float, shift: int
) -> None:
    chosen, rejected = [good for good, _ in rows], [bad for _, bad in rows]

    def moved(side: Scores) -> Scores:
        return [[scale * score + shift for score in row] for row in side]

    for measure in (pair_accuracy, best_of_n):
        np.testing.assert_array_equal(measure(chosen, rejected), measure(moved(chosen), moved(rejected)))


@settings(deadline=None, max_examples=40)
@given(table)
def test_property_swapping_the_sides_swaps_the_wins(rows: list[tuple[list[float], list[float]]]) -> None:
    chosen, rejected = [good for good, _ in rows], [bad for _, bad in rows]
    np.testing.assert_allclose(best_of_n(chosen, rejected) + best_of_n(rejected, chosen), 1.0)
    assert (pair_accuracy(chosen, rejected) + pair_accuracy(rejected, chosen) <= 1.0 + 1e-12).all()


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ([[1.0]], [], "1 rows of chosen scores but 0"),
        ([[1.0]], [[0.0], [0.0]], "1 rows of chosen scores but 2"),
        ([[1.0], []], [[0.0], [0.0]], "row 1: needs at least one chosen and one rejected"),
        ([[1.0], [0.0]], [[0.0], []], "row 1: needs at least one chosen and one rejected"),
        ([[float("nan")]], [[0.0]], "row 0: a score is not finite"),
        ([[1.0], [1.0]], [[0.0], [float("inf")]], "row 1: a score is not finite"),
    ],
)
def test_bad_input_is_named(chosen: Scores, rejected: Scores, message: str) -> None:
    for measure in (pair_accuracy, best_of_n):
        with pytest.raises(DataError, match=message):
            measure(chosen, rejected)
