"""Other ways to choose latents, judged on prompts nobody chose on: oracle sums and planted worlds."""

from dataclasses import replace

import numpy as np
import pytest

from sarm_control.discovery.effects.baselines import TESTED, Competitor, compete
from sarm_control.discovery.effects.effects import replicated_effects
from sarm_control.discovery.effects.kinds import HARMS
from sarm_control.discovery.effects.margin_summary import cumulative_margin, lost_margin, summarise
from sarm_control.discovery.pairs.margins import margin_contributions, mean_differences, pair_latents
from tests.discovery.test_effects import KINDS, PLANTED, halves
from tests.discovery.worlds import World, make_world
from tests.present import present


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(prompts=500, latents=300, planted=PLANTED)


@pytest.fixture(scope="module")
def harmful(world: World) -> dict[str, Competitor]:
    selection, confirmation = halves(world)
    table = replicated_effects(selection, confirmation)
    found = compete(selection, confirmation, table["latent"], table["q"] <= 0.05, sign=-1, sets=400)
    return {one.way: one for one in found}


def test_the_tests_gain_most_and_reading_the_sign_of_the_weight_takes_protection_away(
    harmful: dict[str, Competitor],
) -> None:
    tested = harmful.pop(TESTED)
    assert set(tested.latents) >= {latent for latent, kind in KINDS.items() if kind in HARMS}
    assert tested.gain.low > 0
    assert tested.right == 1
    assert present(tested.among).percentile > 99
    for other in harmful.values():
        assert len(other.latents) == len(tested.latents)
        assert other.gain.mean < tested.gain.mean
        assert other.right < 1


def test_oracle_a_gain_is_the_change_of_the_margin_when_the_latents_are_removed(
    world: World, harmful: dict[str, Competitor]
) -> None:
    _, confirmation = halves(world)
    for one in harmful.values():
        head = confirmation.head.copy()
        head[list(one.latents)] = 0
        before, after = (
            summarise(pairs).margin.mean for pairs in (confirmation, replace(confirmation, head=head))
        )
        assert after - before == pytest.approx(one.gain.mean)
        assert one.gain.low <= one.gain.mean <= one.gain.high


def test_metamorphic_promoting_latents_are_the_harming_ones_of_the_turned_preference(world: World) -> None:
    selection, confirmation = halves(world)
    table = replicated_effects(selection, confirmation)
    selected = table["q"] <= 0.05
    harms = compete(selection, confirmation, table["latent"], selected, sign=-1, sets=50)
    turned = compete(selection.swap(), confirmation.swap(), table["latent"], selected, sign=1, sets=50)
    for one, other in zip(harms, turned, strict=True):
        if one.way != "highest weight":  # the weight does not see the preference
            assert one.latents == other.latents
            assert one.gain.mean == pytest.approx(-other.gain.mean)
            assert one.among == other.among


def test_nothing_selected_leaves_nothing_to_compare(world: World) -> None:
    selection, confirmation = halves(world)
    none = np.zeros(300, dtype=bool)
    assert compete(selection, confirmation, np.arange(300), none, sign=-1) == ()


def test_oracle_mean_differences_by_hand() -> None:
    pairs = pair_latents([[2.0, 0], [0, 1.0], [4.0, 0]], [[0, 3.0], [1.0, 0]], [7, 7, 9], [7, 9], [0.5, -2.0])
    np.testing.assert_allclose(mean_differences(pairs), [(1 + 3) / 2, (0.5 - 3) / 2])


def test_oracle_cumulative_margin_by_hand() -> None:
    """Effects 4, -1, 2, 1 of a margin of 6; the selection orders them as 1, 0, 2, 3."""
    head = [1.0, 1.0, 1.0, 1.0]
    nothing = np.zeros((1, 4))
    selection = pair_latents([[5.0, -9.0, 3.0, 1.0]], nothing, [0], [0], head)
    confirmation = pair_latents([[4.0, -1.0, 2.0, 1.0]], nothing, [0], [0], head)
    found = present(cumulative_margin(selection, confirmation))
    # running sums -1, 3, 5, 6 of 6
    assert [count for count, _ in found.curve] == [1, 2, 4]
    assert [share for _, share in found.curve] == pytest.approx([-1 / 6, 0.5, 1.0])
    assert found.needed == {0.5: 2, 0.9: 4}
    assert cumulative_margin(selection, confirmation.swap()) is None


def test_cumulative_margin_ends_at_all_of_it(world: World) -> None:
    found = present(cumulative_margin(*halves(world)))
    assert found.curve[-1][1] == 1.0
    assert present(found.needed[0.5]) <= present(found.needed[0.9]) <= found.curve[-1][0]


def test_oracle_lost_margin_by_hand() -> None:
    # margins -3 and -1 and 2; latent 0 makes -4 and 1 of the two lost ones
    chosen = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]])
    rejected = np.array([[4.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    pairs = pair_latents(chosen, rejected, [0, 1, 2], [0, 1, 2], [1.0, 1.0])
    found = present(lost_margin(pairs, [0]))
    assert (found.prompts, found.margin) == (2, 2.0)
    assert found.carried.mean == pytest.approx((-4 + 1) / (-3 - 1))
    # latent 1 alone is left to stand in, and makes the rest
    among = present(found.among)
    assert among.mean == pytest.approx(0.25)
    assert among.percentile == 100
    both = present(lost_margin(pairs, [0, 1]))
    assert both.carried.mean == pytest.approx(1)
    assert not found.carried.given
    assert both.among is None
    assert present(lost_margin(pairs, [0], tested=[0])).among is None
    assert lost_margin(pairs.take_prompts([2]), [0]) is None


def test_lost_margin_falls_when_the_carriers_are_removed(world: World) -> None:
    """The share is what removing the latents gives back on exactly these prompts."""
    _, confirmation = halves(world)
    margins = np.asarray(margin_contributions(confirmation).sum(axis=1)).ravel()
    lost = confirmation.take_prompts(np.flatnonzero(margins < 0))
    found = present(lost_margin(confirmation, [20, 42]))
    share, among = found.carried, present(found.among)
    assert 0 < among.mean < share.mean
    assert among.percentile > 95
    head = confirmation.head.copy()
    head[[20, 42]] = 0
    good, bad = lost.chosen @ head, lost.rejected @ head
    rest = np.bincount(lost.chosen_prompt, good) / 3 - np.bincount(lost.rejected_prompt, bad) / 3
    assert rest.sum() / margins[margins < 0].sum() == pytest.approx(1 - share.mean)
    assert 0 < share.low < share.mean < share.high


def test_a_way_without_a_latent_of_that_side_is_left_out() -> None:
    """One tested latent, which the tests say harms and whose weight is positive: no weight speaks for it."""
    chosen, rejected = np.zeros((40, 1)), np.random.default_rng(0).exponential(size=(40, 1))
    pairs = pair_latents(chosen, rejected, np.arange(40), np.arange(40), [1.0])
    found = compete(pairs, pairs, np.array([0]), np.array([True]), sign=-1, sets=5)
    assert [one.latents for one in found] == [(0,)] * len(found)
    assert 0 < len(found) < 4
