"""The preference head: oracle against the written-out loss, metamorphic and property checks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array

from sarm_control.build.head.comparisons import Comparisons, PreferenceRow, all_comparisons, score_prompts
from sarm_control.build.head.head import (
    assign_folds,
    choose_l2,
    choose_l2_on,
    fit_head,
    preference_loss,
    root_mean_square_norm,
)
from sarm_control.errors import TrainingError


def planted(
    prompts: int = 60, features: int = 6, seed: int = 0
) -> tuple[NDArray[np.float64], list[PreferenceRow], NDArray[np.float64]]:
    """Rows whose chosen answers score higher under a known weight, most of the time."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=features)
    x: list[NDArray[np.float64]] = []
    rows = []
    for prompt in range(prompts):
        answers = rng.normal(size=(4, features))
        order = np.argsort(answers @ truth + rng.logistic(size=4))
        start = len(x)
        x.extend(answers)
        rows.append(PreferenceRow(prompt, tuple(start + order[2:]), tuple(start + order[:2])))
    return np.array(x), rows, truth


def test_oracle_the_minimum_is_the_one_of_the_written_out_loss() -> None:
    x, rows, _ = planted(prompts=25, features=3)
    l2 = 0.05
    squares = [
        np.mean([np.sum((x[c] - x[r]) ** 2) for c in row.chosen for r in row.rejected]) for row in rows
    ]
    scale = np.sqrt(np.mean(squares))

    def loss(weight: NDArray[np.float64]) -> float:
        total = 0.0
        for row in rows:
            pairs = [(c, r) for c in row.chosen for r in row.rejected]
            total += float(np.mean([np.log1p(np.exp(-(x[c] - x[r]) @ weight)) for c, r in pairs])) / len(rows)
        return total + 0.5 * l2 * float(np.sum((scale * weight) ** 2))

    expected = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(fit_head(x, all_comparisons(rows), l2), expected, atol=1e-5)


def test_oracle_the_planted_direction_is_found() -> None:
    x, rows, truth = planted(prompts=600)
    comparisons = all_comparisons(rows)
    weight = fit_head(x, comparisons, 1e-4)
    assert np.corrcoef(weight, truth)[0, 1] > 0.98
    assert preference_loss(x, comparisons, weight) < preference_loss(x, comparisons, np.zeros(6))
    assert preference_loss(x, comparisons, np.zeros(6)) == pytest.approx(np.log(2))


def test_metamorphic_sparse_and_dense_features_give_the_same_weights() -> None:
    x, rows, _ = planted()
    x[np.abs(x) < 0.5] = 0
    comparisons = all_comparisons(rows)
    np.testing.assert_allclose(
        fit_head(x, comparisons, 0.01), fit_head(csr_array(x), comparisons, 0.01), atol=1e-6
    )


@given(st.floats(1e-3, 1e3))
@settings(max_examples=15, deadline=None)
def test_property_scaling_the_features_scales_the_weights_back(scale: float) -> None:
    x, rows, _ = planted(prompts=20, features=3)
    comparisons = all_comparisons(rows)
    np.testing.assert_allclose(
        fit_head(x * scale, comparisons, 0.01) * scale, fit_head(x, comparisons, 0.01), rtol=1e-3, atol=1e-5
    )


def test_metamorphic_moving_the_origin_changes_nothing() -> None:
    x, rows, _ = planted(prompts=20)
    comparisons = all_comparisons(rows)
    np.testing.assert_allclose(
        fit_head(x + 50.0, comparisons, 0.01), fit_head(x, comparisons, 0.01), rtol=1e-4, atol=1e-6
    )


def test_metamorphic_repeating_a_prompts_comparisons_changes_nothing() -> None:
    x, rows, _ = planted(prompts=20)
    once, again = all_comparisons(rows), all_comparisons([*rows, rows[3], rows[3]])
    np.testing.assert_allclose(fit_head(x, once, 0.01), fit_head(x, again, 0.01), atol=1e-6)


