"""The certificate: bounds hold together where truth is known (oracle), and moves are called (oracle)."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from sarm_control.auditing.attributes.attribute import Attribute
from sarm_control.auditing.certificates import certificate, simultaneous_bounds
from sarm_control.auditing.table import AttributeTable
from sarm_control.errors import ConfigError


def sampled(
    seed: int, prompts: int, *, price: float, each: int = 16
) -> tuple[AttributeTable, NDArray[np.float64]]:
    """Answers with a shortcut that the reward likes, one that comes with it, and one that does not."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(prompts), each)
    first = rng.random(len(prompt)) < 0.3
    second = np.where(
        rng.random(len(prompt)) < 0.7, ~first, rng.random(len(prompt)) < 0.3
    )  # instead of the first
    free = rng.random(len(prompt)) < 0.5
    values = np.column_stack([first, second, free]).astype(float)
    worth = rng.normal(size=len(prompt))
    # The measures are never called here.
    attributes = tuple(Attribute(name, name, lambda *_: 0.0) for name in ("first", "second", "free"))
    table = AttributeTable(
        attributes,
        values,
        worth + price * values[:, 0],
        prompt,
        np.full(len(prompt), "candidate"),
        tuple(map(str, range(prompts))),
        ("",) * len(prompt),
    )
    return table, worth


def test_what_takes_the_place_of_a_shortcut_is_not_certified_as_still() -> None:
    table, mended = sampled(0, 400, price=2.0)
    found = {(one.name, one.n): one for one in certificate(table, mended, targeted=["first"], n=[4, 16])}
    assert set(found) == {("second", 4), ("second", 16), ("free", 4), ("free", 16)}
    assert found["second", 16].verdict == "moves up"
    assert found["second", 16].low > 0.1
    assert found["free", 4].verdict == "still"


@pytest.mark.long
def test_bounds_hold_together_in_95_of_100_samples() -> None:
    """The truth is the same certificate's mean on very many prompts; no bound is computed for it."""
    big, mended = sampled(10_000, 20_000, price=1.0, each=8)
    truth = {(one.name, one.n): one.change for one in certificate(big, mended, targeted=["first"], n=[2, 8])}
    held = 0
    for seed in range(200):
        table, mended = sampled(seed, 60, price=1.0, each=8)
        found = certificate(table, mended, targeted=["first"], n=[2, 8])
        held += all(one.low <= truth[one.name, one.n] <= one.high for one in found)
    assert binom.cdf(held, 200, 0.95) > 0.001, held


@pytest.mark.parametrize(("moved", "of"), [(0, 50), (1, 50), (0, 200)])
def test_where_hardly_anything_moves_the_bound_is_the_exact_binomial_one(moved: int, of: int) -> None:
    change = np.zeros((of, 1))
    change[:moved] = 0.9
    low, high = simultaneous_bounds(change, shares=np.array([True]), tests=1)
    # a share with this upper limit shows so few moves with probability .025
    assert binom.cdf(moved, of, high[0]) == pytest.approx(0.025, rel=1e-6)
    assert low[0] <= 0.0
    _, open_above = simultaneous_bounds(change, shares=np.array([False]), tests=1)
    assert open_above[0] == np.inf


def test_the_same_reward_moves_nothing_and_more_prompts_say_it_more_narrowly() -> None:
    few, many = (sampled(1, prompts, price=1.0)[0] for prompts in (40, 400))
    wide, narrow = ({one.name: one for one in certificate(t, t.rewards, n=[4])} for t in (few, many))
    assert all(one.change == 0.0 and one.moved == 0 for one in (*wide.values(), *narrow.values()))
    assert {one.verdict for one in narrow.values()} == {"still"}
    assert {one.verdict for one in wide.values()} == {"not shown"}


def test_a_target_that_is_no_attribute_is_refused() -> None:
    table, mended = sampled(2, 20, price=1.0)
    with pytest.raises(ConfigError, match="the target 'charm' is no attribute of this audit"):
        certificate(table, mended, targeted=["charm"])
