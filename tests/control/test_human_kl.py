"""The human-KL term in a loop: it scores before it learns, restores exactly, and says when it saturates."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kl_laws import Law, five
from safetensors.numpy import load, save

from sarm_control.control import Controls, ControlState, HumanKL
from sarm_control.errors import ConfigError, DataError, ModelError, TrainingError
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model.scored import Scored
from sarm_control.training.run.jsonl import format_row
from tests.control.batches import laws_with_kl, scored_from
from tests.present import present

WIDTH = 8
CONTROLS = Controls(human_kl=HumanKL(beta=0.5, latents=tuple(range(WIDTH))))


def batches(kl: float, n: int = 256, count: int = 3, seed: int = 5) -> tuple[HumanBuffer, list[Scored]]:
    rng = np.random.default_rng(seed)
    policy, human = laws_with_kl(kl, WIDTH, rng)
    buffer = HumanBuffer(tuple(range(WIDTH)), human.draw(1000, rng), "head-a")
    return buffer, [scored_from(policy.draw(n, rng)) for _ in range(count)]


def learnt(kl: float, controls: Controls = CONTROLS) -> tuple[ControlState, list[Scored]]:
    buffer, drawn = batches(kl)
    state = controls.start(buffer, seed=1)
    for batch in drawn[:-1]:
        state.learn(batch)
    return state, drawn


def test_before_anything_is_learnt_the_log_ratio_is_exactly_zero() -> None:
    buffer, drawn = batches(1.0)
    shaped = CONTROLS.shape(drawn[0], CONTROLS.start(buffer))
    np.testing.assert_array_equal(shaped.human_kl, 0.0)
    np.testing.assert_array_equal(shaped.total, drawn[0].rewards.astype(np.float64))
    assert shaped.info["human_kl/fitted"] == 0.0


def test_it_scores_a_batch_before_it_learns_from_it() -> None:
    state, drawn = learnt(1.0)
    before = CONTROLS.shape(drawn[-1], state)
    again = CONTROLS.shape(drawn[-1], state)
    np.testing.assert_array_equal(present(before.log_ratio), present(again.log_ratio))
    state.learn(drawn[-1])
    assert not np.array_equal(present(CONTROLS.shape(drawn[-1], state).log_ratio), present(before.log_ratio))


@pytest.mark.parametrize("kl", [0.25, 1.0])
def test_oracle_the_divergence_is_estimated(kl: float) -> None:
    state, drawn = learnt(kl)
    shaped = CONTROLS.shape(drawn[-1], state)
    assert shaped.info["human_kl/kl"] == pytest.approx(kl, abs=0.2)
    assert shaped.info["human_kl/kl_low"] <= kl <= shaped.info["human_kl/kl_high"]
    assert shaped.info["human_kl/mean_log_ratio"] == pytest.approx(float(present(shaped.log_ratio).mean()))
    np.testing.assert_allclose(present(shaped.human_kl), 0.5 * present(shaped.log_ratio))
    assert shaped.info["human_kl/auc"] == pytest.approx(shaped.info["human_kl/accuracy"], abs=0.15)
    assert shaped.info["human_kl/saturated"] == 0.0
    assert 0.5 < shaped.info["human_kl/accuracy"] < 0.9


def test_few_rows_are_shrunk_towards_no_charge() -> None:
    """8 answers say little about one answer; 512 say more."""
    slopes = []
    for rows in (8, 512):
        buffer, drawn = batches(0.3, n=rows, count=6)
        state = CONTROLS.start(buffer)
        for batch in drawn[:-1]:
            state.learn(batch)
        slopes.append(CONTROLS.shape(drawn[-1], state).info["human_kl/slope"])
    assert slopes[0] < slopes[1] <= 1


def test_the_closed_form_estimator_charges_distance_from_the_human_mean() -> None:
    rng = np.random.default_rng(2)
    human, policy = rng.normal(3, 1, (2000, 4)), rng.normal(3.4, 1, (500, 4))
    controls = Controls(human_kl=HumanKL(1.0, estimator="mahalanobis"))
    state = controls.start(HumanBuffer((0, 1, 2, 3), human.astype(np.float32), "head-a"))
    for _ in range(3):
        state.learn(scored_from(policy))
    info = controls.shape(scored_from(policy), state).info
    expected = 0.5 * 4 * 0.4**2
    assert info["human_kl/kl"] == pytest.approx(expected, rel=0.25)
    assert info["human_kl/mahalanobis"] == pytest.approx(expected, rel=0.25)


def test_batch_mode_charges_every_answer_what_is_logged() -> None:
    batch_mode = Controls(human_kl=HumanKL(0.5, tuple(range(WIDTH)), mode="batch"))
    state, drawn = learnt(1.0, batch_mode)
    shaped = batch_mode.shape(drawn[-1], state)
    np.testing.assert_array_equal(shaped.human_kl, 0.5 * shaped.info["human_kl/kl"])
    np.testing.assert_array_equal(shaped.columns()["reward/human_kl"], -0.5 * shaped.info["human_kl/kl"])
    assert shaped.info["human_kl/kl"] != pytest.approx(float(present(shaped.log_ratio).mean()), rel=1e-3)
    assert np.ptp(present(shaped.log_ratio)) > 1


def test_batch_mode_charges_nothing_before_anything_is_learnt() -> None:
    batch_mode = Controls(human_kl=HumanKL(0.5, mode="batch"))
    buffer, drawn = batches(1.0)
    np.testing.assert_array_equal(batch_mode.shape(drawn[0], batch_mode.start(buffer)).human_kl, 0.0)


def followed(law: Law, steps: int = 20, rows: int = 64) -> tuple[ControlState, list[dict[str, float]]]:
    """The term's metrics along a run whose policy stays where it is."""
    rng = np.random.default_rng(8)
    buffer = HumanBuffer(tuple(range(law.width)), law.draw(1024, False, rng), "head-a")
    state, found = Controls(human_kl=HumanKL(1.0)).start(buffer, 8), []
    assert state.discriminator is not None
    for _ in range(steps):
        batch = scored_from(law.draw(rows, True, rng))
        found.append(state.discriminator.score(batch).info)
        state.learn(batch)
    return state, found


