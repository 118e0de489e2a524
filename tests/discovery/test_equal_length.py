"""Effects at equal length: an oracle regression, planted length effects, and what lengths must not change."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse, stats

from sarm_control.discovery.effects.effects import margin_effects
from sarm_control.discovery.effects.equal_length import equal_length_effects, length_difference
from sarm_control.discovery.pairs.margins import pair_latents
from sarm_control.errors import DataError
from tests.discovery.worlds import Planted, make_world
from tests.present import present


def written_out(effect: float, parts: NDArray[np.float64], freedom: float) -> tuple[float, float]:
    """The ends of an interval from what each prompt adds to the error of an effect."""
    error = np.sqrt((parts**2).sum())
    skewness = (parts**3).sum() / error**3
    t, z = stats.t.ppf(0.975, freedom), stats.norm.ppf(0.975)
    half = t + z * (z**4 + 2 * z**2 - 3) / 36 * skewness**2
    tail = skewness * (1 / 6 + t**2 / 3)
    return effect - (half - min(tail, 0)) * error, effect + (half + max(tail, 0)) * error


def test_oracle_intercepts_and_hc3_intervals_equal_a_regression_written_out() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(0.4, 1.0, 50)
    columns = np.where(generator.random((50, 3)) < 0.6, generator.normal(size=(50, 3)) + 0.5 * x[:, None], 0)
    found = equal_length_effects(sparse.csc_array(columns), x)
    design = np.column_stack([np.ones(50), x])
    inverse = np.linalg.inv(design.T @ design)
    hat = np.einsum("pi,ij,pj->p", design, inverse, design)
    for j, column in enumerate(columns.T):
        coefficients = inverse @ design.T @ column
        parts = (inverse @ design.T)[0] * (column - design @ coefficients) / (1 - hat)
        assert found.effect[j] == pytest.approx(coefficients[0])
        assert (found.low[j], found.high[j]) == pytest.approx(written_out(coefficients[0], parts, 48))


@pytest.mark.parametrize(("firing", "given"), [(7, False), (8, True)])
def test_fewer_than_eight_prompts_apart_have_an_effect_and_no_interval(firing: int, given: bool) -> None:
    x = np.random.default_rng(5).normal(0.3, 0.5, 60)
    column = np.where(np.arange(60) < firing, np.random.default_rng(6).exponential(size=60), 0)[:, None]
    found = equal_length_effects(sparse.csc_array(column), x)
    assert np.isfinite([found.low[0], found.high[0]]).tolist() == [given, given]
    written = present(found.as_json())
    assert written["mean"] == pytest.approx(found.effect[0])
    assert (written["low"] is not None) == given


def test_calibration_a_sparse_effect_at_equal_length_is_covered_where_an_interval_is_given() -> None:
    """With Student's t alone .77 and .89 of the runs held the effect."""
    rng = np.random.default_rng(7)
    for prompts in (50, 200):
        x = rng.normal(0.3, 0.5, prompts)
        columns = (rng.random((prompts, 2000)) < 0.1) * rng.exponential(size=(prompts, 2000))
        found = equal_length_effects(sparse.csc_array(columns), x)
        given = ~np.isnan(found.low)
        assert given.any()
        assert ((found.low <= 0.1) & (found.high >= 0.1))[given].mean() >= 0.93


def test_oracle_length_difference_by_hand() -> None:
    pairs = pair_latents(
        np.ones((3, 1)),
        np.ones((2, 1)),
        [7, 7, 9],
        [7, 9],
        [1.0],
        chosen_length=[0, 3, 7],
        rejected_length=[1, 7],
    )
    expected = np.array([(np.log(1) + np.log(4)) / 2 - np.log(2), 0.0])
    np.testing.assert_allclose(present(length_difference(pairs)), expected)
    np.testing.assert_allclose(present(length_difference(pairs.swap())), -expected)
    np.testing.assert_allclose(present(length_difference(pairs.take_prompts([1]))), 0.0)


