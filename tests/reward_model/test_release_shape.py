"""Golden and metamorphic: the released layout goes through every command that reads it."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sarm_control.cli import main
from sarm_control.latents import read_latents
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.description import describe, read_model_fingerprint
from sarm_control.reward_model.files.config import read_config
from sarm_control.reward_model.trunk.trunk import trunk_config
from tests.reward_model import release_shape

PAIRS = [
    {"prompt": "how do i cook bread ?", "chosen": "sure , steps one two .", "rejected": "no"},
    {"prompt": "why ?", "chosen": "because this is good .", "rejected": "never , you bomb"},
]


@pytest.fixture(params=["newer", "older", "folder name"])
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The three spellings of one checkpoint."""
    if request.param == "folder name":
        return release_shape.write(tmp_path / release_shape.FOLDER_NAME / "checkpoint-150", None)
    spelling = release_shape.NEWER if request.param == "newer" else release_shape.OLDER
    return release_shape.write(tmp_path / "release", spelling)


@pytest.fixture(params=["reference_topk", "reference_dense"])
def reference(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return file


def check_commands(folder: Path, data: Path, out: Path) -> None:
    """Latents on disk hold what scoring gives, in the same names and numbers."""
    loaded = RewardModel.from_pretrained(folder)
    assert loaded.model_fingerprint == describe(folder).model_fingerprint == read_model_fingerprint(folder)
    assert main(["latents", "-m", str(folder), str(data), "-o", str(out / "latents")]) == 0
    scored = loaded.score(
        [row["prompt"] for row in PAIRS for _ in range(2)],
        [row[side] for row in PAIRS for side in ("chosen", "rejected")],
    )
    kept = read_latents(out / "latents").scored
    np.testing.assert_array_equal(kept.rewards, scored.rewards)
    assert kept.model_fingerprint == scored.model_fingerprint
    assert len(set(scored.rewards.tolist())) == 4
    assert main(["score", "-m", str(folder), str(data), "-o", str(out / "scores.jsonl")]) == 0
    first = json.loads((out / "scores.jsonl").read_text().splitlines()[0])
    assert first["chosen_scores"][0]["reward"] == pytest.approx(float(scored.rewards[0]), abs=1e-6)


def test_the_release_goes_through_the_commands(release: Path, data: Path, tmp_path: Path) -> None:
    check_commands(release, data, tmp_path)


def test_the_recorded_references_go_through_the_commands(reference: Path, data: Path, tmp_path: Path) -> None:
    check_commands(reference, data, tmp_path)


def test_the_three_spellings_are_one_model(tmp_path: Path) -> None:
    places = {
        tmp_path / "newer": release_shape.NEWER,
        tmp_path / "older": release_shape.OLDER,
        tmp_path / release_shape.FOLDER_NAME: None,
    }
    folders = [release_shape.write(place, spelling) for place, spelling in places.items()]
    assert len({read_model_fingerprint(folder) for folder in folders}) == 1
    rewards = {RewardModel.from_pretrained(f).score("why ?", "no .").rewards.tobytes() for f in folders}
    assert len(rewards) == 1


def test_a_configuration_is_left_as_it_was_read(tmp_path: Path) -> None:
    """transformers writes into `rope_scaling`: into a copy."""
    folder = release_shape.write(tmp_path / "release")
    before = read_config(folder, "release")
    raw = copy.deepcopy(dict(before.trunk))
    trunk_config(before.trunk, 2, "release")
    assert before.trunk == raw
    loaded = RewardModel.from_pretrained(folder)
    loaded.score("why ?", "no .")
    assert loaded.config.trunk == raw


def test_discovery_reads_its_latents_folder(tmp_path: Path) -> None:
    """Latents of the release in place of data: the same model is known again by its fingerprint."""
    folder = release_shape.write(tmp_path / "release")
    rows = [{**row, "prompt": f"{row['prompt']} {word}"} for row in PAIRS for word in ("you", "we", "they")]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["latents", "-m", str(folder), str(data), "-o", str(tmp_path / "kept")]) == 0
    edit = ["--edit", "3=0", "-o"]
    assert main(["probe", str(tmp_path / "kept"), *edit, str(tmp_path / "from_latents")]) == 0
    assert main(["probe", str(data), "-m", str(folder), *edit, str(tmp_path / "from_data")]) == 0


def test_a_resave_keeps_model_and_rewards(tmp_path: Path) -> None:
    folder = release_shape.write(tmp_path / "release")
    loaded = RewardModel.from_pretrained(folder)
    again = RewardModel.from_pretrained(loaded.save_pretrained(tmp_path / "again"))
    assert again.score("why ?", "no .").rewards.tobytes() == loaded.score("why ?", "no .").rewards.tobytes()
    shutil.rmtree(tmp_path / "again")
