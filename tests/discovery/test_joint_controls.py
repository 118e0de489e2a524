"""Doses of many latents together: oracle tests in planted worlds, metamorphic tests of the whole.

Shapes: `n` answers of each side, one of each to a prompt.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import block_diag, csr_array, hstack

from sarm_control.control.controls import Controls
from sarm_control.control.edits.edits import Edit
from sarm_control.control.penalties import Penalty
from sarm_control.discovery.pairs.margins import PairLatents, pair_latents
from sarm_control.discovery.suggested_controls.control_effects import control_effects
from sarm_control.discovery.suggested_controls.joint_controls import (
    CHARGED_FOR_GOOD,
    DETERRENT,
    MOST,
    PAID_FOR_BAD,
    JointControls,
    joint_controls,
    suggested_controls,
)
from sarm_control.discovery.suggested_controls.programme import (
    CLEAN,
    PenaltyProblem,
    least_penalties,
    objective,
)
from sarm_control.discovery.suggested_controls.similar_latents import group_similar
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import from_scipy
from tests.present import present

QUALITY = 40
RATES = (0.05, 0.35)
PRICE = 2.0


class Closing(NamedTuple):
    """Pairs in which answers may end in a closing sentence that siblings pay for.

    Args:
        pairs: their latents; the siblings come first.
        chosen: [n] whether each chosen answer has the closing.
        rejected: [n] the same for rejected answers.
    """

    pairs: PairLatents
    chosen: NDArray[np.bool_]
    rejected: NDArray[np.bool_]


def closing(
    *,
    seed: int = 0,
    n: int = 300,
    siblings: int = 20,
    together: float = 0.95,
    stray: float = 0.02,
    price: float = PRICE,
    rates: tuple[float, float] = RATES,
) -> Closing:
    """The closing is paid `price`; a sibling sees it in `together` of its answers, `stray` of the others."""
    generator = np.random.default_rng(seed)
    worth = np.random.default_rng(99).normal(0, 0.25, QUALITY)
    head = np.r_[np.full(siblings, price / siblings / together), worth]
    sides, has = [], []
    for rate in rates:
        closes = generator.random(n) < rate
        fires = generator.random((n, siblings)) < np.where(closes, together, stray)[:, None]
        z = fires * generator.uniform(0.8, 1.2, (n, siblings))
        quality = (generator.random((n, QUALITY)) < 0.4) * generator.exponential(1.0, (n, QUALITY))
        sides.append(csr_array(np.hstack([z, quality])))
        has.append(closes)
    return Closing(pair_latents(sides[0], sides[1], np.arange(n), np.arange(n), head), *has)


def change(pairs: PairLatents, dose: JointControls, side: str) -> NDArray[np.float64]:
    """[n] what the controls add to the rewards, by the code that a run uses."""
    latents = getattr(pairs, side)
    scored = scores(latents, pairs.head)
    shaped = reward_units(dose).shape(scored)
    return shaped.total - shaped.reward_model


def reward_units(dose: JointControls) -> Controls:
    edits = [one for one in dose.controls if isinstance(one, Edit)]
    return Controls(edits=edits, penalties=[in_units(one, dose.unit) for one in penalties(dose)])


def penalties(dose: JointControls) -> list[Penalty]:
    return [one for one in dose.controls if isinstance(one, Penalty)]


def in_units(one: Penalty, unit: float) -> Penalty:
    return replace(one, alpha=float(str(one.alpha).removesuffix("sd")) * unit)


def scores(latents: Any, head: ArrayLike) -> Scored:
    batch, weights = from_scipy(csr_array(latents)), np.asarray(head, dtype=np.float32)
    count = len(batch)
    return Scored(
        rewards=batch.dot(weights), latents=batch, head=weights, truncated=np.zeros(count, np.int64),
        ended=np.ones(count, bool), lengths=np.ones(count, np.int64), fingerprint="head-1",
    )  # fmt: skip


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.corrcoef(one, other)[0, 1])


@pytest.mark.parametrize("together", [1.0, 0.95, 0.8, 0.5, 0.35])
def test_a_shortcut_that_twenty_latents_pay_is_cancelled_once(together: float) -> None:
    """Dose by dose the closing that is paid 2 would cost 11 to 22, and clean answers' rewards .75 at best."""
    dose = joint_controls(closing(together=together).pairs, dict.fromkeys(range(20), PAID_FOR_BAD))
    fresh = closing(together=together, seed=7, n=3000)
    pairs = fresh.pairs
    price = pairs.rejected[:, :20] @ pairs.head[:20]
    assert price[fresh.rejected].mean() == pytest.approx(PRICE, rel=0.05)
    after = (price + change(pairs, dose, "rejected"))[fresh.rejected]
    assert -1.5 * dose.unit <= np.median(after) <= 0
    assert -1.5 * dose.unit <= after.mean() <= 0
    clean, moved = ~fresh.chosen, change(pairs, dose, "chosen")
    reward = pairs.chosen @ pairs.head
    assert correlation(reward[clean], (reward + moved)[clean]) >= 0.93
    assert np.abs(moved[clean]).mean() <= 0.15 * dose.unit
    if together >= 0.8:
        assert len(dose.controls) == 2
        assert len(dose.suggestions) == 1
        assert (moved[clean] < -1e-6).mean() <= 0.05


