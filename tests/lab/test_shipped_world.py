"""The world inside the package: that it is what the builder makes of seed 0, and what it says of itself."""

import dataclasses
import json
from itertools import combinations

import numpy as np
import pytest

from sarm_control.discovery.discover import discover
from sarm_control.lab.builder import GATED, WorldConfig, build_world
from sarm_control.lab.study import called, fresh_audit, shipped_audit
from sarm_control.lab.truth import measure_truth
from sarm_control.lab.world import World
from sarm_control.sarm import RewardModel


@pytest.fixture(scope="module")
def world() -> World:
    return World.open("lab")


@pytest.fixture(scope="module")
def model(world: World) -> RewardModel:
    return RewardModel.from_pretrained(world.sarm)


def prompts(world: World, name: str) -> set[str]:
    return {json.loads(line)["prompt"] for line in world.file(name).read_text().splitlines()}


def test_it_was_made_with_the_settings_of_today(world: World):
    made = json.loads((world.path / "world.json").read_text())["manifest"]
    assert made["config"] == json.loads(json.dumps(dataclasses.asdict(WorldConfig(seed=0))))


def test_its_gate_was_passed_on_fresh_pairs(world: World):
    for name in GATED:
        found = world.figures["attributes"][name]
        assert found["best_latent"] >= 0.95
        assert found["answers"] >= 1000
    accuracy = world.figures["pair_accuracy"]
    assert 0.5 < accuracy["annotators"] <= accuracy["ceiling"] < 1


def test_no_two_files_share_a_prompt(world: World):
    names = ("demonstrations", "preferences", "train_prompts", "held_out_prompts", "audit")
    found = {name: prompts(world, name) for name in names}
    assert not [pair for pair in combinations(names, 2) if found[pair[0]] & found[pair[1]]]
    assert prompts(world, "human") <= found["demonstrations"]


def test_the_planted_truth_is_found_again_on_other_pairs(world: World, model: RewardModel):
    world.truth.check(model.fingerprint)
    again = measure_truth(model, world.fresh_writer().gold_pairs(1500, "truth again", keep=False))
    errors = np.hypot(again.error, world.truth.error)
    moved = np.abs(again.effect - world.truth.effect)[errors > 0] / errors[errors > 0]
    assert np.quantile(moved, 0.9) < 3
    assert moved.max() < 5


def test_discovery_on_the_shipped_audit_set_finds_the_harming_latents(world: World, model: RewardModel):
    found = called(discover(shipped_audit(world, model)), world.truth)
    assert found.recall is not None
    assert found.recall >= 0.8
    assert found.precision == 1.0


def test_a_fresh_audit_set_has_prompts_of_no_file(world: World, model: RewardModel, tmp_path):
    fresh = fresh_audit(world, model, 3, tmp_path)
    assert len(fresh.rows) == 600
    known = set().union(*(prompts(world, name) for name in ("demonstrations", "preferences", "audit")))
    assert not known & {row.prompt_key for row in fresh.rows}


@pytest.mark.minutes
def test_the_builder_makes_it_again(world: World, tmp_path):
    """Another processor rounds differently and may take another autoencoder: figures, not bytes."""
    figures = build_world(tmp_path / "again", WorldConfig(seed=0))
    for name in GATED:
        before, now = (one["attributes"][name] for one in (world.figures, figures))
        assert now["best_latent"] == pytest.approx(before["best_latent"], abs=0.03)
        assert now["probe"] == pytest.approx(before["probe"], abs=0.02)
    for name in ("annotators", "ceiling", "gold"):
        before, now = (one["pair_accuracy"][name] for one in (world.figures, figures))
        assert now == pytest.approx(before, abs=0.03)
    for name in ("demonstrations", "human", "preferences", "audit"):
        again = World.open(tmp_path / "again").file(name)
        assert again.read_bytes() == world.file(name).read_bytes()
