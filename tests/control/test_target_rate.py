"""Target rates: simulated policies held (golden seeds), oracles by hand, properties, a message a mistake."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from sarm_control.control import Controls, HumanKL, Penalty, ReferenceStatistics, parse_penalty
from sarm_control.control.target_rate import MOST_SDS, Multiplier
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model.scored import Scored
from tests.control.batches import random_scored, scored_from
from tests.control.one_logit import Learner, World, misses, train

HELD = Penalty(3, 0.2, target_rate=0.1)
CONTROLS = Controls(penalties=[HELD, Penalty(3, 0.5, 0.4, "hinge"), Penalty(1, 0.3, "0.5sd")])
REFERENCE = ReferenceStatistics.from_scored(random_scored(8, n=50), [3])
SPEEDS = [Learner(0.5), Learner(1), Learner(2), Learner(4)]
LATE = [Learner(1, 0.66), Learner(2, 0.66), Learner(0.5, 0.9), Learner(1, 0.9), Learner(2, 0.9)]


def batch(fired: int, n: int = 96) -> Scored:
    z = np.zeros((n, 2))
    z[:fired, 0] = 1.0
    return scored_from(z)


@pytest.mark.parametrize("learner", SPEEDS + LATE, ids=str)
def test_a_policy_of_any_speed_is_held_in_five_of_five_seeds(learner: Learner) -> None:
    penalty = Penalty(0, 0.5, target_rate=0.1)
    assert all(misses(train(penalty, learner, seed), 0.1) <= 0.05 for seed in range(5))


@pytest.mark.parametrize(
    ("world", "target"), [(World(start=0.3), 0.1), (World(gain=2.0), 0.1), (World(gain=1.0), 0.3)], ids=str
)
@pytest.mark.parametrize("learner", [Learner(0.5), Learner(1), Learner(1, 0.66)], ids=str)
def test_other_starts_gains_and_targets_are_held_too(world: World, target: float, learner: Learner) -> None:
    penalty = Penalty(0, 0.5, target_rate=target)
    assert all(misses(train(penalty, learner, seed, world), target) <= 0.05 for seed in range(5))


@pytest.mark.long
@pytest.mark.parametrize("alpha", ["0.5sd", "1sd", "1.5sd", "2sd", "4sd"])
def test_a_fixed_alpha_holds_no_three_speeds(alpha: str) -> None:
    penalty = Penalty(0, 0.5, alpha)
    held = [misses(train(penalty, learner, seed), 0.1) <= 0.05 for learner in SPEEDS[:3] for seed in range(5)]
    assert sum(held) <= 10


def test_a_latent_that_nothing_pays_for_is_left_alone() -> None:
    """The charge is a limit, not a wage: it does not make a latent fire."""
    rates = train(Penalty(0, 0.5, target_rate=0.5), Learner(2), 0, World(start=0.05, gain=0.0))
    np.testing.assert_array_equal(rates, train(Penalty(0, 0.5, 0.0), Learner(2), 0, World(0.05, 0.0)))


def test_oracle_three_batches_by_hand() -> None:
    first = Multiplier().after(fired=29, answers=98, target=0.1)
    error = np.log(29.5 / 69.5) - np.log(0.1 / 0.9)
    assert list(first) == pytest.approx([1, error, 0.0, 0.2 * error])
    assert first.sds == pytest.approx(1.7 * error)
    second = first.after(fired=19, answers=98, target=0.1)
    newer = np.log(19.5 / 79.5) - np.log(0.1 / 0.9)
    trend = 0.2 * (newer - error)
    ahead = newer + 5 * trend
    assert list(second) == pytest.approx([2, newer, trend, 0.2 * error + 0.2 * ahead])
    assert second.sds == pytest.approx(1.7 * ahead + 0.2 * error)
    # the trend is an exponential mean, which shows first where there was one before
    third = second.after(fired=24, answers=98, target=0.1)
    newest = np.log(24.5 / 74.5) - np.log(0.1 / 0.9)
    later = 0.8 * trend + 0.2 * (newest - newer)
    integral = 0.2 * (error + ahead + newest + 5 * later)
    assert list(third) == pytest.approx([3, newest, later, integral])
    higher = Multiplier().after(fired=59, answers=98, target=0.5)
    assert higher.error == pytest.approx(np.sqrt(0.09 / 0.25) * np.log(59.5 / 39.5))
    # errors of smaller targets than a tenth count in full, no more
    lower = Multiplier().after(fired=9, answers=98, target=0.05)
    assert lower.error == pytest.approx(np.log(9.5 / 89.5) - np.log(0.05 / 0.95))


def test_oracle_errors_count_up_to_two_logits() -> None:
    """All of 96 fire, or none: 7.5 logits above a target of a tenth, and 3.1 below it."""
    assert Multiplier() == (0, 0.0, 0.0, 0.0)
    assert Multiplier().after(96, 96, 0.1).sds == pytest.approx(1.5 * 2 + 0.2 * 2)
    none = Multiplier(integral=5.0).after(0, 96, 0.1)
    assert (none.sds, none.integral) == pytest.approx((5 - 0.4 - 1.5 * 2, 5 - 0.4))


@pytest.mark.parametrize(
    ("fired", "integral", "moves"),
    [
        # 0.85 logits too few, which is 1.27 SDs less: the penalty is above 0 with 1.5 SDs and not with 1
        (4, 1.5, True),
        (4, 1.0, False),
        # 0.79 logits too many, 1.19 SDs more: below the largest penalty with 8.5, and above it with 9
        (19, 8.5, True),
        (19, 9.0, False),
        # the other limit holds back neither
        (4, 9.9, True),
        (19, 0.0, True),
    ],
)
def test_oracle_the_integral_moves_unless_the_penalty_is_at_the_limit_it_moves_to(
    fired: int, integral: float, moves: bool
) -> None:
    error = np.log((fired + 0.5) / (98.5 - fired)) - np.log(0.1 / 0.9)
    found = Multiplier(1, error, 0.0, integral).after(fired, 98, 0.1)
    assert found.integral == pytest.approx(integral + 0.2 * error * moves)
    assert found.sds == pytest.approx(min(max(1.5 * error + found.integral, 0), 10))


@given(st.lists(st.integers(0, 20), max_size=60), st.floats(0.02, 0.98))
def test_property_charge_and_integral_stay_in_range(counts: list[int], target: float) -> None:
    multiplier = Multiplier()
    assert multiplier.sds == 0
    for fired in counts:
        multiplier = multiplier.after(fired, 20, target)
        assert 0 <= multiplier.sds <= MOST_SDS
        assert 0 <= multiplier.integral <= MOST_SDS


@given(st.lists(st.integers(0, 20), max_size=10), st.integers(0, 19))
def test_property_more_firing_never_lowers_the_charge(counts: list[int], fired: int) -> None:
    multiplier = Multiplier()
    for count in counts:
        multiplier = multiplier.after(count, 20, 0.3)
    assert multiplier.after(fired + 1, 20, 0.3).sds >= multiplier.after(fired, 20, 0.3).sds


def test_the_integral_does_not_wind_up_at_either_limit() -> None:
    high = Multiplier()
    for _ in range(500):
        high = high.after(96, 96, 0.1)
    assert high.sds == MOST_SDS == 10.0
    assert high.integral < MOST_SDS
    low = Multiplier(batches=1, error=-2.0, trend=0.0, integral=0.5)
    for _ in range(500):
        low = low.after(0, 96, 0.1)
    assert (low.sds, low.integral) == (0.0, 0.5)


def test_a_charge_is_what_was_learnt_from_batches_before() -> None:
    controls = Controls(penalties=[Penalty(0, 0.5, target_rate=0.1)]).resolve(REFERENCE)
    state = controls.start()
    now = batch(50)
    before = controls.shape(now, state)
    assert before.info["penalty/0/alpha"] == 0
    assert not before.penalties.any()
    state.learn(now)
    after, again = controls.shape(now, state), controls.shape(now, state)
    alpha = Multiplier().after(50, 96, 0.1).sds * REFERENCE.sd
    assert controls.alphas(state) == (alpha,)
    assert after.info["penalty/0/alpha"] == alpha
    assert after.info["penalty/0/rate"] == 50 / 96
    np.testing.assert_allclose(after.columns()["reward/penalty/0"], [-alpha] * 50 + [0.0] * 46)
    np.testing.assert_array_equal(after.total, again.total)


@given(st.integers(0, 10))
def test_property_the_columns_sum_and_other_penalties_keep_their_alpha(seed: int) -> None:
    controls = CONTROLS.resolve(REFERENCE)
    state = controls.start()
    state.learn(random_scored(seed, n=40))
    columns = controls.shape(random_scored(seed), state).columns()
    total = columns.pop("reward/total")
    np.testing.assert_allclose(sum(columns.values()), total, atol=1e-9)
    assert controls.alphas(state)[1:] == (0.4, 0.5 * REFERENCE.sd)


def test_two_penalties_of_a_latent_have_their_own_rates() -> None:
    controls = CONTROLS.resolve(REFERENCE)
    scored = random_scored(2, n=60)
    z = scored.latents.columns([3])[:, 0]
    info = controls.shape(scored, controls.start()).info
    assert [penalty.form for penalty in controls.penalties if penalty.latent == 3] == ["indicator", "hinge"]
    assert info["penalty/3/indicator/rate"] == (z > 0.2).mean()
    assert info["penalty/3/hinge/rate"] == (z > 0.5).mean()
    assert "penalty/3/indicator/alpha" in info
    assert not {"penalty/3/rate", "penalty/3/hinge/alpha"} & info.keys()
    assert (z > 0.2).mean() != (z > 0.5).mean()


def test_metamorphic_the_order_of_a_batch_teaches_the_same() -> None:
    controls = CONTROLS.resolve(REFERENCE)
    scored = random_scored(5, n=30)
    one, other = controls.start(), controls.start()
    one.learn(scored)
    other.learn(scored.take(np.arange(30)[::-1]))
    assert controls.alphas(one) == controls.alphas(other)


def test_a_restored_state_goes_on_to_the_bit_beside_a_discriminator() -> None:
    controls = Controls(penalties=CONTROLS.penalties, human_kl=HumanKL(0.3)).resolve(REFERENCE)
    human = HumanBuffer.from_scored(random_scored(90, n=100), range(6))
    state, restored = controls.start(human), controls.start(human)
    for seed in range(3):
        state.learn(random_scored(seed))
    restored.load_state_dict(load(save(state.state_dict())))
    for seed in range(3, 6):
        scored = random_scored(seed)
        np.testing.assert_array_equal(
            controls.shape(scored, state).total, controls.shape(scored, restored).total
        )
        state.learn(scored)
        restored.learn(scored)
    assert controls.alphas(state) == controls.alphas(restored)
    assert controls.alphas(state)[0] > 0


def test_a_state_of_other_penalties_is_refused() -> None:
    controls = CONTROLS.resolve(REFERENCE)
    other = Controls(penalties=[Penalty(4, 0.2, target_rate=0.1)]).start()
    message = r"^the saved control state has target rates of latents \[4\], these controls of \[3\]$"
    with pytest.raises(TrainingError, match=message):
        controls.start().load_state_dict(other.state_dict())
    with pytest.raises(TrainingError, match=r"^the saved control state has no target_rate\.latents$"):
        controls.start().load_state_dict({})
    assert Controls().start().state_dict() == {}


def test_controls_with_a_target_survive_plain_values_before_and_after_resolving() -> None:
    for controls in (CONTROLS, CONTROLS.resolve(REFERENCE)):
        assert Controls.from_dict(json.loads(json.dumps(controls.to_dict()))) == controls
    assert CONTROLS.to_dict()["penalties"][0] == {
        "latent": 3, "tau": 0.2, "form": "indicator", "temperature": 1.0, "target_rate": 0.1,
    }  # fmt: skip


def test_the_command_line_form() -> None:
    assert parse_penalty("48659:tau=3,target_rate=0.1") == Penalty(48659, tau=3.0, target_rate=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5:tau=1", "^penalty on latent 5: alpha is missing$"),
        ("5:tau=1,alpha=1,target_rate=0.1", "alpha and target_rate cannot both be given$"),
        ("5:tau=1,target_rate=0", "target_rate is 0, it must lie between 0 and 1$"),
        ("5:tau=1,target_rate=1", "target_rate is 1, it must lie between 0 and 1$"),
        ("5:tau=1,target_rate=-0.1", "target_rate is -0.1, it must lie between 0 and 1$"),
        ("5:tau=1,target_rate=1.5", "target_rate is 1.5, it must lie between 0 and 1$"),
        ("5:tau=1,target_rate=10%", "target_rate is '10%', input should be a valid number"),
        ("5:tau=1,target_rate=nan", "target_rate is 'nan', input should be a finite number"),
        ("5:tau=1,target_rate=0.1,form=hinge", "target_rate needs the form indicator, not hinge$"),
        ("5:tau=1,target_rate=0.1,form=sigmoid", "target_rate needs the form indicator, not sigmoid$"),
        ("5:tau=1,target=0.1", r"unknown key 'target'; did you mean target_rate\?$"),
    ],
)
def test_bad_text_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_penalty(text)


def test_shaping_asks_for_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="still given as a quantile or in SDs"):
        Controls(penalties=[HELD]).shape(random_scored(0))
    with pytest.raises(ConfigError, match="latent 3: target_rate needs the state of a run") as caught:
        CONTROLS.resolve(REFERENCE).shape(random_scored(0))
    assert "controls.start()" in str(caught.value.hint)
    unresolved = Controls(penalties=[Penalty(3, "q0.9", target_rate=0.1)]).start()
    with pytest.raises(ConfigError, match=r"tau=q0\.9, alpha=None are not numbers yet"):
        unresolved.learn(random_scored(0))