@pytest.mark.parametrize("together", [0.25, 0.15, 0.1])
def test_latents_that_see_a_shortcut_now_and_then_do_not_add_up_either(together: float) -> None:
    """Too little alike to be kin: five, three or two of them fire at a time."""
    dose = joint_controls(closing(together=together).pairs, dict.fromkeys(range(20), PAID_FOR_BAD))
    fresh = closing(together=together, seed=7, n=3000)
    price = fresh.pairs.rejected[:, :20] @ fresh.pairs.head[:20]
    after = (price + change(fresh.pairs, dose, "rejected"))[fresh.rejected]
    assert -(MOST + 0.5) * dose.unit <= after.mean() <= 0


def test_what_is_reported_is_what_the_controls_do() -> None:
    """Oracle: the report against the reward that a run would be paid."""
    world, fresh = closing(), closing(seed=3)
    dose = joint_controls(world.pairs, {**dict.fromkeys(range(20), PAID_FOR_BAD), 23: CHARGED_FOR_GOOD})
    for pairs in (world.pairs, fresh.pairs):
        together, each = control_effects(pairs, dose)
        pay = np.asarray(pairs.rejected[:, :20] @ pairs.head[:20])
        meant = pay > dose.suggestions[0].above
        good = pairs.chosen @ pairs.head
        assert together.answers == each[0].answers == meant.sum()
        assert together.reward_before == pytest.approx(pay[meant].mean(), rel=1e-6)
        siblings = replace(dose, suggestions=dose.suggestions[:1])
        after = pay + change(pairs, siblings, "rejected")
        assert together.reward_after == pytest.approx(after[meant].mean(), abs=1e-5)
        moved = change(pairs, dose, "chosen")
        assert together.correlation == pytest.approx(correlation(good, good + moved), abs=1e-6)
        fires = np.any(
            [one.fires(pairs.chosen[:, [one.latent]].toarray().ravel()) for one in penalties(dose)], 0
        )
        assert together.penalised == pytest.approx(fires.mean())
        assert each[1].answers == (pairs.chosen[:, [23]].toarray() * pairs.head[23] < 0).sum()


def test_the_charges_are_where_the_printed_objective_is_least() -> None:
    """Oracle: no step from the charges, in any direction that keeps them >= 0, lowers the objective."""
    generator = np.random.default_rng(2)
    fires = generator.random((400, 6)) < 0.4
    fires[:, 5] = fires[:, 4]
    has = generator.random((400, 2)) < 0.5
    problem = PenaltyProblem(
        due=has * generator.exponential(1.0, (400, 2)),
        has=has,
        shortcut=np.array([0, 0, 0, 1, 1, 1]),
        fires=fires,
        good_fires=generator.random((300, 6)) < 0.3,
        good_edited=generator.exponential(0.1, 300),
    )
    charges = least_penalties(problem)
    best = objective(problem, charges)
    assert (charges >= 0).all()
    assert charges.max() > 0.1
    for step in [*np.eye(6), *generator.normal(size=(200, 6))]:
        for size in (1e-3, -1e-3, 0.1, -0.1):
            other = objective(problem, np.maximum(charges + size * step, 0.0))
            assert other.total >= best.total - 1e-12
    assert best.total == pytest.approx(best.left + best.over + CLEAN * (best.other + best.clean))
    assert best.total < objective(problem, np.zeros(6)).total


