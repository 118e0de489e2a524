"""The embedded world by name: golden (names), metamorphic (by name = by folder), bad input.

These tests need the world's files and fail without them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sarm_control import embedded
from sarm_control.build.states.source import cut_base
from sarm_control.comparison.compare import check_same_base
from sarm_control.comparison.trained_run import TrainedRun
from sarm_control.data.rows import read_rows
from sarm_control.embedded import DATA, LAB, data_file, model_folder, world_folder
from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.files import manifest, named_inputs, sha256_file
from sarm_control.lab.study.trial import lab_training
from sarm_control.lab.world import World
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.files.checkpoint import find_folder
from sarm_control.training.config.run_config import PolicyConfig, RewardConfig, RunConfig
from sarm_control.training.config.validation import load_config
from sarm_control.training.policy.policy import Policy
from sarm_control.training.run.dry_run import check_models

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def lab(no_network: None) -> RewardModel:  # noqa: ARG001 - nothing is asked while it loads
    """The embedded SARM, loaded without a network."""
    return RewardModel.from_pretrained(LAB)


@pytest.fixture
def beside_a_lab(tmp_path: Path, tiny_sarm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that has a SARM of its own called `lab`."""
    shutil.copytree(tiny_sarm_folder, tmp_path / "lab")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lab"


def test_the_readme_s_first_lines_work(lab: RewardModel) -> None:
    scored = lab.score("how do i bake a cake ?", "first mix the flour .")
    assert scored.rewards.shape == (1,)
    assert sum(part.contribution for part in scored.contributions(0)) == pytest.approx(
        float(scored.rewards[0]), abs=1e-5
    )


def test_metamorphic_by_name_and_by_folder_are_one_model(lab: RewardModel) -> None:
    rows = read_rows("lab:audit", want={"pair"})[:40]
    prompts, answers = [row.prompt for row in rows], [row.chosen[0] for row in rows]
    by_folder = RewardModel.from_pretrained(world_folder() / "sarm")
    assert (lab.score(prompts, answers).rewards == by_folder.score(prompts, answers).rewards).all()
    assert lab.score(prompts, answers).rewards.std() > 0


def test_the_world_by_name_is_the_one_its_parts_came_from(lab: RewardModel) -> None:
    world = World.open(LAB)
    world.truth.check(lab.fingerprint)
    assert world.path == world_folder()
    for name in DATA:
        assert world.file(name) == data_file(Path(f"lab:{name}"))
        rows = read_rows(f"lab:{name}", want={"prompt"})
        assert str(rows[0].where) == f"lab:{name}:1"
        assert world.gold([row.prompt_key for row in rows[:20]], [""] * len(rows[:20])).shape == (
            len(rows[:20]),
        )


def test_prompts_to_compare_on_are_not_trained_on() -> None:
    keys = {
        name: {row.prompt_key for row in read_rows(f"lab:{name}", want={"prompt"})}
        for name in ("train_prompts", "held_out_prompts", "audit")
    }
    assert not keys["train_prompts"] & keys["held_out_prompts"]
    assert not keys["train_prompts"] & keys["audit"]


def test_golden_where_names_lead() -> None:
    assert model_folder("lab", "sarm") == world_folder() / "sarm"
    assert model_folder("lab", "policy") == world_folder() / "policy"
    for other in ("./lab", "lab/", "labs", "Lab", "org/lab", "lab:audit", ""):
        assert model_folder(other, "sarm") is None
    for place in ("audit.jsonl", "data/lab:audit", "lab:x/audit.jsonl", "/tmp/lab:audit", "lab", "Lab:audit"):
        assert data_file(Path(place)) == Path(place)
    for path in (embedded.AUDIT, embedded.TRAIN_PROMPTS, embedded.HELD_OUT_PROMPTS):
        assert data_file(path).is_file()


def test_a_folder_called_lab_is_written_with_its_dot(beside_a_lab: Path) -> None:
    assert find_folder("lab") == world_folder() / "sarm"
    for written in ("./lab", str(beside_a_lab), Path("lab"), beside_a_lab):
        assert find_folder(written).resolve() == beside_a_lab
    assert RewardModel.from_pretrained("./lab").config.latents == 64
    with pytest.raises(DataError, match=r"^lab holds no world$"):
        World.open("./lab")
    with pytest.raises(DataError, match=r"^lab holds no world$"):
        World.open(Path("lab"))


