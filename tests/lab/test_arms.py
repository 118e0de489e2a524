"""Oracle and property tests of the arms of a trial and of what a study makes of them."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.control import Edit, Penalty
from sarm_control.discovery.features import Feature
from sarm_control.discovery.pairs.margins import pair_latents
from sarm_control.discovery.suggested_controls.joint_controls import stand_in
from sarm_control.discovery.suggested_controls.suggestion import material_latents
from sarm_control.errors import DataError
from sarm_control.lab.judges.truth import Truth
from sarm_control.lab.study.arms import NEAREST, matched
from sarm_control.lab.study.study import judge


def feature(latent: int, *controls: Edit | Penalty, effect_sd: float = -0.1, share: float = -0.2) -> Feature:
    return Feature(
        latent=latent, kind="paid-for-bad", weight=0.1, effect=-0.1, low=-0.2, high=-0.05, p=0.001, q=0.01,
        q_confirm=0.01, effect_sd=effect_sd, share_of_margin=share, rate_chosen=0.1, rate_rejected=0.3,
        auroc=0.4, levels=("L1",), controls=controls,
    )  # fmt: skip


HARMS = (
    feature(3, Penalty(3, tau=0.5, alpha="1.2sd"), Edit(3, max=0.0)),
    feature(7, Edit(7, add=-1.5, min=0.0), effect_sd=-0.004, share=-0.03),
)


def truth(d_z: Sequence[float], effect: Sequence[float], error: Sequence[float]) -> Truth:
    zeros, names = np.zeros(len(d_z)), ("junk",) * len(d_z)
    return Truth("head", 100, np.array(effect), np.array(error), np.array(d_z), zeros, zeros, names, zeros)


def test_small_effects_get_no_control_by_either_measure() -> None:
    assert [one.latent for one in material_latents(HARMS)] == [3, 7]
    assert [one.latent for one in material_latents(HARMS, of_sd=0.01)] == [3]
    assert [one.latent for one in material_latents(HARMS, of_margin=0.05)] == [3]
    assert material_latents(HARMS, of_sd=0.2) == ()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), size=st.integers(12, 60), count=st.integers(1, 5))
def test_matched_latents_are_others_distinct_alive_of_the_same_sign_and_near(
    seed: int, size: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    rate, weight = rng.uniform(0.01, 0.6, size), rng.lognormal(-3, 1, size) * rng.choice([-1, 1], size)
    rate[0] = 0.0
    called = rng.choice(np.arange(1, size), count, replace=False).tolist()
    found = matched(rate, weight, called, seed=seed)
    drawn = list(found.latents)
    assert found == matched(rate, weight, called, seed=seed)
    assert len({*drawn, *called}) == 2 * count
    assert 0 not in drawn
    assert found.pool == size - 1 - count
    # Each is drawn among the nearest of its sign that are left, in the standardised plane.
    alive = rate > 0
    plane = np.column_stack([rate, np.log(np.abs(weight) + 1e-6)])
    plane = (plane - plane[alive].mean(axis=0)) / plane[alive].std(axis=0)
    other_sign = 0
    for place, latent in enumerate(called):
        left = [i for i in range(1, size) if i not in {*called, *drawn[:place]}]
        same = [i for i in left if weight[i] * weight[latent] > 0]
        other_sign += not same
        near = sorted(same or left, key=lambda i: np.linalg.norm(plane[i] - plane[latent]))[:NEAREST]
        assert drawn[place] in near
    assert found.other_sign == other_sign
    assert found.rate_distance == pytest.approx(np.mean(np.abs(rate[drawn] - rate[called])))
    assert found.weight_distance == pytest.approx(
        np.mean(np.abs(np.abs(weight[drawn]) - np.abs(weight[called])))
    )


def test_the_other_sign_is_drawn_only_when_none_of_the_same_is_left() -> None:
    rate = np.array([0.2, 0.3, 0.3, 0.2, 0.2])
    weight = np.array([1.0, 1.0, 0.01, -1.0, -1.0])
    # Latent 2 is far from both, and still the first choice as the only other positive one.
    found = matched(rate, weight, [0, 1], seed=0)
    assert found.latents[0] == 2
    assert found.latents[1] in (3, 4)
    assert (found.pool, found.other_sign) == (3, 1)


def test_too_few_other_latents_are_refused() -> None:
    with pytest.raises(DataError, match="1 other latents fire, 2 are to be matched") as refused:
        matched(np.array([0.2, 0.3, 0.1]), np.ones(3), [0, 1], seed=0)
    assert refused.value.hint == "control fewer latents, or use a reward model with more"


def test_called_latents_are_judged_by_the_planted_truth() -> None:
    # 0 and 1 harm by d_z; 2 harms a little but surely; 3 is not below zero by two errors; 4 promotes.
    known = truth(
        [-0.4, -0.21, -0.05, -0.01, 0.3], [-0.4, -0.2, -0.1, -0.01, 0.3], [0.01, 0.01, 0.01, 0.02, 0.01]
    )
    found = judge([0, 2, 3, 4], known)
    assert (found.found, found.harming, found.false) == (1, 2, 2)
    assert found.recall == 0.5
    assert found.precision == 0.5
    nothing = judge([], known)
    assert nothing.recall == 0.0
    assert nothing.precision is None
    assert judge([4], truth([0.1] * 5, [0.1] * 5, [0.01] * 5)).recall is None


def test_a_placebo_charges_as_much_and_reads_its_limits_from_its_own_latent() -> None:
    z = np.random.default_rng(0).exponential(1.0, (50, 2)) + np.array([0.0, 3.0])
    pairs = pair_latents(z, z + np.array([1.0, 0.0]), np.arange(50), np.arange(50), [0.2, -0.3])
    penalty = stand_in(pairs, 1, Penalty(0, tau=0.5, alpha="1.7sd", pays=(0.3, 0.1)))
    assert isinstance(penalty, Penalty)
    assert (penalty.latent, penalty.alpha, penalty.similar_reward) == (1, "1.7sd", 0.0)
    assert stand_in(pairs, 1, Edit(0, max=0.0)) == Edit(1, max=float(f"{np.median(z[:, 1]):.4g}"))
    freed = stand_in(pairs, 1, Edit(0, add=-1.0, min=0.0))
    assert freed == Edit(1, add=-float(f"{np.quantile(z[:, 1], 0.9):.4g}"), min=0.0)
