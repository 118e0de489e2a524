"""Oracle and property tests of the exact margin contributions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from sarm_control.discovery.pairs.margins import (
    PairLatents,
    active_prompts,
    auroc,
    firing_rates,
    latent_values,
    margin_contributions,
    pair_accuracy,
    pair_latents,
    rewards,
)
from sarm_control.errors import DataError
from sarm_control.reward_model.sparse import from_scipy
from tests.discovery.worlds import make_world

HEAD = np.array([0.5, -2.0, 1.0])
CHOSEN = np.array([[2.0, 0, 0], [0, 1.0, 0], [4.0, 0, 0]])
REJECTED = np.array([[0, 3.0, 0], [1.0, 0, 0]])


def small() -> PairLatents:
    """Prompt 7 has two chosen answers and one rejected, prompt 9 one of each."""
    return pair_latents(CHOSEN, REJECTED, [7, 7, 9], [7, 9], HEAD)


def test_oracle_contributions_computed_by_hand() -> None:
    expected = np.array(
        [
            [0.5 * (1.0 - 0.0), -2.0 * (0.5 - 3.0), 0.0],
            [0.5 * (4.0 - 1.0), 0.0, 0.0],
        ]
    )
    np.testing.assert_allclose(margin_contributions(small()).toarray(), expected)


def test_oracle_rates_activity_accuracy_and_rewards_by_hand() -> None:
    pairs = small()
    rates = firing_rates(pairs)
    np.testing.assert_allclose(rates.chosen, [(0.5 + 1) / 2, 0.25, 0])
    np.testing.assert_allclose(rates.rejected, [0.5, 0.5, 0])
    np.testing.assert_array_equal(active_prompts(pairs), [2, 1, 0])
    # rewards: chosen 1, -2 | 2; rejected -6 | 0.5
    np.testing.assert_allclose(rewards(pairs).chosen, [1, -2, 2])
    np.testing.assert_allclose(pair_accuracy(pairs), [1, 1])
    np.testing.assert_allclose(pair_accuracy(pairs.swap()), [0, 0])


def test_a_tie_is_not_an_accurate_pair() -> None:
    tied = pair_latents([[1.0]], [[1.0]], [0], [0], [1.0])
    np.testing.assert_array_equal(pair_accuracy(tied), [0.0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_property_contributions_sum_to_the_margin(seed: int) -> None:
    world = make_world(seed=seed, prompts=12, answers=2, latents=30)
    pairs = pair_latents(*world)
    paid = rewards(pairs)
    good = np.bincount(pairs.chosen_prompt, weights=paid.chosen) / np.bincount(pairs.chosen_prompt)
    bad = np.bincount(pairs.rejected_prompt, weights=paid.rejected) / np.bincount(pairs.rejected_prompt)
    np.testing.assert_allclose(margin_contributions(pairs).sum(axis=1), good - bad, atol=1e-6)


def test_property_order_of_answers_and_input_form_change_nothing() -> None:
    world = make_world(prompts=15)
    expected = margin_contributions(pair_latents(*world)).toarray()
    order = np.random.default_rng(0).permutation(len(world.chosen_prompt))
    shuffled = world._replace(chosen=world.chosen[order], chosen_prompt=world.chosen_prompt[order])
    np.testing.assert_allclose(margin_contributions(pair_latents(*shuffled)).toarray(), expected, atol=1e-12)
    dense = pair_latents(world.chosen.toarray(), world.rejected.tocoo(), *world[2:])
    np.testing.assert_allclose(margin_contributions(dense).toarray(), expected)
    batch = pair_latents(from_scipy(world.chosen), from_scipy(world.rejected), *world[2:])
    np.testing.assert_allclose(margin_contributions(batch).toarray(), expected, atol=1e-7)


def test_take_prompts_is_the_same_prompts_in_the_order_given() -> None:
    pairs = pair_latents(*make_world(prompts=10))
    part = pairs.take_prompts([7, 2])
    np.testing.assert_allclose(
        margin_contributions(part).toarray(), margin_contributions(pairs).toarray()[[7, 2]]
    )
    assert part.prompts == 2


def test_oracle_auroc_equals_mann_whitney() -> None:
    pairs = pair_latents(*make_world(prompts=20, latents=12))
    expected = []
    for latent in range(12):
        values = latent_values(pairs, latent)
        statistic = stats.mannwhitneyu(values.chosen, values.rejected).statistic
        expected.append(statistic / (len(values.chosen) * len(values.rejected)))
    np.testing.assert_allclose(auroc(pairs, np.arange(12)), expected)


def test_a_stored_zero_counts_as_active_and_pays_nothing() -> None:
    """It survived TopK. scipy has no such notion: there an entry that is 0 is none."""
    entries = (np.array([0.0, 2.0]), np.array([0, 1]), np.array([0, 2]))
    stored = sparse.csr_array(entries, shape=(1, 2))
    for chosen, active in ((from_scipy(stored), [1, 1]), (stored, [0, 1])):
        pairs = pair_latents(chosen, np.zeros((1, 2)), [0], [0], [1.0, 1.0])
        np.testing.assert_array_equal(active_prompts(pairs), active)
        np.testing.assert_array_equal(margin_contributions(pairs).toarray(), [[0, 2]])
    assert stored.nnz == 2


def test_metamorphic_a_scipy_matrix_in_pieces_is_its_sum() -> None:
    """Entries given twice add up, as scipy reads them, and the caller's matrix stays as it was."""
    world = make_world(prompts=15, latents=12)
    whole, one = pair_latents(*world), world.chosen
    halves = (np.repeat(one.data / 2, 2), np.repeat(one.indices, 2), 2 * one.indptr)
    pieces = sparse.csr_array(halves, shape=one.shape)
    pairs = pair_latents(pieces, *world[1:])
    np.testing.assert_allclose(firing_rates(pairs).chosen, firing_rates(whole).chosen)
    np.testing.assert_allclose(auroc(pairs, np.arange(12)), auroc(whole, np.arange(12)))
    assert pieces.nnz == 2 * world.chosen.nnz


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="chosen latents have 3 columns, the head 2 weights"):
        pair_latents(CHOSEN, REJECTED, [7, 7, 9], [7, 9], [1.0, 2.0])
    with pytest.raises(DataError, match=r"rejected_prompt has shape \(3,\)"):
        pair_latents(CHOSEN, REJECTED, [7, 7, 9], [7, 9, 9], HEAD)
    with pytest.raises(DataError, match="prompt 9 has no rejected answer"):
        pair_latents(CHOSEN, REJECTED, [7, 7, 9], [7, 7], HEAD)
    with pytest.raises(DataError, match="prompt 8 has no chosen answer"):
        pair_latents(CHOSEN, REJECTED, [7, 7, 7], [7, 8], HEAD)
    with pytest.raises(DataError, match="rejected latents hold a NaN"):
        pair_latents(CHOSEN, REJECTED * np.nan, [7, 7, 9], [7, 9], HEAD)
    with pytest.raises(DataError, match="head holds a NaN"):
        pair_latents(CHOSEN, REJECTED, [7, 7, 9], [7, 9], HEAD * np.inf)
    mixed: list[tuple[Any, Any]] = [([7, 7, 9], ["7", "9"]), ([None, None, "a"], [None, "a"])]
    for labels, others in mixed:
        with pytest.raises(DataError, match="labels of the prompts cannot be sorted") as raised:
            pair_latents(CHOSEN, REJECTED, labels, others, HEAD)
        assert "numbers or with texts" in str(raised.value.hint)
    with pytest.raises(DataError, match=r"chosen latents have shape \(3,\)"):
        pair_latents(CHOSEN[0], REJECTED, [7], [7, 9], HEAD)