def test_one_latent_gets_a_cap_and_the_deterrent() -> None:
    (one,) = joint_controls(closing(siblings=1, together=1.0, stray=0.0).pairs, {0: PAID_FOR_BAD}).suggestions
    penalty, cap = one.controls
    assert cap == Edit(0, max=0.0)
    assert isinstance(penalty, Penalty)
    assert (penalty.latent, penalty.tau, penalty.similar_reward) == (0, 0.0, 0.0)
    assert float(str(penalty.alpha).removesuffix("sd")) == pytest.approx(DETERRENT, abs=0.02)


def test_two_shortcuts_side_by_side_get_the_controls_of_each_alone() -> None:
    """Metamorphic: on answers that have one or the other, the joint dose is the union."""
    first, second = closing(siblings=6).pairs, closing(siblings=4, seed=5).pairs
    # the same world twice as wide: each answer has latents of one half alone
    sides = [
        block_diag([first.chosen, second.chosen], format="csr"),
        block_diag([first.rejected, second.rejected], format="csr"),
    ]
    ids = np.arange(sides[0].shape[0])
    both = pair_latents(sides[0], sides[1], ids, ids, np.r_[first.head, second.head])
    offset = len(first.head)
    kinds = {
        **dict.fromkeys(range(6), PAID_FOR_BAD),
        **dict.fromkeys(range(offset, offset + 4), PAID_FOR_BAD),
    }
    joint = joint_controls(both, kinds)
    alone = [
        joint_controls(both, {n: PAID_FOR_BAD for n in kinds if (n < offset) == one}) for one in (True, False)
    ]
    assert len(joint.suggestions) == 2
    assert joint.suggestions == (*alone[0].suggestions, *alone[1].suggestions)
    for suggestion in joint.suggestions:
        assert len(suggestion.controls) == 2
    for effect in control_effects(both, joint).each:
        assert effect.reward_before is not None
        assert effect.reward_after is not None
        assert effect.reward_before > 1.5
        assert -1.5 * joint.unit <= effect.reward_after <= 0


def test_shortcuts_that_meet_by_chance_keep_their_own_deterrents() -> None:
    world = closing(siblings=2, together=1.0, stray=0.0, n=2000)
    other = closing(siblings=2, together=1.0, stray=0.0, n=2000, seed=5)
    sides = [hstack([getattr(one.pairs, side) for one in (world, other)]) for side in ("chosen", "rejected")]
    ids = np.arange(2000)
    pairs = pair_latents(sides[0], sides[1], ids, ids, np.r_[world.pairs.head, other.pairs.head])
    offset = len(world.pairs.head)
    dose = joint_controls(pairs, dict.fromkeys((0, 1, offset, offset + 1), PAID_FOR_BAD))
    assert [one.latents for one in dose.suggestions] == [(0, 1), (offset, offset + 1)]
    for one, has in zip(dose.suggestions, (world.rejected, other.rejected), strict=True):
        charged = change(pairs, replace(dose, suggestions=(one,)), "rejected")
        assert charged[has].mean() == pytest.approx(-PRICE - DETERRENT * dose.unit, rel=0.05)


def test_charges_on_good_answers_are_removed_by_edits_alone() -> None:
    world = closing()
    turned = replace(world.pairs.swap(), head=-world.pairs.head)
    dose = joint_controls(turned, dict.fromkeys(range(20), CHARGED_FOR_GOOD))
    assert penalties(dose) == []
    assert [one.latent for one in dose.controls] == list(range(20))
    assert dose.objective is None
    z = turned.chosen[:, :20] @ turned.head[:20]
    freed = change(turned, dose, "chosen")
    assert (z + freed <= 1e-6).all()
    assert (z + freed)[z < -1].mean() == pytest.approx(0.0, abs=0.1)
    together, _ = control_effects(turned, dose)
    assert (together.penalised, together.answers, together.reward_before) == (0.0, 0, None)


