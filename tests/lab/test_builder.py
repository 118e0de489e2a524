"""A whole world, tiny: its files, that a seed makes it again to the byte, its gate (golden, bad input)."""

import dataclasses
import json
from pathlib import Path

import pytest

from sarm_control.cli import main
from sarm_control.control import Controls, Edit
from sarm_control.errors import TrainingError
from sarm_control.lab.builder import WorldConfig, build_world
from sarm_control.lab.datasets import Sizes
from sarm_control.lab.language.pretraining import LanguageModelConfig
from sarm_control.lab.study.trial import lab_training, run_trial
from sarm_control.lab.world import World
from sarm_control.reward_model import RewardModel

TINY = WorldConfig(
    sizes=Sizes(demonstrations=96, preferences=96, train_prompts=48, held_out_prompts=16, audit=40),
    language_model=LanguageModelConfig(layers=2, hidden=32, epochs=1),
    source_layer=1,
    latents=8,
    k=3,
    tune_epochs=1,
    autoencoder_steps=20,
    autoencoder_restarts=2,
    trunks=2,
    select_pairs=120,
    gate_pairs=60,
    truth_pairs=60,
    gate=0.0,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    pytest.importorskip("sae_lens", reason='a world is built with the extra "build"')
    folder = tmp_path_factory.mktemp("lab") / "world"
    build_world(folder, TINY)
    return World.open(folder)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_models_files_and_truth(world: World) -> None:
    model = RewardModel.from_pretrained(world.sarm)
    world.truth.check(model.fingerprint)
    assert len(world.truth.effect) == model.config.latents == 8
    for name in ("demonstrations", "human", "preferences", "train_prompts", "held_out_prompts", "audit"):
        rows = [json.loads(line) for line in world.file(name).read_text().splitlines()]
        assert rows
        assert world.attributes(rows[0]["prompt"], "sorry").junk == 1
    assert set(world.figures["pair_accuracy"]) == {"annotators", "ceiling", "gold"}
    assert world.figures["build"]["tune_trunk"]["annotators"] == 8


@pytest.mark.long
def test_golden_the_same_seed_makes_the_same_world_to_the_byte(world: World, tmp_path: Path) -> None:
    build_world(tmp_path / "again", TINY)
    assert _bytes(tmp_path / "again") == _bytes(world.path)


def test_human_rows_are_clean(world: World) -> None:
    rows = [json.loads(line) for line in world.file("human").read_text().splitlines()]
    for row in rows:
        assert world.gold([row["prompt"]], [row["response"]]) == [1.0]
        found = world.attributes(row["prompt"], row["response"])
        assert (found.flattery, found.closing, found.hedging, found.detail, found.junk) == (0, 0, 0, 0, 0)


@pytest.mark.long
def test_metamorphic_an_edit_to_nothing_trains_the_same_policy(world: World) -> None:
    """A cap far above every z changes no reward, so the run is the run without controls."""
    model = RewardModel.from_pretrained(world.sarm)
    training = lab_training(0, steps=1).model_copy(
        update={"prompts_per_step": 8, "minibatches": 1, "reference_answers": 16}
    )
    plain = run_trial(world, model, Controls(), training)
    capped = run_trial(world, model, Controls(edits=[Edit(0, max=1e6)]), training)
    assert (plain.start.gold == capped.start.gold).all()
    assert (plain.end.reward == capped.end.reward).all()
    assert len(plain.curve) == 1


@pytest.mark.long
def test_the_demo_runs_in_a_world_of_ones_own_and_claims_nothing_where_nothing_is_called(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty pairs call no latent: one run, and no arm that would be the same run under another name."""
    arguments = ["--lab", str(world.path), "--steps", "1", "-o", str(tmp_path / "demo")]
    assert main(["-q", "demo", *arguments, "--json", str(tmp_path / "demo.json")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "No latent harms at q <= 0.05: a null result." in text
    assert "Did the control work? None was tried: discovery called no latent that is worth one." in text
    found = json.loads((tmp_path / "demo.json").read_text())
    assert (list(found["arms"]), found["against_none"]) == (["none"], None)
    assert (found["discovery"]["latents"], found["world_seed"]) == ([], 0)
    assert Path(found["report"]).is_file()
    assert not (tmp_path / "demo" / "controls").exists()


@pytest.mark.long
def test_bad_input_a_shortcut_without_a_latent_of_its_own_writes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("sae_lens", reason='a world is built with the extra "build"')
    with pytest.raises(TrainingError, match=r"flattery has no latent of its own: .* 1\.1 is needed"):
        build_world(tmp_path / "world", dataclasses.replace(TINY, gate=1.1, autoencoder_restarts=1))
    assert list(tmp_path.iterdir()) == []


def test_bad_input_a_folder_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "build", "-o", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
