"""Oracle, metamorphic, property and calibration tests of the redraws of labels."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.sparse import csr_array

from sarm_control.discovery.effects.effects import margin_effects
from sarm_control.discovery.pairs.margins import PairLatents, margin_contributions, pair_latents
from sarm_control.discovery.permutation.arrangements import Picks, distinct, log2_distinct
from sarm_control.discovery.permutation.label_tests import label_bound, label_max_t_test, label_test
from sarm_control.discovery.permutation.relabelling import relabelling
from sarm_control.statistics.multiplicity import benjamini_hochberg
from sarm_control.statistics.sign_flips import max_t_test, sign_flip_test


def grouped(sides: Sequence[tuple[int, int]], values: ArrayLike, head: ArrayLike) -> PairLatents:
    """Pairs from (chosen, rejected) counts of prompts and answers [N, L], each prompt's chosen ones first."""
    chosen = np.concatenate([[True] * good + [False] * bad for good, bad in sides])
    prompt = np.repeat(np.arange(len(sides)), [good + bad for good, bad in sides])
    sparse = csr_array(np.asarray(values, dtype=np.float64))
    return pair_latents(sparse[chosen], sparse[~chosen], prompt[chosen], prompt[~chosen], head)


def every_sum(sides: Sequence[tuple[int, int]], column: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of contributions under every choice of the chosen answers, the observed one first."""
    own, start = [], 0
    for good, bad in sides:
        z = column[start : start + good + bad]
        start += good + bad
        picks = itertools.combinations(range(good + bad), good)
        own.append([z[list(pick)].mean() - np.delete(z, pick).mean() for pick in picks])
    return np.array([sum(parts) for parts in itertools.product(*own)])


def enumerated(sides: Sequence[tuple[int, int]], column: NDArray[np.float64]) -> float:
    """The equal-tailed p over all of them, and max-T's |sum| / SD."""
    sums = every_sum(sides, column)
    tails = (sums >= sums[0] - 1e-9).mean(), (sums <= sums[0] + 1e-9).mean()
    return float(min(1.0, 2 * min(tails)))


SIDES = st.lists(
    st.sampled_from([(1, 3), (3, 1), (1, 1), (2, 1), (1, 4), (2, 3)]), min_size=1, max_size=4
).filter(lambda sides: any(a != b for a, b in sides))


@st.composite
def small_worlds(draw: st.DrawFn) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    sides = draw(SIDES)
    count = sum(a + b for a, b in sides)
    return sides, np.array(draw(st.lists(st.integers(-2, 3), min_size=count, max_size=count)), dtype=float)


def test_oracle_p_of_one_against_three_by_hand() -> None:
    # each of two prompts has one firing answer of four: both sums are largest when both are chosen, 1 of 16
    both = np.array([[1.0, 0, 0, 0, 1.0, 0, 0, 0]]).T
    sides = [(1, 3), (1, 3)]
    assert label_test(grouped(sides, both, [1.0]), [0])[0] == pytest.approx(2 / 16)
    # neither chosen: 9 of 16 redraws have that smallest sum, so twice the tail is above 1
    neither = np.array([[0, 1.0, 0, 0, 0, 0, 0, 1.0]]).T
    assert label_test(grouped(sides, neither, [1.0]), [0])[0] == 1
    # a weight below 0 turns the sum and leaves its p
    assert label_test(grouped(sides, both, [-3.0]), [0])[0] == pytest.approx(2 / 16)


def test_oracle_fifty_single_firings_none_of_them_chosen() -> None:
    """Of one chosen and seven rejected answers: the binomial tail (7/8)^50, of which |sum| knows little."""
    values = np.zeros((400, 1))
    values[1::8] = 1.0
    pairs = grouped([(1, 7)] * 50, values, [1.0])
    exact = 2 * stats.binom.cdf(0, 50, 1 / 8)
    assert exact == pytest.approx(0.0025, abs=1e-4)
    assert label_test(pairs, [0], draws=40_000)[0] == pytest.approx(exact, rel=0.4)
    farther = stats.binom.sf(math.ceil(2 * 50 / 8) - 1, 50, 1 / 8)
    assert exact / 2 + farther > 0.008  # what counting |sum| would give


@settings(max_examples=60, deadline=None)
@given(small_worlds())
def test_property_exact_p_equals_the_enumeration_of_all_labels(
    world: tuple[list[tuple[int, int]], NDArray[np.float64]],
) -> None:
    sides, column = world
    unequal = any(
        a != b and np.ptp(column[start : start + a + b]) > 0
        for (a, b), start in zip(sides, np.cumsum([0, *(a + b for a, b in sides)]), strict=False)
    )
    pairs = grouped(sides, column[:, None], [0.7])
    got = label_test(pairs, [0])[0]
    if unequal:
        assert got == pytest.approx(enumerated(sides, column), abs=1e-12)
    else:
        assert got == sign_flip_test(margin_contributions(pairs))[0]


@settings(max_examples=60, deadline=None)
@given(small_worlds())
def test_property_the_bound_is_never_below_the_exact_p(
    world: tuple[list[tuple[int, int]], NDArray[np.float64]],
) -> None:
    sides, column = world
    pairs = grouped(sides, column[:, None], [1.0])
    assert label_bound(relabelling(pairs, [0]))[0] >= enumerated(sides, column) - 1e-12


@settings(max_examples=60, deadline=None)
@given(small_worlds())
def test_property_variance_and_range_are_those_of_all_labels(
    world: tuple[list[tuple[int, int]], NDArray[np.float64]],
) -> None:
    sides, column = world
    form = relabelling(grouped(sides, column[:, None], [1.0]), [0])
    sums = every_sum(sides, column)
    spread = form.spread()
    assert spread.variance[0] == pytest.approx(sums.var(), abs=1e-9)
    assert form.observed()[0] == pytest.approx(sums[0], abs=1e-9)
    starts = np.cumsum([0, *(a + b for a, b in sides)])
    ranges = [
        np.ptp(every_sum([side], column[start:])) for side, start in zip(sides, starts[:-1], strict=True)
    ]
    assert spread.squared_ranges[0] == pytest.approx(np.square(ranges).sum(), abs=1e-9)


@pytest.mark.parametrize("side", [(1, 3), (7, 1), (2, 5), (8, 9)])
def test_oracle_picks_are_uniform_over_all_ways(side: tuple[int, ...]) -> None:
    """(8, 9) has 24,310 ways, more than a table holds: single answers and pairs are counted there."""
    few, answers = min(side), sum(side)
    picks = Picks(few, answers, 3, np.random.default_rng(0))
    out = np.empty((3 * answers, 40_000))
    picks.on(picks.draw(40_000), np.arange(3 * answers), out)
    assert (out.reshape(3, answers, -1).sum(axis=1) == few).all()
    np.testing.assert_allclose(out.mean(axis=1), few / answers, atol=0.012)
    pair = few * (few - 1) / (answers * (answers - 1))
    np.testing.assert_allclose((out[0] * out[1:answers]).mean(axis=1), pair, atol=0.012)
    np.testing.assert_allclose((out[0] * out[answers:]).mean(axis=1), (few / answers) ** 2, atol=0.012)


@pytest.mark.parametrize(("few", "answers"), [(1, 4), (2, 5), (3, 7)])
def test_oracle_ways_that_differ_with_their_chances(few: int, answers: int) -> None:
    for active in range(answers + 1):
        seen = [
            tuple(1 if j in pick else 0 for j in range(active))
            for pick in itertools.combinations(range(answers), few)
        ]
        ways = distinct(few, answers, active)
        assert {tuple(row) for row in ways.taken.astype(int).tolist()} == set(seen)
        for row, chance in zip(ways.taken.astype(int).tolist(), ways.chance, strict=True):
            assert chance == pytest.approx(seen.count(tuple(row)) / len(seen))
        assert log2_distinct(few, answers)[active] == pytest.approx(math.log2(len(set(seen))))


def null_world(
    sides: Sequence[tuple[int, int]],
    latents: int,
    seed: int,
    *,
    rate: tuple[float, float] = (0.02, 1.0),
    head: NDArray[np.float64] | None = None,
) -> PairLatents:
    """Answers that are exchangeable within their prompt; a prompt's answers share half of what fires."""
    generator = np.random.default_rng(seed)
    sizes = [a + b for a, b in sides]
    rates = np.exp(generator.uniform(np.log(rate[0]), np.log(rate[1]), latents))
    shared = np.repeat(generator.random((len(sides), latents)), sizes, axis=0)
    own = generator.random(shared.shape)
    fires = np.where(generator.random(shared.shape) < 0.5, shared, own) < rates
    values = np.where(fires, generator.exponential(1.0, shared.shape) + 0.1, 0.0)
    return grouped(sides, values, generator.normal(0, 0.01, latents) if head is None else head)


MIXED = [(1, 3), (1, 1), (3, 1), (2, 2), (1, 7), (2, 5)]


def test_equal_sides_have_the_numbers_of_the_sign_flips() -> None:
    pairs = null_world([(1, 1), (3, 3)] * 40, 30, 0)
    columns = margin_contributions(pairs)
    np.testing.assert_array_equal(label_test(pairs, np.arange(30)), sign_flip_test(columns))
    np.testing.assert_array_equal(label_max_t_test(pairs, np.arange(30)), max_t_test(columns))


def test_metamorphic_chosen_and_rejected_exchanged_turn_the_effect_and_leave_p() -> None:
    pairs, latents = null_world(MIXED * 12, 40, 1), np.arange(40)
    np.testing.assert_array_equal(label_test(pairs, latents), label_test(pairs.swap(), latents))
    np.testing.assert_array_equal(label_max_t_test(pairs, latents), label_max_t_test(pairs.swap(), latents))
    effects = [margin_contributions(one).sum(axis=0) for one in (pairs, pairs.swap())]
    np.testing.assert_allclose(effects[0], -effects[1])


def test_metamorphic_p_ignores_the_scale_silent_prompts_and_the_other_latents() -> None:
    pairs, latents = null_world(MIXED * 12, 20, 2), np.arange(20)
    p = label_test(pairs, latents, draws=3000)
    alone = np.concatenate([label_test(pairs, [latent], draws=3000) for latent in latents])
    np.testing.assert_array_equal(p, alone)
    scaled = pair_latents(
        pairs.chosen, pairs.rejected, pairs.chosen_prompt, pairs.rejected_prompt, -1e-6 * pairs.head
    )
    np.testing.assert_array_equal(p, label_test(scaled, latents, draws=3000))
    few = null_world([(1, 3)] * 5, 20, 3, rate=(0.3, 1.0))
    more = 90 + np.arange(4)
    silent = pair_latents(
        np.vstack([few.chosen.toarray(), np.zeros((4, 20))]),
        np.vstack([few.rejected.toarray(), np.zeros((4, 20))]),
        np.concatenate([few.chosen_prompt, more]),
        np.concatenate([few.rejected_prompt, more]),
        few.head,
    )
    np.testing.assert_allclose(label_test(few, latents), label_test(silent, latents))


def test_oracle_monte_carlo_agrees_with_enumeration() -> None:
    # 4^8 = 65,536 redraws differ: too many to enumerate there, not here
    pairs = null_world([(1, 3)] * 8, 3, 4, rate=(0.9, 1.0), head=np.ones(3))
    stacked = np.concatenate(
        [pairs.chosen.toarray()[:, None], pairs.rejected.toarray().reshape(8, 3, 3)], axis=1
    )
    expected = [enumerated([(1, 3)] * 8, column) for column in stacked.reshape(32, 3).T]
    np.testing.assert_allclose(label_test(pairs, range(3), draws=40_000), expected, rtol=0.35, atol=5e-4)


def test_a_latent_that_no_redraw_moves_has_p_1() -> None:
    values = np.ones((8, 2))
    values[:4, 1] = 0
    pairs = grouped([(1, 3), (1, 3)], values, [0.1, 0.3])
    np.testing.assert_array_equal(label_test(pairs, [0, 1]), 1)
    np.testing.assert_array_equal(label_max_t_test(pairs, [0, 1], draws=50), 1)
    assert len(label_test(pairs, [])) == len(label_max_t_test(pairs, [])) == 0


def test_oracle_max_t_equals_the_step_down_algorithm_written_out() -> None:
    sides = [(1, 3), (3, 1), (1, 2), (1, 1), (1, 3)]
    values = np.random.default_rng(3).normal(size=(17, 4))
    values[[0, 7, 8, 11, 13]] += [1.6, 0.0, 0.8, -0.4]
    sums = np.array([every_sum(sides, column) for column in values.T])
    sizes = np.abs(sums) / sums.std(axis=1, keepdims=True)
    order = np.argsort(-sizes[:, 0])
    expected, largest = np.zeros(4), 0.0
    for rank, latent in enumerate(order):
        reached = sizes[order[rank:]].max(axis=0) >= sizes[latent, 0] - 1e-9
        largest = max(largest, reached.mean())
        expected[latent] = largest
    got = label_max_t_test(grouped(sides, values, np.ones(4)), range(4), draws=20_000)
    np.testing.assert_allclose(got, expected, atol=0.012)


CASES = {
    "one against one": [(1, 1)],
    "one against three": [(1, 3)],
    "one against seven": [(1, 7)],
    "three against one": [(3, 1)],
    "mixed": MIXED,
}


@pytest.mark.long
@pytest.mark.parametrize("rate", [(0.03, 0.08), (0.6, 1.0)], ids=["rare", "dense"])
@pytest.mark.parametrize("sides", CASES.values(), ids=CASES)
def test_calibration_a_null_latent_is_selected_in_one_of_twenty_data_sets(
    sides: list[tuple[int, int]], rate: tuple[float, float]
) -> None:
    """200 data sets: a true rate of .05 gives more than 21 such data sets with chance < .0005."""
    runs, most = 200, int(stats.binom.isf(0.0005, 200, 0.05))
    any_selected, any_by_max_t, small = 0, 0, 0
    for seed in range(runs):
        pairs = null_world((sides * 50)[:50], 20, seed, rate=rate)
        p = label_test(pairs, range(20), draws=1500, seed=seed)
        any_selected += bool((benjamini_hochberg(p) <= 0.05).any())
        any_by_max_t += bool((label_max_t_test(pairs, range(20), draws=199, seed=seed) <= 0.05).any())
        small += p[0] <= 0.05
    assert any_selected <= most
    assert any_by_max_t <= most
    assert small <= most


def test_calibration_p_is_uniform_at_one_against_seven() -> None:
    p = np.concatenate(
        [
            label_test(null_world([(1, 7)] * 80, 50, seed, rate=(0.1, 0.9)), range(50), draws=2000, seed=seed)
            for seed in range(20)
        ]
    )
    for level in (0.01, 0.05, 0.2, 0.5):
        expected = 3.5 * math.sqrt(level * (1 - level) / len(p))
        assert level - expected - 0.2 * level <= (p <= level).mean() <= level + expected


@pytest.mark.long
def test_margin_effects_of_exchangeable_answers_calls_nothing_more_often_than_meant() -> None:
    """One chosen against seven: by flipping signs some latent was called in nearly every such data set."""
    sides, flipped, called = [(1, 7)] * 80, 0, 0
    for seed in range(40):
        pairs = null_world(sides, 60, seed, rate=(0.02, 0.5))
        columns = margin_contributions(pairs)
        flipped += bool((benjamini_hochberg(sign_flip_test(columns, seed=seed)) <= 0.05).any())
        table = margin_effects(
            pairs.chosen, pairs.rejected, pairs.chosen_prompt, pairs.rejected_prompt, pairs.head, seed=seed
        )
        called += bool((table["q"] <= 0.05).any())
    assert flipped >= 20
    assert called <= stats.binom.isf(0.0005, 40, 0.05)


def test_a_planted_latent_is_found_at_one_against_seven() -> None:
    generator = np.random.default_rng(0)
    values = np.where(generator.random((1600, 30)) < 0.1, generator.exponential(1.0, (1600, 30)) + 0.1, 0.0)
    values[::8, 4] = np.where(generator.random(200) < 0.35, 1.0, 0.0)  # fires on chosen
    values[::8, 9] = 0.0  # fires on rejected alone, in a tenth of them
    p = label_test(grouped([(1, 7)] * 200, values, np.ones(30)), range(30))
    assert p[4] < 1e-3
    assert p[9] < 1e-3
    assert np.delete(p, [4, 9]).min() > 1e-3
