"""Best of N: oracle by enumerating every set, property (hypothesis)."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sarm_control.evaluation.reranking.reranking import win_shares

# Few distinct values, so that ties occur.
rewards = st.lists(st.integers(-2, 2).map(float), min_size=1, max_size=7).map(np.array)


def enumerated(paid: np.ndarray, n: int) -> np.ndarray:
    """Every set of n candidates, the win shared among its maxima."""
    shares = np.zeros(len(paid))
    sets = list(combinations(range(len(paid)), n))
    for chosen in map(list, sets):
        best = paid[chosen] == paid[chosen].max()
        shares[chosen] += best / best.sum() / len(sets)
    return shares


@settings(deadline=None, max_examples=80)
@given(rewards, st.data())
def test_oracle_every_set_of_n_enumerated(paid: np.ndarray, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(paid)))
    np.testing.assert_allclose(win_shares(paid, n), enumerated(paid, n), atol=1e-12)


def test_oracle_four_candidates_by_hand() -> None:
    # Of the 6 pairs the best is in 3, the second wins 2, the third 1, the worst none.
    np.testing.assert_allclose(win_shares(np.array([3.0, 1.0, 4.0, 2.0]), 2), [2 / 6, 0, 3 / 6, 1 / 6])


@settings(deadline=None, max_examples=60)
@given(rewards, st.sampled_from([0.5, 3.0]), st.integers(-3, 3))
def test_metamorphic_a_positive_affine_map_of_rewards_changes_nothing(
    paid: NDArray[np.float64], scale: float, shift: int
) -> None:
    for n in range(1, len(paid) + 1):
        np.testing.assert_array_equal(win_shares(scale * paid + shift, n), win_shares(paid, n))


@settings(deadline=None, max_examples=40)
@given(rewards)
def test_property_the_expected_best_reward_rises_with_n(paid: NDArray[np.float64]) -> None:
    means = [float(win_shares(paid, n) @ paid) for n in range(1, len(paid) + 1)]
    assert means[0] == pytest.approx(paid.mean())
    assert means[-1] == pytest.approx(paid.max())
    assert (np.diff(means) >= -1e-12).all()


def test_many_candidates_keep_their_precision() -> None:
    shares = win_shares(np.arange(1000.0), 64)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert shares[-1] == pytest.approx(64 / 1000)
