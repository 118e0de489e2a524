"""The ledger: oracle by hand, property (hypothesis), metamorphic."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from sarm_control.control.ledger import latent_ledger, prompt_means
from sarm_control.reward_model.sparse import SparseLatents

SIZE = 6
Case = tuple[list[tuple[SparseLatents, NDArray[np.int64]]], NDArray[np.float32]]  # both policies, the head


def sparse(rows: ArrayLike, size: int = SIZE) -> SparseLatents:
    dense = np.asarray(rows, dtype=np.float32).reshape(-1, size)
    return SparseLatents.from_rows([(np.flatnonzero(row), row[np.flatnonzero(row)]) for row in dense], size)


@st.composite
def comparisons(draw: st.DrawFn) -> Case:
    """Both policies' latents, the head, and the prompts of their answers."""
    prompts = draw(st.integers(1, 4))
    value = st.one_of(st.just(0.0), st.floats(-8, 8, width=32).filter(lambda v: abs(v) > 1e-3))
    sides = []
    for _ in range(2):
        extra = draw(st.lists(st.integers(0, prompts - 1), max_size=3))
        owner = np.array([*range(prompts), *extra])
        rows = draw(
            st.lists(st.lists(value, min_size=SIZE, max_size=SIZE), min_size=len(owner), max_size=len(owner))
        )
        sides.append((sparse(rows), owner))
    head = np.array(draw(st.lists(st.floats(-2, 2, width=32), min_size=SIZE, max_size=SIZE)), np.float32)
    return sides, head


def test_oracle_by_hand() -> None:
    base = sparse([[1, 0, 0, 0, 0, 2], [3, 0, 0, 0, 0, 0]])
    trained = sparse([[4, 0, -1, 0, 0, 0], [6, 0, 0, 0, 0, 0]])
    head = np.array([0.5, 9.0, -2.0, 9.0, 9.0, 1.0])
    ledger = latent_ledger(base, trained, head, np.array([0, 1]), np.array([0, 1]))
    # z0: 2 -> 5 at weight 0.5; z2: 0 -> -0.5 at weight -2; z5: 1 -> 0 at weight 1.
    assert ledger.latents.tolist() == [0, 2, 5]
    np.testing.assert_allclose(ledger.delta, [1.5, 1.0, -1.0])
    np.testing.assert_allclose(ledger.base_rate, [1.0, 0.0, 0.5])
    np.testing.assert_allclose(ledger.trained_rate, [1.0, 0.0, 0.0])  # -1 is stored, but does not fire
    np.testing.assert_allclose(ledger.entry(1), [2.0, 0.0])
    assert ledger.total == pytest.approx(1.5)


@settings(deadline=None, max_examples=40)
@given(comparisons())
def test_property_entries_sum_to_the_change_of_the_mean_reward(case: Case) -> None:
    ((base, base_owner), (trained, trained_owner)), head = case
    ledger = latent_ledger(base, trained, head, base_owner, trained_owner)
    change = (
        prompt_means(trained.dot(head), trained_owner).mean()
        - prompt_means(base.dot(head), base_owner).mean()
    )
    scale = 1.0 + float(max(np.abs(base.dot(head)).max(), np.abs(trained.dot(head)).max()))
    assert ledger.total == pytest.approx(change, abs=1e-6 * scale)
    for position in range(len(ledger.latents)):
        assert ledger.entry(position).mean() == pytest.approx(ledger.delta[position], abs=1e-9)


@pytest.mark.long
@settings(deadline=None, max_examples=40)
@given(comparisons(), st.randoms(use_true_random=False))
def test_metamorphic_permuting_the_answers_changes_nothing(case: Case, shuffler: random.Random) -> None:
    ((base, base_owner), (trained, trained_owner)), head = case
    order = list(range(len(base)))
    shuffler.shuffle(order)
    first = latent_ledger(base, trained, head, base_owner, trained_owner)
    second = latent_ledger(base.take(order), trained, head, base_owner[order], trained_owner)
    by_latent = dict(zip(second.latents.tolist(), second.delta.tolist(), strict=True))
    assert sorted(first.latents.tolist()) == sorted(by_latent)
    expected = [by_latent[latent] for latent in first.latents.tolist()]
    np.testing.assert_allclose(first.delta, expected, atol=1e-9)


@pytest.mark.long
@settings(deadline=None, max_examples=40)
@given(comparisons())
def test_metamorphic_swapping_the_policies_negates_every_entry(case: Case) -> None:
    ((base, base_owner), (trained, trained_owner)), head = case
    forward = latent_ledger(base, trained, head, base_owner, trained_owner)
    backward = latent_ledger(trained, base, head, trained_owner, base_owner)
    assert backward.latents.tolist() == forward.latents.tolist()
    np.testing.assert_allclose(backward.delta, -forward.delta, atol=1e-12)


def test_a_stored_0_is_no_entry_and_does_not_fire() -> None:
    """Latent 1 is stored as 0 in both, 2 in one of them; 3 is 1 throughout and moves nothing."""
    indices, values = np.array([1, 2, 3], np.int32), np.array([0.0, 0.0, 1.0], np.float32)
    base = SparseLatents.from_rows([(indices, values)], SIZE)
    trained = SparseLatents.from_rows([(indices, values + np.array([0, -1, 0], np.float32))], SIZE)
    ledger = latent_ledger(base, trained, np.full(SIZE, 2.0), np.array([0]), np.array([0]))
    assert ledger.latents.tolist() == [2, 3]
    assert ledger.delta.tolist() == [-2.0, 0.0]
    assert (ledger.base_rate.tolist(), ledger.trained_rate.tolist()) == ([0.0, 1.0], [0.0, 1.0])


@pytest.mark.parametrize("prompts", [[0, 0, 0], [0, 1], [0, 1, 1, 1]])
def test_prompts_that_do_not_fit_the_answers_are_refused(prompts: list[int]) -> None:
    """The second prompt has no answer; one of three answers has no prompt; a fourth one is not there."""
    batch, fitting = sparse(np.eye(3, SIZE)), np.array([0, 1, 1])
    for sides in ((fitting, np.array(prompts)), (np.array(prompts), fitting)):
        with pytest.raises(ValueError, match="every prompt needs at least one answer"):
            latent_ledger(batch, batch, np.ones(SIZE), *sides)


@pytest.mark.parametrize(("base", "trained", "head"), [(6, 5, 6), (5, 6, 5), (6, 6, 5), (6, 6, 7)])
def test_latents_of_different_autoencoders_are_refused(base: int, trained: int, head: int) -> None:
    one = np.array([0])
    with pytest.raises(ValueError, match=f"latents of sizes {base} and {trained} with a head of {head}"):
        latent_ledger(sparse(np.ones(base), base), sparse(np.ones(trained), trained), np.ones(head), one, one)
