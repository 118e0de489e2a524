"""Penalties on the residual (oracle by hand, metamorphic in scale), and who has none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.control import (
    Controls,
    Edit,
    Penalty,
    ReferenceStatistics,
    edited_rewards,
    parse_penalty,
    watched_columns,
    watched_name,
)
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.reward_model import RESIDUAL, RewardModel, Scored
from tests.control.batches import attached_from, random_scored, scored_from

HINGE = Penalty("residual", form="hinge", tau="q0.95", alpha="0.5sd")


def answers(seed: int = 0, *, scale: float = 1.0, count: int = 400) -> Scored:
    """Answers whose latents and residual are drawn, under a reward model that is `scale` times another."""
    rng = np.random.default_rng(seed)
    z = rng.exponential(size=(count, 6)) * (rng.random((count, 6)) < 0.5)
    head, residual = rng.normal(size=6), rng.normal(size=count)
    return attached_from(z, scale * residual, head=scale * head, constant=2.0 * scale)


def resolved(scored: Scored, *penalties: Penalty) -> Controls:
    controls = Controls(penalties=penalties)
    return controls.resolve(ReferenceStatistics.from_scored(scored, controls.quantile_latents()))


def test_oracle_a_hinge_takes_half_of_what_exceeds_the_quantile() -> None:
    scored = answers()
    shaped = resolved(scored, HINGE).shape(scored)
    above = np.maximum(scored.residual - np.quantile(scored.residual, 0.95), 0.0)
    np.testing.assert_allclose(shaped.penalties[:, 0], 0.5 * above, atol=1e-9)
    np.testing.assert_allclose(shaped.total, scored.rewards - 0.5 * above, atol=1e-6)
    assert shaped.info["penalty/residual/rate"] == pytest.approx(0.05)
    np.testing.assert_allclose(shaped.columns()["reward/penalty/residual"], -0.5 * above, atol=1e-9)


@pytest.mark.parametrize("form", ["hinge", "indicator"])
def test_metamorphic_twice_the_reward_model_has_twice_the_penalty(form: Any) -> None:
    penalty = Penalty("residual", tau="q0.9", alpha="0.5sd", form=form)
    once, thrice = answers(), answers(scale=3.0)
    one, three = (resolved(scored, penalty).shape(scored).penalties for scored in (once, thrice))
    assert one.max() > 0
    np.testing.assert_allclose(three, 3.0 * one, rtol=1e-5)


def test_an_indicator_takes_its_sds_and_a_target_rate_is_held() -> None:
    scored = answers()
    indicator = Penalty("residual", tau=1.0, alpha="2sd")
    shaped = resolved(scored, indicator).shape(scored)
    sd = scored.rewards.astype(np.float64).std(ddof=1)
    np.testing.assert_allclose(shaped.penalties[:, 0], np.where(scored.residual > 1.0, 2 * sd, 0.0))
    target = resolved(
        scored, Penalty("residual", tau=0.0, target_rate=0.1), Penalty(2, tau=0.0, target_rate=0.9)
    )
    state = target.start()
    state.learn(scored)
    residual, latent = target.alphas(state)
    # half of the residuals are above 0, five times the target; of the latent fewer fire than may
    assert residual > 0
    assert latent == 0.0
    again = target.start()
    again.load_state_dict(state.state_dict())
    assert target.alphas(again) == (residual, latent)
    with pytest.raises(TrainingError, match=r"target rates of latents \[-1, 2\], these controls of \[2\]"):
        resolved(scored, Penalty(2, tau=0.0, target_rate=0.9)).start().load_state_dict(state.state_dict())


def test_edits_leave_residual_and_constant_alone() -> None:
    scored = answers()
    everything = [Edit(latent, set=0.0) for latent in range(6)]
    np.testing.assert_allclose(edited_rewards(scored, everything), scored.residual + 2.0, atol=1e-6)
    controls = resolved(scored, HINGE)
    alone = controls.shape(scored).penalties
    edited = Controls(edits=everything, penalties=controls.penalties).shape(scored)
    # penalties read what was not edited
    np.testing.assert_array_equal(edited.penalties, alone)


def test_columns_stand_in_the_order_asked_for() -> None:
    scored = answers(count=5)
    found = watched_columns(scored, [3, RESIDUAL, 1, 3])
    np.testing.assert_array_equal(found[:, [0, 2, 3]], scored.latents.columns([3, 1, 3]))
    np.testing.assert_array_equal(found[:, 1], scored.residual)
    assert watched_columns(scored, []).shape == (5, 0)
    assert (watched_name(7), watched_name(RESIDUAL)) == ("latent 7", "the residual")


def test_it_is_written_and_read_everywhere(tmp_path: Path) -> None:
    assert parse_penalty("residual:tau=q0.95,alpha=0.5sd,form=hinge") == HINGE
    controls = Controls(penalties=[Penalty(3, tau=1, alpha=2), HINGE])
    assert Controls.from_dict(json.loads(json.dumps(controls.to_dict()))) == controls
    assert controls.latents() == (3,)
    assert controls.quantile_latents() == (RESIDUAL,)
    statistics = ReferenceStatistics.from_scored(answers(), [RESIDUAL, 2])
    statistics.save(tmp_path / "reference.json")
    assert ReferenceStatistics.load(tmp_path / "reference.json") == statistics
    assert list(statistics.latents) == [2, RESIDUAL]
    with pytest.raises(ConfigError, match="hold no values of the residual"):
        ReferenceStatistics.from_scored(answers()).quantile(RESIDUAL, 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Penalty("residue", tau=1, alpha=1),  # type: ignore[arg-type]  # wrong on purpose
            "latent is 'residue', input should be a valid integer",
        ),
        (
            lambda: Penalty(1.5, tau=1, alpha=1),  # type: ignore[arg-type]  # wrong on purpose
            "latent is 1.5, input should be a valid integer",
        ),
        (lambda: Penalty("residual", tau="x", alpha=1), "penalty on the residual: tau is 'x'"),
        (lambda: Penalty("residual", tau=1), "penalty on the residual: alpha is missing"),
        (lambda: parse_penalty("residual:alpha=1"), "penalty on the residual: tau is missing"),
        (
            lambda: parse_penalty("rest:tau=1,alpha=1"),
            "'rest:tau=1,alpha=1' does not begin with a latent number",
        ),
        (
            lambda: Edit("residual", set=0),  # type: ignore[arg-type]  # wrong on purpose
            "latent is 'residual', input should be a valid integer",
        ),
        (
            lambda: Controls(penalties=[HINGE, HINGE]),
            "the residual has two penalties of the form hinge",
        ),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        make()


def test_only_an_attached_dictionary_leaves_a_residual(tiny_sarm: RewardModel) -> None:
    controls = Controls(penalties=[Penalty("residual", tau=0.0, alpha=1.0)])
    with pytest.raises(ConfigError, match="a SARM are its latents' alone, so there is no residual"):
        controls.shape(random_scored(0))
    with pytest.raises(ConfigError, match="has no dictionary, so its whole reward is residual"):
        controls.check(0, kind="classifier")
    with pytest.raises(ConfigError, match="there is no residual"):
        controls.check(tiny_sarm.config.latents, tiny_sarm.fingerprint, tiny_sarm.kind)
    controls.check(48, kind="attached")
    assert scored_from(np.ones((2, 3))).kind == "sarm"