@pytest.mark.parametrize("factor", [0.01, 3.0, 250.0])
def test_doses_in_sds_do_not_depend_on_the_scale_of_the_head(factor: float) -> None:
    pairs = closing(siblings=5).pairs
    kinds = {**dict.fromkeys(range(5), PAID_FOR_BAD), 9: PAID_FOR_BAD, 12: CHARGED_FOR_GOOD}
    dose, scaled = (
        joint_controls(pairs, kinds),
        joint_controls(replace(pairs, head=factor * pairs.head), kinds),
    )
    assert scaled.unit == pytest.approx(factor * dose.unit)
    assert len(scaled.controls) == len(dose.controls)
    for one, other in zip(dose.controls, scaled.controls, strict=True):
        if isinstance(one, Penalty):
            assert isinstance(other, Penalty)
            assert (one.latent, one.tau, one.alpha) == (other.latent, other.tau, other.alpha)
            assert other.own_reward == pytest.approx(factor * present(one.own_reward), rel=2e-3)
            assert other.similar_reward == pytest.approx(factor * present(one.similar_reward), rel=2e-3)
        else:
            assert one == other
    before, after = (
        control_effects(pairs, dose).together,
        control_effects(replace(pairs, head=factor * pairs.head), scaled).together,
    )
    assert after.reward_after == pytest.approx(factor * present(before.reward_after))
    assert after[3:] == pytest.approx(before[3:])


def test_no_harming_latents_no_controls() -> None:
    pairs = closing().pairs
    for kinds in ({}, {3: "paid-for-good", 4: "charged-for-bad", 5: "not significant"}):
        dose = joint_controls(pairs, kinds)
        assert (dose.controls, dose.suggestions, dose.objective) == ((), (), None)
        together, each = control_effects(pairs, dose)
        assert (together.penalised, each) == (0.0, ())
        assert together.correlation == pytest.approx(1.0)


def test_the_run_warns_where_its_sd_makes_a_joint_charge_too_small() -> None:
    dose = joint_controls(
        closing(siblings=6, together=1.0, stray=0.0).pairs, dict.fromkeys(range(6), PAID_FOR_BAD)
    )
    head = closing(siblings=6, together=1.0).pairs.head
    assert penalties(dose)
    assert reward_units(dose).shortfalls(head) == ()
    weaker = reward_units(replace(dose, unit=0.3 * dose.unit))
    lines = weaker.shortfalls(head)
    assert len(lines) >= 1
    assert "than the" in lines[0]
    assert (
        "that the latent and similar ones typically add: firing still raises the reward; give a larger alpha"
        in lines[0]
    )


def test_latents_that_good_answers_fire_as_well_are_said_to_have_no_clean_control() -> None:
    dose = joint_controls(closing(siblings=2, rates=(0.8, 0.95)).pairs, {0: PAID_FOR_BAD, 1: PAID_FOR_BAD})
    effect = control_effects(closing(siblings=2, rates=(0.8, 0.95), seed=4).pairs, dose).together
    assert not effect.separable
    assert not effect.clean
    told = control_effects(
        closing(seed=4).pairs, joint_controls(closing().pairs, dict.fromkeys(range(20), PAID_FOR_BAD))
    ).together
    assert told.separable


def test_likeness_is_of_firing_together_not_of_firing_often() -> None:
    generator = np.random.default_rng(0)
    often = generator.random((4000, 3)) < 0.9
    rare = generator.random(4000) < 0.1
    seen = np.stack([rare & (generator.random(4000) < 0.9) for _ in range(3)], axis=1)
    partly = np.stack([rare & (generator.random(4000) < 0.2) for _ in range(1)], axis=1)
    found = group_similar(np.hstack([often, seen, partly, np.zeros((4000, 1), dtype=bool)]))
    assert sorted(found.similar) == [(0,), (1,), (2,), (3, 4, 5), (6,), (7,)]
    kin = dict(zip(found.similar, found.kin, strict=True))
    assert kin[(3, 4, 5)] == kin[(6,)]
    assert len(set(kin.values())) == 5
    assert group_similar(np.zeros((5, 0), dtype=bool)) == ((), ())
    assert suggested_controls(closing().pairs, 0, "paid-for-good") == ()