def test_a_latent_that_follows_length_alone_has_no_effect_at_equal_length_and_another_keeps_its_own() -> None:
    generator = np.random.default_rng(1)
    prompts = 400
    lengths = [np.exp(generator.normal(4.0 + shift, 0.6, prompts)) for shift in (0.5, 0.0)]
    world = make_world(prompts=prompts, answers=1, planted={3: Planted(0.02, 0.6, 0.2)})
    sides = []
    for matrix, length in zip((world.chosen, world.rejected), lengths, strict=True):
        dense = matrix.toarray()
        dense[:, 7] = np.log(length)
        sides.append(dense)
    head = world.head.copy()
    head[7] = 0.02
    table = margin_effects(
        sides[0], sides[1], world.chosen_prompt, world.rejected_prompt, head,
        chosen_length=lengths[0], rejected_length=lengths[1],
    )  # fmt: skip
    rows = {row["latent"]: row for row in table.rows()}
    verbose, other = rows[7], rows[3]
    assert verbose["q"] < 0.01
    assert verbose["low"] > 0
    assert abs(verbose["effect_equal_length"]) < 0.05 * verbose["effect"]
    assert other["equal_length_low"] > 0
    assert other["effect_equal_length"] == pytest.approx(other["effect"], rel=0.25)


def test_metamorphic_the_unit_of_length_and_the_margins_unit_pass_through() -> None:
    generator = np.random.default_rng(2)
    columns, x = sparse.csc_array(generator.normal(size=(30, 2))), generator.normal(0.3, 1.0, 30)
    plain = equal_length_effects(columns, x)
    for changed in (equal_length_effects(columns, 5 * x), equal_length_effects(columns * 3, x)):
        factor = changed.effect[0] / plain.effect[0]
        assert factor == pytest.approx(1) or factor == pytest.approx(3)
        for ours, theirs in zip(changed, plain, strict=True):
            np.testing.assert_allclose(ours, factor * theirs)


def test_equal_lengths_everywhere_leave_the_plain_mean_and_one_constant_difference_leaves_nothing() -> None:
    columns = sparse.csc_array(np.random.default_rng(3).normal(0.5, 1.0, (30, 2)))
    same = equal_length_effects(columns, np.zeros(30))
    np.testing.assert_allclose(same.effect, columns.toarray().mean(axis=0))
    assert (same.low < same.effect).all()
    assert np.isnan(equal_length_effects(columns, np.full(30, 0.7)).effect).all()
    assert equal_length_effects(columns, np.full(30, 0.7)).as_json() is None
    assert np.isnan(equal_length_effects(columns[:3], np.zeros(3)).low).all()


def test_without_lengths_the_columns_are_empty_and_half_of_them_is_refused() -> None:
    world = make_world(prompts=30)
    assert np.isnan(margin_effects(*world)["effect_equal_length"]).all()
    with pytest.raises(DataError, match="rejected_length is missing"):
        margin_effects(*world, chosen_length=np.ones(90))
    with pytest.raises(DataError, match="chosen_length wants one number >= 0 for each of the 90"):
        margin_effects(*world, chosen_length=np.ones(3), rejected_length=np.ones(90))


@pytest.mark.parametrize(("prompts", "size"), [(4, 0.1), (7, 3.3), (8, 0.7), (23, 1.0)])
def test_one_prompt_of_another_length_leaves_the_others_their_mean_and_interval(
    prompts: int, size: float
) -> None:
    """It is fitted exactly and says nothing of equal length; the others have none but equal length."""
    columns = np.random.default_rng(4).normal(0.5, 1.0, (prompts, 2))
    x = np.zeros(prompts)
    x[prompts // 2] = size
    others = np.delete(columns, prompts // 2, axis=0)
    found = equal_length_effects(sparse.csc_array(columns), x)
    np.testing.assert_allclose(found.effect, others.mean(axis=0))
    # HC3 of a mean: residuals over 1 - 1/n, which add 1/n each
    parts = (others - others.mean(axis=0)) / (prompts - 1) / (1 - 1 / (prompts - 1))
    for j in range(2):
        ends = written_out(found.effect[j], parts[:, j], prompts - 2)
        expected = ends if prompts >= 8 else (np.nan, np.nan)
        assert (found.low[j], found.high[j]) == pytest.approx(expected, nan_ok=True)
    # where the others are not of equal length either, that prompt alone would say what is
    assert np.isnan(equal_length_effects(sparse.csc_array(columns), x + 0.5).low).all()
