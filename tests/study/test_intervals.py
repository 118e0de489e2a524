"""Oracle and property tests of intervals over seeds and prompts, and over worlds."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sarm_control.study import crossed_interval, over_worlds
from tests.present import present


def crossed(
    rng: np.random.Generator, seeds: int, prompts: int, of_seeds: float, of_prompts: float, rest: float
) -> NDArray[np.float64]:
    return (
        rng.normal(0, of_seeds, (seeds, 1))
        + rng.normal(0, of_prompts, (1, prompts))
        + rng.normal(0, rest, (seeds, prompts))
    )


def test_with_equal_prompts_it_is_students_interval_over_seeds() -> None:
    by_seed = np.array([0.3, 0.9, -0.1, 0.4])
    found = crossed_interval(np.repeat(by_seed[:, None], 50, axis=1))
    wanted = stats.t.interval(0.95, 3, loc=by_seed.mean(), scale=stats.sem(by_seed))
    assert (found.low, found.high) == pytest.approx(wanted)
    assert (found.seeds, found.prompts) == (4, 50)
    assert found.mean == pytest.approx(by_seed.mean())


def test_with_equal_seeds_it_is_students_interval_over_prompts() -> None:
    by_prompt = np.random.default_rng(0).normal(1, 1, 40)
    found = crossed_interval(np.repeat(by_prompt[None, :], 3, axis=0))
    wanted = stats.t.interval(0.95, 39, loc=by_prompt.mean(), scale=stats.sem(by_prompt))
    assert (found.low, found.high) == pytest.approx(wanted)
    assert found.above_zero
    assert not found.below_zero


@pytest.mark.parametrize("parts", [(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.3, 1.0, 1.0), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_it_covers_the_truth_whichever_part_varies(parts: tuple[float, ...], seeds: int) -> None:
    """The remainder is counted twice, so that coverage may be above 95 % and must not be below."""
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(1500):
        found = crossed_interval(crossed(rng, seeds, 32, *parts))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0 <= found.high
    # three standard errors of a share of .95 in 1,500
    assert inside / 1500 > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 1500)


def test_pooled_prompts_would_be_far_too_sure() -> None:
    """What the interval is for: seeds that differ, and many prompts."""
    values = crossed(np.random.default_rng(1), 3, 200, 1.0, 0.1, 0.1)
    found = crossed_interval(values)
    naive = stats.t.interval(0.95, values.size - 1, loc=values.mean(), scale=stats.sem(values, axis=None))
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low > 10 * (naive[1] - naive[0])


def test_order_and_shift_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    values = crossed(rng, 4, 10, 0.5, 1.0, 1.0)
    found, mixed = (
        crossed_interval(values),
        crossed_interval(values[rng.permutation(4)][:, rng.permutation(10)]),
    )
    assert mixed == pytest.approx(found)
    moved = crossed_interval(values + 3)
    assert (moved.low, moved.high) == pytest.approx((present(found.low) + 3, present(found.high) + 3))


def test_nothing_is_claimed_of_one_seed_or_of_equal_values() -> None:
    assert crossed_interval([[1.0, 2.0, 3.0]])[:3] == (2.0, None, None)
    assert crossed_interval(np.ones((3, 4)))[:3] == (1.0, None, None)
    assert not crossed_interval(np.ones((3, 4))).above_zero
    assert over_worlds([1.0]) == (1.0, None, None, 1, None)


def test_a_world_is_one_value_however_many_runs_it_has() -> None:
    means = [0.67, 0.84, 1.30]
    found = over_worlds(means)
    wanted = stats.t.interval(0.95, 2, loc=np.mean(means), scale=stats.sem(means))
    assert (found.low, found.high) == pytest.approx(wanted)
    assert (found.seeds, found.prompts) == (3, None)