def test_metamorphic_swapping_chosen_and_rejected_flips_the_sign() -> None:
    x, rows, _ = planted(prompts=20)
    c = all_comparisons(rows)
    np.testing.assert_allclose(
        fit_head(x, Comparisons(c.rejected, c.chosen, c.prompt), 0.01), -fit_head(x, c, 0.01), atol=1e-6
    )


def test_oracle_shares_sum_to_one_and_are_equal_by_prompt() -> None:
    comparisons = all_comparisons([PreferenceRow(7, (0, 1, 2), (3, 4, 5)), PreferenceRow(9, (6,), (7,))])
    shares = comparisons.prompt_shares()
    assert len(comparisons) == 10
    assert shares[:9].sum() == pytest.approx(0.5)
    assert shares[9] == pytest.approx(0.5)


def test_property_folds_keep_prompts_whole_and_are_seeded() -> None:
    _, rows, _ = planted(prompts=23)
    comparisons = all_comparisons(rows)
    folds = assign_folds(comparisons, 5, seed=3)
    assert {len(set(folds[comparisons.prompt == p])) for p in range(23)} == {1}
    assert np.bincount(folds[:: len(folds) // 23]).min() >= 4
    np.testing.assert_array_equal(folds, assign_folds(comparisons, 5, seed=3))
    assert (folds != assign_folds(comparisons, 5, seed=4)).any()


def test_oracle_noise_is_regularised_more_than_signal() -> None:
    x, rows, _ = planted(prompts=80, features=5)
    noise = np.random.default_rng(1).normal(size=x.shape)
    signal, nothing = choose_l2(x, all_comparisons(rows)), choose_l2(noise, all_comparisons(rows))
    assert signal.l2 < nothing.l2
    assert min(signal.losses) < 0.6 < min(nothing.losses)
    assert signal == choose_l2(x, all_comparisons(rows))


def test_oracle_scores_by_prompt_pool_rows_of_one_prompt() -> None:
    rows = [PreferenceRow(0, (0,), (1, 2)), PreferenceRow(0, (2,), (1,)), PreferenceRow(1, (3,), (4,))]
    found = score_prompts(np.array([3.0, 1.0, 2.0, 0.0, 0.0]), rows)
    np.testing.assert_allclose(found.pairs, [1.0, 0.0])
    np.testing.assert_allclose(found.best_of, [1.0, 0.5])
    assert found.chance == pytest.approx(((1 / 3 + 1 / 2) / 2 + 1 / 2) / 2)


def test_bad_input_is_named() -> None:
    x, rows, _ = planted(prompts=1)
    with pytest.raises(TrainingError, match="no comparison to fit"):
        fit_head(x, all_comparisons([]), 0.1)
    with pytest.raises(TrainingError, match="1 prompt with a comparison: at least 2"):
        choose_l2(x, all_comparisons(rows))
    assert root_mean_square_norm(np.zeros((3, 2)), np.full(3, 1 / 3)) == 1.0


def test_oracle_a_validation_set_chooses_the_strength_that_does_best_on_it() -> None:
    x, rows, _ = planted(prompts=80, seed=1)
    others, validated, _ = planted(prompts=80, seed=1)
    others = -others  # the opposite preference: the less is learnt, the better
    comparisons, judged = all_comparisons(rows), all_comparisons(validated)
    grid = (1e-4, 1e-2, 1.0, 100.0)
    chosen = choose_l2_on(x, comparisons, others, judged, grid=grid)
    losses = {l2: preference_loss(others, judged, fit_head(x, comparisons, l2)) for l2 in grid}
    assert chosen.l2 == min(losses, key=losses.__getitem__) == 100.0
    assert choose_l2(x, comparisons, grid=grid).l2 < 1.0
    assert chosen.losses[0] == pytest.approx(losses[100.0], abs=1e-6)
