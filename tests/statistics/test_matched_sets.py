"""Property and calibration tests of random sets matched on firing rate and weight."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sarm_control.errors import DataError
from sarm_control.statistics.matched_sets import among_matched_sets, matched_random_sets

Floats = NDArray[np.float64]


def pool(latents: int = 400, seed: int = 0) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed)
    return generator.random(latents) ** 3, np.abs(generator.normal(size=latents))


def deciles(values: Floats) -> NDArray[np.intp]:
    return np.searchsorted(np.quantile(values, np.arange(0.1, 0.95, 0.1)), values)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12))
def test_property_sets_hold_other_latents_once_and_in_the_place_of_the_chosen_ones(
    seed: int, count: int
) -> None:
    rate, size = pool(4000)
    chosen = np.random.default_rng(seed).choice(4000, count, replace=False)
    drawn, widened = matched_random_sets(chosen, rate, size, sets=60, seed=seed)
    assert widened == 0
    assert drawn.shape == (60, count)
    assert not np.isin(drawn, chosen).any()
    assert all(len(set(row)) == count for row in drawn.tolist())
    for of in (deciles(rate), deciles(size)):
        assert (of[drawn] == of[chosen]).all()


def test_cells_with_enough_latents_are_matched_exactly() -> None:
    rate, size = np.repeat([0.1, 0.9], 100), np.tile([1.0, 2.0], 100)
    found = matched_random_sets([0, 1, 199], rate, size, sets=500)
    assert found.widened == 0
    np.testing.assert_array_equal(rate[found.latents], np.broadcast_to(rate[[0, 1, 199]], (500, 3)))
    np.testing.assert_array_equal(size[found.latents], np.broadcast_to(size[[0, 1, 199]], (500, 3)))
    assert len(np.unique(found.latents[:, 0])) == 49


def test_an_exhausted_cell_takes_from_the_nearest_one() -> None:
    rate = np.concatenate([np.full(8, 0.5), np.linspace(0.6, 1.0, 60)])
    found = matched_random_sets(range(6), rate, np.ones(68), sets=20)
    assert all(len(set(row)) == 6 for row in found.latents.tolist())
    assert found.widened == 6
    assert set(found.latents.ravel().tolist()) > {6, 7}


def test_a_cell_is_used_up_before_its_ring_and_the_ring_before_the_rest() -> None:
    # eight chosen and five others fire alike; 13 latents make a decile, so 13 to 25 are the next one
    rate = np.concatenate([np.full(13, 0.5), np.linspace(0.6, 1.0, 117)])
    found = matched_random_sets(range(8), rate, np.ones(130), sets=200)
    assert found.widened == 0
    for row in found.latents:
        assert set(row) > {8, 9, 10, 11, 12}
        assert len(set(row) & set(range(13, 26))) == 3
    # and each of the ring is as good as another: 600 drawn of 13
    counts = np.bincount(found.latents.ravel())[13:]
    assert len(counts) == 13
    assert counts.min() > 20


def test_oracle_a_set_is_compared_with_the_sums_of_the_drawn_ones() -> None:
    rate, size = pool(300, seed=5)
    value = np.random.default_rng(6).normal(size=300)
    sums = value[matched_random_sets([3, 4, 5], rate, size, sets=50, seed=1).latents].sum(axis=1)
    own = float(np.sort(sums)[20])
    found = among_matched_sets(own, value, [3, 4, 5], rate, size, sets=50, seed=1)
    # twenty of fifty are smaller; the one that is equal is not
    assert found.percentile == pytest.approx(40)
    assert (found.mean, found.sd) == pytest.approx((sums.mean(), sums.std()))


def test_calibration_the_percentile_of_a_set_drawn_by_chance_is_uniform() -> None:
    rate, size = pool(600, seed=3)
    value = np.random.default_rng(4).normal(size=600) + 3 * rate
    percentiles = []
    for seed in range(60):
        chosen = np.random.default_rng(seed).choice(600, 8, replace=False)
        own = float(value[chosen].sum())
        percentiles.append(among_matched_sets(own, value, chosen, rate, size, sets=200, seed=seed).percentile)
    assert 40 < np.mean(percentiles) < 60
    assert np.mean(np.array(percentiles) > 95) < 0.15


def test_a_set_of_the_best_is_above_all_random_ones_and_one_seed_gives_one_result() -> None:
    rate, size = pool()
    value = np.random.default_rng(1).normal(size=400)
    best = np.argsort(-value)[:10]
    found = among_matched_sets(float(value[best].sum()), value, best, rate, size, seed=2)
    assert (found.percentile, found.sets) == (100.0, 1000)
    assert found == among_matched_sets(float(value[best].sum()), value, best, rate, size, seed=2)
    assert found != among_matched_sets(float(value[best].sum()), value, best, rate, size, seed=3)


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="2 other latents fire, 3 are to be matched"):
        matched_random_sets([0, 1, 2], np.ones(5), np.ones(5))
    with pytest.raises(DataError, match="0 other latents fire, 0 are to be matched"):
        matched_random_sets([], [0.0] * 5, [1.0] * 5)
    with pytest.raises(DataError, match="a chosen latent never fires"):
        matched_random_sets([0], np.array([0.0, 1.0]), np.ones(2))
