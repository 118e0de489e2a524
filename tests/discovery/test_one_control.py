"""The control of a harming latent: its kind decides which, and its dose cancels what it pays."""

from dataclasses import replace

import numpy as np
import pytest

from sarm_control.control.controls import Controls
from sarm_control.control.edits.edits import Edit
from sarm_control.control.penalties import Penalty
from sarm_control.discovery.effects.effects import reward_sd
from sarm_control.discovery.pairs.margins import PairLatents, latent_values, pair_latents
from sarm_control.discovery.suggested_controls.harmful_reward import typical_reward
from sarm_control.discovery.suggested_controls.joint_controls import suggested_controls
from tests.discovery.worlds import Planted, make_world


def planted(weight: float, rate_chosen: float, rate_rejected: float) -> PairLatents:
    return pair_latents(*make_world(planted={5: Planted(weight, rate_chosen, rate_rejected)}))


def test_paid_for_bad_gets_a_penalty_on_firing_and_a_cap() -> None:
    pairs = planted(0.02, 0.05, 0.4)
    penalty, cap = suggested_controls(pairs, 5, "paid-for-bad")
    assert isinstance(penalty, Penalty)
    paid = float(f"{typical_reward(pairs, 5):.4g}")
    assert 0 < paid < reward_sd(pairs)
    assert replace(penalty, alpha=0.0) == Penalty(5, tau=0.0, alpha=0.0, pays=paid)
    assert float(str(penalty.alpha).removesuffix("sd")) == pytest.approx(1.0, abs=0.02)
    assert cap == Edit(5, max=0.0)


def test_a_charge_that_the_cap_makes_enough_is_too_small_without_it() -> None:
    pairs = planted(1.0, 0.05, 0.4)
    penalty, cap = suggested_controls(pairs, 5, "paid-for-bad")
    assert isinstance(penalty, Penalty)
    assert isinstance(cap, Edit)
    assert penalty.pays == pytest.approx(typical_reward(pairs, 5, float(str(penalty.tau))), rel=1e-3)
    assert isinstance(penalty.pays, float)
    charge = replace(penalty, alpha=float(str(penalty.alpha).removesuffix("sd")) * reward_sd(pairs))
    assert isinstance(charge.alpha, float)
    assert charge.alpha < penalty.pays
    assert Controls(penalties=[charge], edits=[cap]).shortfalls(pairs.head) == ()
    assert len(Controls(penalties=[charge]).shortfalls(pairs.head)) == 1


def test_charged_for_good_loses_its_charge_and_is_never_penalised() -> None:
    pairs = planted(-0.02, 0.4, 0.1)
    (edit,) = suggested_controls(pairs, 5, "charged-for-good")
    assert isinstance(edit, Edit)
    z = latent_values(pairs, 5).chosen
    firing = np.sort(z[z > 0])
    freed = edit.apply(firing) == 0
    assert freed.mean() == pytest.approx(0.9, abs=0.02)
    # Above what good answers have, every unit of z costs what it did.
    usual = float(np.quantile(firing, 0.9))
    assert edit.apply(np.array([usual + 1.0, usual + 3.0])) == pytest.approx([1.0, 3.0], abs=1e-3)
    assert edit.apply(np.array([0.0])) == 0


@pytest.mark.parametrize("kind", ["paid-for-good", "charged-for-bad", "not significant", "not replicated"])
def test_latents_that_do_not_harm_get_no_control(kind: str) -> None:
    assert suggested_controls(planted(0.02, 0.4, 0.1), 5, kind) == ()


def test_a_latent_that_is_always_on_gets_a_threshold_and_a_cap_above_zero() -> None:
    world = make_world(prompts=100)
    for side, shift in ((world.chosen, 1.0), (world.rejected, 4.0)):
        dense = side.toarray()
        dense[:, 5] = shift + np.random.default_rng(0).random(len(dense))
        side.data, side.indices, side.indptr = (lambda m: (m.data, m.indices, m.indptr))(type(side)(dense))
    head = world.head.copy()
    head[5] = 0.02
    pairs = pair_latents(*world._replace(head=head))
    penalty, cap = suggested_controls(pairs, 5, "paid-for-bad")
    assert isinstance(penalty, Penalty)
    assert isinstance(cap, Edit)
    values, tau = latent_values(pairs, 5), float(str(penalty.tau))
    assert (values.chosen > tau).mean() <= 0.05
    assert (values.rejected > tau).mean() >= 0.9
    assert cap.max == pytest.approx(np.median(values.chosen), rel=1e-3)