def test_a_run_is_checked_against_the_model_its_name_means(beside_a_lab: Path) -> None:
    assert beside_a_lab.is_dir()
    check_models(PolicyConfig(), RewardConfig.model_validate({"model": "./lab", "edits": ["63=0"]}))
    with pytest.raises(ConfigError, match=r"latent 63 does not exist: this reward model has \d+ latents"):
        check_models(PolicyConfig(), RewardConfig.model_validate({"model": LAB, "edits": ["63=0"]}))


def test_the_embedded_policy_and_a_folder_of_that_name_are_two_bases(beside_a_lab: Path) -> None:
    def run(name: str, model: str) -> TrainedRun:
        values = {"policy": {"model": model}, "data": {"prompts": "p.jsonl"}}
        unread: Any = None  # only the settings are compared
        return TrainedRun(Path(name), RunConfig.model_validate(values), "no control", unread, unread)

    check_same_base([run("a", "lab"), run("b", "lab")])
    check_same_base([run("a", "./lab"), run("b", str(beside_a_lab))])
    with pytest.raises(ConfigError, match=r"b trained \./lab, a trained lab"):
        check_same_base([run("a", "lab"), run("b", "./lab")])


def test_a_policy_and_a_trunk_by_name(tmp_path: Path) -> None:
    policy = Policy.load(PolicyConfig(model=LAB), device="cpu")
    policy.save_adapter(tmp_path / "adapter")
    policy.save(tmp_path / "policy")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == LAB
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert str(world_folder()).encode() not in path.read_bytes(), path.name
    parts = cut_base(LAB, 1, device="cpu")
    assert len(parts.trunk.layers) == 1
    with pytest.raises(ModelError, match=r"^lab has \d layers"):
        cut_base(LAB, 99, device="cpu")


def test_manifests_name_the_file_and_no_place(tmp_path: Path) -> None:
    (tmp_path / "lab:audit").write_text("another\n")
    (tmp_path / "audit.jsonl").write_text("a third\n")
    inputs = [embedded.AUDIT, tmp_path / "audit.jsonl", tmp_path / "lab:audit", embedded.AUDIT]
    record = manifest("score", inputs=inputs, config={})
    assert record["inputs"]["lab:audit"] == sha256_file(world_folder() / "audit.jsonl")
    assert len(record["inputs"]) == len(named_inputs(inputs)) == 3
    assert str(world_folder()) not in json.dumps(record)


def test_a_name_the_world_does_not_have(tmp_path: Path) -> None:
    for wrong in ("lab:audti", "lab:", "lab:truth"):
        with pytest.raises(DataError, match=rf"^{wrong}: the embedded world has no such file$") as caught:
            read_rows(wrong, want={"prompt"})
        assert caught.value.hint is not None
        assert all(f"lab:{name}" in caught.value.hint for name in DATA)
    with pytest.raises(DataError, match="no such file"):
        manifest("score", inputs=[Path("lab:audti")], config={})
    with pytest.raises(DataError, match=r"/lab:audti: No such file"):
        read_rows(tmp_path / "lab:audti", want={"prompt"})


def test_a_build_that_left_the_world_out_says_so(tmp_path: Path) -> None:
    package = tmp_path / "sarm_control"
    package.mkdir()
    source = Path(embedded.__file__).parent
    for name in ("errors.py", "embedded.py"):
        shutil.copy(source / name, package / name)
    (package / "__init__.py").write_text("")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom sarm_control.embedded import data_file, model_folder\n"
        "from sarm_control.errors import ModelError\n"
        "for ask in (lambda: model_folder('lab', 'sarm'), lambda: data_file(Path('lab:audit'))):\n"
        "    try:\n        ask()\n    except ModelError as error:\n        print(error, '|', error.hint)\n"
        "assert model_folder('other', 'sarm') is None\n"
    )
    command = [sys.executable, "-I", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = (
        "lab: this installation of sarm-control lacks the embedded world"
        " | install it again, or give a folder that sarm lab build made\n"
    )
    assert done.stdout == line * 2


def test_golden_the_example_has_the_settings_of_every_run_in_a_world() -> None:
    config = load_config(ROOT / "examples" / "lab_plain.yaml")
    assert config.training == lab_training(0)
    assert config == RunConfig(policy=PolicyConfig(lora=None), training=lab_training(0))


def test_the_other_example_has_every_control_on_and_trains_alike() -> None:
    config, plain = (load_config(ROOT / "examples" / name) for name in ("lab.yaml", "lab_plain.yaml"))
    assert config.training == plain.training
    assert config.reward.edits
    assert config.reward.human_kl is not None
    fixed, held = config.reward.penalties
    assert fixed.alpha is not None
    assert held.target_rate is not None
    assert 0 < config.checkpoints.every < 12
    assert 0 < config.evaluation.every < 12
