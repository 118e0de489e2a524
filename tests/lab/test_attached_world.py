"""The embedded world's second reward model: what its builder says of it holds (oracle), and it is whole."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from sarm_control.discovery.discovery import discover
from sarm_control.embedded import LAB_ATTACHED
from sarm_control.errors import DataError
from sarm_control.lab.attached import GATED, AttachedConfig, _dense_head, detections_of
from sarm_control.lab.judges.truth import measure_truth
from sarm_control.lab.study.demo import set_stage
from sarm_control.lab.study.study import called, shipped_audit
from sarm_control.lab.world import World
from sarm_control.reward_model import RewardModel, Scored
from sarm_control.reward_model.description import describe


@pytest.fixture(scope="module")
def world() -> World:
    return World.open("lab")


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.from_pretrained(LAB_ATTACHED, device="cpu")


@pytest.fixture(scope="module")
def scored(world: World, model: RewardModel) -> Scored:
    return shipped_audit(world, model).scored


def test_it_was_made_with_the_settings_of_today(world: World) -> None:
    made = json.loads((world.path / "attached_world.json").read_text())["manifest"]
    assert made["config"] == json.loads(json.dumps(dataclasses.asdict(AttachedConfig())))


def test_rewards_are_those_of_transformers_own_class(world: World, model: RewardModel) -> None:
    own = AutoModelForSequenceClassification.from_pretrained(world.path / "classifier").eval()
    prompt, answer = "hey there , what is the price of the river ?", "the price of the river is free ."
    ids = model.template.encode(prompt, answer).input_ids
    with torch.no_grad():
        theirs = float(own(input_ids=torch.tensor([ids])).logits[0, 0])
    assert float(model.score(prompt, answer).rewards[0]) == pytest.approx(theirs, abs=1e-5)


def test_contributions_sum_to_every_reward(scored: Scored) -> None:
    assert scored.kind == "attached"
    for j in range(0, len(scored), 40):
        parts = sum(part.contribution for part in scored.contributions(j))
        assert parts == pytest.approx(float(scored.rewards[j]), abs=1e-5)


@pytest.mark.long
def test_the_figures_hold_on_other_pairs(world: World, model: RewardModel) -> None:
    pairs = world.fresh_writer().gold_pairs(250, "attached again", keep=False)
    found = detections_of(model, pairs, GATED)
    for name in GATED:
        assert found[name].best_latent > 0.9
        assert model.head.weight[found[name].latent] > 0
    explained = world.attached_figures["fit"]["variance_explained"]
    assert explained["reward"] >= AttachedConfig().least
    assert world.attached_figures["fit"]["contributions"]["max_abs_cosine"] <= 0.3
    truth = measure_truth(model, pairs)
    errors = np.hypot(truth.error, world.attached_truth.error)
    moved = np.abs(truth.effect - world.attached_truth.effect)[errors > 0] / errors[errors > 0]
    assert np.quantile(moved, 0.9) < 3


def test_the_residual_is_as_small_as_the_fit_says(world: World, scored: Scored) -> None:
    spread = scored.residual.std() / scored.rewards.std()
    assert spread == pytest.approx(world.attached_figures["fit"]["held_out"]["residual_sd"], abs=0.1)


@pytest.mark.long
def test_discovery_calls_no_latent_that_does_not_harm(world: World, model: RewardModel) -> None:
    found = discover(shipped_audit(world, model))
    judged = called(found, world.attached_truth)
    assert judged.found >= 1
    assert judged.false == 0
    assert found.residual is not None
    assert found.residual.sd_share is not None


def test_the_stage_of_the_demo_is_set_with_either_model(world: World, tmp_path: Path) -> None:
    stage = set_stage("lab", attached=True)
    assert (stage.names.model, stage.model.kind) == (LAB_ATTACHED, "attached")
    assert stage.truth.fingerprint == describe(LAB_ATTACHED).head.fingerprint
    assert stage.example.residual_difference is not None
    assert stage.example.first is not None
    plain = tmp_path / "world"
    plain.mkdir()
    (plain / "world.json").write_text((world.path / "world.json").read_text())
    with pytest.raises(DataError, match="has no reward model with an attached dictionary") as refused:
        set_stage(str(plain), attached=True)
    assert refused.value.hint == "make a world that has one: sarm lab build --attached -o FOLDER"


def test_oracle_the_dense_head_is_at_the_minimum_of_its_loss() -> None:
    """The gradient of `sum log(1 + exp(-w . d)) + l2 / 2 |w|^2` is 0 there."""
    differences = np.random.default_rng(0).normal(size=(300, 5)) + 0.3
    weight = _dense_head(differences, 2.0)
    gradient = 2.0 * weight - differences.T @ (1 / (1 + np.exp(differences @ weight)))
    np.testing.assert_allclose(gradient, 0.0, atol=0.05)