@pytest.mark.long
@pytest.mark.parametrize("law", five(), ids=lambda law: law.name)
def test_oracle_a_run_says_when_its_log_ratio_is_not_linear(law: Law) -> None:
    _, found = followed(law)
    assert np.isnan(found[0]["human_kl/model_fits"])
    for info in found[9:]:
        assert info["human_kl/model_fits"] == 0.0
        assert info["human_kl/kl_high"] == np.inf
        assert 0 <= info["human_kl/kl_low"] <= info["human_kl/kl"] <= law.kl


def test_oracle_a_run_whose_log_ratio_is_linear_says_that_it_fits() -> None:
    rng = np.random.default_rng(9)
    policy, human = laws_with_kl(0.8, WIDTH, rng)
    state = CONTROLS.start(HumanBuffer(tuple(range(WIDTH)), human.draw(1000, rng), "head-a"))
    found = []
    for _ in range(20):
        batch = scored_from(policy.draw(64, rng))
        found.append(CONTROLS.shape(batch, state).info)
        state.learn(batch)
    assert [info["human_kl/model_fits"] for info in found[9:]] == [1.0] * 11
    assert all(info["human_kl/kl_high"] < np.inf for info in found[9:])
    assert format_row({"human_kl/model_fits": found[0]["human_kl/model_fits"]}).endswith("null}")


@pytest.mark.long
def test_a_restored_state_knows_whether_the_model_fits_and_when_to_look_again() -> None:
    state, _ = followed(five()[0], steps=12)
    restored = Controls(human_kl=HumanKL(1.0)).start(present(state.discriminator).human, 8)
    arrays = load(save(state.state_dict()))
    restored.load_state_dict(arrays)
    assert arrays["human_kl.check"].tolist() == [0, 3]
    for name, array in restored.state_dict().items():
        np.testing.assert_array_equal(array, arrays[name])
    before = {name: array for name, array in arrays.items() if name != "human_kl.check"}
    restored.load_state_dict(before)
    assert restored.state_dict()["human_kl.check"].tolist() == [-1, 0]


