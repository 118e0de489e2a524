"""Demonstrations of a run: rows, a latents folder and a human buffer are one thing; bad ones are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.cli import main
from sarm_control.control.controls import Controls
from sarm_control.control.human_kl import HumanKL
from sarm_control.control.training_reward import RewardBreakdown
from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model import RewardModel
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.run.demonstrations import check_human, human_buffer
from tests.conftest import make_sarm

WORDS = "yes no please help never always cook bread bomb lock pick open door why because sorry".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_sarm_folder: Path) -> Path:
    """Twelve demonstrations, their latents, and a human buffer of them."""
    folder = tmp_path_factory.mktemp("demonstrations")
    rows = [{"prompt": f"why {word} ?", "response": f"{word} it is"} for word in WORDS[:12]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["latents", str(folder / "rows.jsonl"), "--model", str(tiny_sarm_folder)]
    assert main([*data, "-o", str(folder / "latents")]) == 0
    assert main([*data, "-o", str(folder / "some"), "--latents", "1,2,5,8"]) == 0
    assert main([*data, "-o", str(folder / "human.safetensors"), "--as-human", "--latents", "1,2,5,8"]) == 0
    return folder


def asked(human: Path, *, latents: tuple[int, ...] = (1, 2, 5, 8), answers: int = 12) -> dict[str, Any]:
    return {"path": human, "term": HumanKL(beta=0.1, latents=latents), "answers": answers}


@pytest.mark.parametrize("name", ["latents", "some", "human.safetensors"])
def test_what_sarm_latents_made_is_the_buffer_of_the_rows(
    place: Path, tiny_sarm: RewardModel, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = human_buffer(model=tiny_sarm, kept=tmp_path / "rows.safetensors", **asked(place / "rows.jsonl"))
    monkeypatch.setattr(RewardModel, "score", None)
    check_human(**asked(place / name))
    stored = human_buffer(model=tiny_sarm, kept=tmp_path / "stored.safetensors", **asked(place / name))
    assert scored is not None
    assert stored is not None
    assert (stored.latents, stored.fingerprint) == (scored.latents, scored.fingerprint)
    np.testing.assert_allclose(stored.values, scored.values, atol=1e-5)
    again = human_buffer(model=tiny_sarm, kept=tmp_path / "stored.safetensors", **asked(place / "none"))
    assert again is not None
    assert again.digest == stored.digest


def test_latents_not_named_are_those_that_were_kept(
    place: Path, tiny_sarm: RewardModel, tmp_path: Path
) -> None:
    for name in ("some", "human.safetensors"):
        found = human_buffer(
            model=tiny_sarm, kept=tmp_path / f"{name}.kept", **asked(place / name, latents=())
        )
        assert found is not None
        assert found.latents == (1, 2, 5, 8)


@pytest.mark.parametrize("name", ["rows.jsonl", "latents", "human.safetensors"])
def test_fewer_demonstrations_than_answers_of_a_step_are_refused(
    place: Path, tiny_sarm: RewardModel, name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="has 12 demonstrations, a step has 14 answers"):
        check_human(**asked(place / name, answers=14))
    with pytest.raises(DataError, match="has 12 demonstrations, a step has 14 answers"):
        human_buffer(model=tiny_sarm, kept=tmp_path / "human.safetensors", **asked(place / name, answers=14))
    assert not (tmp_path / "human.safetensors").exists()


def test_other_latents_are_refused_before_a_model_is_loaded(place: Path) -> None:
    with pytest.raises(ConfigError, match="holds 4 latents, not the 2 asked for"):
        check_human(**asked(place / "human.safetensors", latents=(1, 2)))
    with pytest.raises(ConfigError, match="holds 4 chosen latents, 3 is not among them"):
        check_human(**asked(place / "some", latents=(1, 3)))


@pytest.mark.parametrize("name", ["latents", "human.safetensors"])
def test_latents_of_another_head_are_refused(place: Path, name: str, tmp_path: Path) -> None:
    other = make_sarm(seed=1)
    with pytest.raises(ModelError, match="the human buffer was made with head"):
        human_buffer(model=other, kept=tmp_path / "human.safetensors", **asked(place / name))


def test_a_trial_with_fewer_demonstrations_than_answers_is_refused(
    place: Path, tiny_sarm: RewardModel
) -> None:
    buffer = HumanBuffer.load(place / "human.safetensors")
    reward = PolicyReward(tiny_sarm, Controls(human_kl=HumanKL(beta=0.1)), human=buffer)
    scored = tiny_sarm.score(["why ?"] * 13, WORDS[:13])
    reward.learn(RewardBreakdown(np.zeros(12), {}, {}, scored.take(np.arange(12))))
    with pytest.raises(DataError, match="has 12 demonstrations, a step has 13 answers"):
        reward.learn(RewardBreakdown(np.zeros(13), {}, {}, scored))


def test_pairs_are_no_demonstrations(tiny_sarm: RewardModel, tiny_sarm_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "why ?", "chosen": "yes", "rejected": "no"}\n' * 9)
    assert main(["latents", str(data), "--model", str(tiny_sarm_folder), "-o", str(tmp_path / "pairs")]) == 0
    with pytest.raises(
        DataError, match=r"pairs.jsonl:1 has kind pair, demonstrations are rows with one response"
    ):
        human_buffer(model=tiny_sarm, kept=tmp_path / "human.safetensors", **asked(tmp_path / "pairs"))


def test_a_run_without_the_term_reads_no_demonstrations(tiny_sarm: RewardModel, tmp_path: Path) -> None:
    file = tmp_path / "none.jsonl"
    check_human(file, None, 12)
    assert human_buffer(file, None, tiny_sarm, tmp_path / "human.safetensors", answers=12) is None
