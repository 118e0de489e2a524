"""Two real processes on gloo train as one does: metamorphic (number of processes), and what ends them all."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from sarm_control.ppo.processes import ALONE

from .together import CASES, STEPS, launch, train

Results = list[dict[str, Any]]


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def ranks(tiny_policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("ranks")
    arguments = ["-W", "error", "-m", "tests.ppo.together", str(tiny_policy_folder), str(folder)]
    workers = launch(arguments, free_port())
    complaints = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], complaints
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does(name: str, ranks: Results, tiny_policy_folder: Path) -> None:
    alone = train(tiny_policy_folder, ALONE, CASES[name])
    for ours, theirs in zip(ranks[0][name]["metrics"], alone["metrics"], strict=True):
        assert ours.keys() == theirs.keys()
        for metric, value in theirs.items():
            assert ours[metric] == pytest.approx(value, abs=1e-5, rel=1e-5), metric
    for ours, theirs in zip(ranks[0][name]["samples"], alone["samples"], strict=True):
        assert [row["response"] for row in ours] == [row["response"] for row in theirs]


@pytest.mark.parametrize("name", CASES)
def test_all_processes_have_the_same_state_to_the_bit(name: str, ranks: Results) -> None:
    """Weights, AdamW's moments, the discriminator and the learnt charges; metrics too."""
    first, second = (results[name] for results in ranks)
    assert first["state"] == second["state"]
    assert "controls" in first["state"]
    assert first["metrics"] == second["metrics"]


@pytest.mark.parametrize("name", CASES)
def test_the_reward_sees_the_whole_batch_once_a_step(name: str, ranks: Results) -> None:
    case = {"prompts_per_step": 2, "answers_per_prompt": 8, **CASES[name]}
    answers = case["prompts_per_step"] * case["answers_per_prompt"]
    assert [results[name]["scored"] for results in ranks] == [[answers] * STEPS] * 2