def test_samples_that_are_nearly_told_apart_are_flagged_and_clipped() -> None:
    buffer, _ = batches(1.0)
    far = [scored_from(np.full((64, WIDTH), 20.0) + np.arange(64)[:, None] * 0.1) for _ in range(2)]
    controls = Controls(human_kl=HumanKL(beta=0.5, clip=1.0))
    state = controls.start(buffer)
    state.learn(far[0])
    info = controls.shape(far[1], state).info
    assert info["human_kl/saturated"] == 1.0
    assert info["human_kl/kl_high"] == np.inf
    assert info["human_kl/logit_max"] > 5
    assert info["human_kl/clipped_share"] > 0
    assert info["human_kl/mean_log_ratio"] <= 1


@pytest.mark.long
@pytest.mark.parametrize("kl", [8.0, 12.0])
def test_a_run_too_far_away_reports_at_most_the_truth(kl: float) -> None:
    """Batches of 32 from Gaussians in 10 dimensions, as in the benchmark but other seeds."""
    shift = np.full(10, np.sqrt(2 * kl / 10))
    for seed in range(100, 106):
        rng = np.random.default_rng(seed)
        human = HumanBuffer(tuple(range(10)), rng.normal(size=(1024, 10)).astype(np.float32), "head-a")
        state, found = Controls(human_kl=HumanKL(1.0)).start(human, seed), []
        assert state.discriminator is not None
        for _ in range(14):
            batch = scored_from(rng.normal(size=(32, 10)) + shift)
            found.append(state.discriminator.score(batch).info)
            state.learn(batch)
        for info in found[1:]:
            assert info["human_kl/saturated"] == 1.0
            assert info["human_kl/kl_low"] <= info["human_kl/kl"] <= kl
            assert info["human_kl/kl_high"] == np.inf
        assert found[-1]["human_kl/kl"] > 3


def test_what_is_open_above_is_null_in_the_metrics() -> None:
    assert format_row({"human_kl/kl_high": np.inf}) == '{"human_kl/kl_high": null}'


def test_a_step_larger_than_the_buffer_is_refused() -> None:
    buffer, _ = batches(1.0)
    state = CONTROLS.start(buffer)
    state.check_size(len(buffer))
    with pytest.raises(DataError, match="the human buffer has 1000 demonstrations, a step has 1001 answers"):
        state.check_size(1001)
    ControlState().check_size(1001)


def test_firing_a_latent_no_human_fires_is_charged_and_reported() -> None:
    rng = np.random.default_rng(0)
    human, policy = (rng.random((2, 400, 3)) < 0.5).astype(np.float32)
    human[:, 2] = 0
    controls = Controls(human_kl=HumanKL(1.0))
    state = controls.start(HumanBuffer((0, 1, 2), human, "head-a"))
    state.learn(scored_from(policy))
    shaped = controls.shape(scored_from(policy), state)
    novel = policy[:, 2] > 0
    assert shaped.human_kl[novel].mean() > shaped.human_kl[~novel].mean() + 2
    assert shaped.info["human_kl/unseen_share"] == pytest.approx(novel.mean())


def test_metamorphic_other_rows_and_order_do_not_change_a_row() -> None:
    state, drawn = learnt(1.0)
    whole = CONTROLS.shape(drawn[-1], state)
    order = np.random.default_rng(0).permutation(len(whole))[:40]
    part = CONTROLS.shape(drawn[-1].take(order), state)
    np.testing.assert_allclose(part.total, whole.total[order], atol=1e-12)


def test_metamorphic_a_restored_state_goes_on_exactly() -> None:
    buffer, drawn = batches(1.0, count=4)
    controls = Controls(human_kl=HumanKL(0.5, replay=2))
    state = controls.start(buffer, seed=1)
    state.learn(drawn[0])
    state.learn(drawn[1])
    restored = controls.start(buffer, seed=1)
    restored.load_state_dict(load(save(state.state_dict())))
    for batch in drawn[2:]:
        ours, theirs = controls.shape(batch, state), controls.shape(batch, restored)
        np.testing.assert_array_equal(ours.total, theirs.total)
        assert ours.info == theirs.info
        state.learn(batch)
        restored.learn(batch)


def test_an_unfitted_state_saves_and_loads() -> None:
    buffer, drawn = batches(1.0)
    state = CONTROLS.start(buffer)
    state.load_state_dict(load(save(CONTROLS.start(buffer).state_dict())))
    assert CONTROLS.shape(drawn[0], state).info["human_kl/fitted"] == 0.0


def test_old_batches_leave_the_replay_window() -> None:
    buffer, drawn = batches(1.0)
    controls = Controls(human_kl=HumanKL(0.5, replay=1))
    long, short = controls.start(buffer), controls.start(buffer)
    long.learn(drawn[0])
    long.learn(drawn[1])
    short.learn(drawn[1])
    ours, theirs = (controls.shape(drawn[2], state).info for state in (long, short))
    for end in ("human_kl/logit_min", "human_kl/logit_max"):
        assert ours[end] == pytest.approx(theirs[end], abs=1e-3)


def test_bad_input_is_named() -> None:
    buffer, drawn = batches(1.0)
    with pytest.raises(ConfigError, match="human_kl needs human demonstrations"):
        CONTROLS.start()
    with pytest.raises(ConfigError, match="human_kl needs the state of a run"):
        CONTROLS.shape(drawn[0])
    with pytest.raises(ConfigError, match="the human buffer holds 8 latents, not the 2 asked for"):
        Controls(human_kl=HumanKL(0.1, (0, 1))).start(buffer)
    other_head = scored_from(np.ones((2, WIDTH)), fingerprint="head-b")
    with pytest.raises(ModelError, match="made with head head-a, this reward model has head-b"):
        CONTROLS.shape(other_head, CONTROLS.start(buffer))
    known = HumanBuffer(buffer.latents, buffer.values, "head-a", "m1")
    with pytest.raises(ModelError, match="made with model m1, this reward model is m2: the heads are equal"):
        CONTROLS.shape(replace(drawn[0], model_fingerprint="m2"), CONTROLS.start(known))
    with pytest.raises(DataError, match="the batch has a latent that is NaN or infinite in row 1"):
        CONTROLS.start(buffer).learn(scored_from(np.array([[1.0] * WIDTH, [np.nan] * WIDTH])))


def test_a_state_of_another_run_is_refused() -> None:
    buffer, other = batches(1.0)[0], batches(1.0, seed=6)[0]
    for one, two in ((buffer, other), (other, buffer)):
        with pytest.raises(TrainingError, match="belongs to another human buffer"):
            CONTROLS.start(one).load_state_dict(CONTROLS.start(two).state_dict())
    with pytest.raises(TrainingError, match=r"has no human_kl.parameters"):
        CONTROLS.start(buffer).load_state_dict({})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"beta": -1}, "^human_kl: beta is -1, it must be >= 0$"),
        ({"beta": "0.1s"}, "human_kl: beta is '0.1s', it must be a number or a number of SDs"),
        ({"beta": 1, "latents": (3, 3)}, "human_kl: a latent is named twice"),
        ({"beta": 1, "latents": (-3,)}, "human_kl: latent is -3, it must be >= 0"),
        ({"beta": 1, "clip": 0}, "human_kl: clip is 0, it must be > 0"),
        ({"beta": 1, "clip": -1}, "human_kl: clip is -1, it must be > 0"),
        ({"beta": 1, "l2": 0}, "human_kl: l2 is 0, it must be > 0"),
        ({"beta": 1, "replay": 0}, "human_kl: replay is 0, it must be > 0"),
        ({"beta": 1, "half_life": 0}, "human_kl: half_life is 0, it must be > 0"),
        ({"beta": 1, "estimator": "mlp"}, "human_kl: estimator is 'mlp'"),
        ({"beta": 1, "latents": tuple(range(1025))}, "1025 latents, at most 1024"),
        ({"beta": 1, "latents": (1, "x")}, r"human_kl: latents\[1\] is 'x', "),
        ({"beta": 1, "bata": 1}, r"human_kl: unknown key 'bata'; did you mean beta\?"),
        ({"beta": 1, "mode": "token"}, "human_kl: mode is 'token'"),
        ({}, "human_kl: beta is missing"),
    ],
)
def test_bad_settings_say_what_is_wrong(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HumanKL(**keys)


def test_golden_the_settings_that_a_run_has_when_none_are_given() -> None:
    plain = HumanKL(0)
    assert (plain.latents, plain.mode, plain.estimator) == ((), "per_sample", "logistic")
    assert (plain.l2, plain.clip, plain.replay, plain.half_life) == (1e-3, 10.0, 32, 8.0)
    assert len(HumanKL(1, tuple(range(1024))).latents) == 1024
