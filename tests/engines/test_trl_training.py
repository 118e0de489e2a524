"""Real GRPO and RLOO runs of TRL on the lab: the reward rises on prompts that were not trained on
(statistical), a resumed run equals the uninterrupted one and two processes agree (metamorphic)."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sarm_control import Controls, Edit, RewardModel
from sarm_control.engines.trl import reward_function
from sarm_control.engines.trl_callback import STATE_FILE
from sarm_control.errors import ConfigError, TrainingError
from tests.engines.trl_runs import Recorder, learning_reward, trainer, weights

pytestmark = pytest.mark.long
STEPS, STEPS_UP = 4, 18


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.from_pretrained("lab")


def means_by_prompt(call: dict[str, Any]) -> NDArray[np.float64]:
    """[prompts] mean reward of the four answers to each, which TRL keeps together."""
    means: NDArray[np.float64] = np.array(call["rewards"]).reshape(-1, 4).mean(axis=1)
    return means


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_the_reward_rises(kind: str, model: RewardModel, tmp_path: Path) -> None:
    recorded = Recorder(reward_function(model, Controls(edits=[Edit(20, scale=0.5)]), missing_end=0.1))
    made = trainer(
        kind, recorded, tmp_path, max_steps=STEPS_UP, per_device_train_batch_size=32, num_generations=8
    )
    made.evaluate()
    made.train()
    made.evaluate()
    before, *training, after = recorded.calls
    assert [call["learning"] for call in recorded.calls] == [False, *[True] * STEPS_UP, False]
    assert before["prompts"] == after["prompts"]
    gains = means_by_prompt(after) - means_by_prompt(before)
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    assert len(gains) == 24
    # Measured in two runs of each kind: 0.49 to 0.62, which are 5 to 8 standard errors.
    assert gains.mean() > 3 * error
    assert gains.mean() > 0.1
    logged = [row for row in made.state.log_history if "reward/model" in row]
    assert len(logged) == len(training)
    for row in logged:
        assert row["reward/total"] == pytest.approx(row["reward"], abs=1e-6)
        parts = ("reward/model", "reward/edits", "reward/human_kl", "reward/missing_end")
        assert sum(row[part] for part in parts) == pytest.approx(row["reward/total"], abs=1e-5)


def test_rloo_learns_from_plain_prompts(model: RewardModel, tmp_path: Path) -> None:
    recorded = Recorder(learning_reward(model))
    made = trainer("rloo", recorded, tmp_path, plain=True, max_steps=2, callbacks=[recorded.callback])
    made.train()
    assert recorded.reward.reward.learnt_batches == 2
    for call in recorded.calls:
        assert all(isinstance(prompt, str) for prompt in call["prompts"])
        assert all(isinstance(completion, str) for completion in call["completions"])
        scored = model.score(call["prompts"], call["completions"])
        assert np.ptp(scored.rewards) > 0
    first = recorded.calls[0]
    ended = [ids[-1] in recorded.reward.end_tokens for ids in first["completion_ids"]]
    fresh = learning_reward(model).reward
    expected = fresh.values(fresh.breakdown(fresh.score(first["prompts"], first["completions"], ended)))
    np.testing.assert_allclose(first["rewards"], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["grpo", pytest.param("rloo", marks=pytest.mark.minutes)])
def test_a_run_resumed_between_batches_of_answers_is_the_uninterrupted_one(
    kind: str, model: RewardModel, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 1,
    }
    options |= {"held_out": 2, "per_device_eval_batch_size": 8}
    whole_reward = learning_reward(model)
    whole = trainer(kind, whole_reward, tmp_path / "whole", max_steps=STEPS, **options)
    whole.train()
    assert whole_reward.reward.learnt_batches == STEPS  # the evaluations taught nothing
    resumed_reward = learning_reward(model)
    resumed = trainer(kind, resumed_reward, tmp_path / "whole", max_steps=STEPS, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed_reward.reward.learnt_batches == STEPS
    expected = whole_reward.reward.state_dict()
    for name, value in resumed_reward.reward.state_dict().items():
        assert value.tobytes() == expected[name].tobytes(), name
    final = weights(whole.model)
    for name, weight in weights(resumed.model).items():
        assert torch.equal(weight, final[name]), name
    start = weights(trainer(kind, learning_reward(model), tmp_path / "new").model)
    assert any(not torch.equal(weight, final[name]) for name, weight in start.items())


def test_what_cannot_be_resumed_is_refused(model: RewardModel, tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 4}
    trainer("rloo", learning_reward(model), tmp_path, max_steps=1, **options).train()
    checkpoint = tmp_path / "checkpoint-1"
    other = reward_function(model, Controls(edits=[Edit(20, set=0.0)]))
    with pytest.raises(TrainingError, match="other controls or another reference"):
        other.load(checkpoint)
    (checkpoint / STATE_FILE).write_bytes(b"cut")
    with pytest.raises(TrainingError, match="cannot be read"):
        trainer("rloo", learning_reward(model), tmp_path, max_steps=2, **options).train(
            resume_from_checkpoint=True
        )


def test_controls_that_learn_need_the_callback(model: RewardModel, tmp_path: Path) -> None:
    made = trainer("grpo", learning_reward(model), tmp_path, callbacks=[], max_steps=1)
    with pytest.raises(ConfigError, match="TRL does not mark these"):
        made.train()


def test_saving_within_a_batch_of_answers_is_warned_of(model: RewardModel, tmp_path: Path) -> None:
    made = trainer(
        "grpo",
        learning_reward(model),
        tmp_path,
        max_steps=1,
        steps_per_generation=4,
        per_device_train_batch_size=4,
        save_strategy="steps",
        save_steps=2,
    )
    with pytest.warns(UserWarning, match="Use a multiple of 4"):
        made.train()


WORKER = """
import sys
from pathlib import Path
from tests.engines.trl_runs import learning_reward, trainer, weights
import torch

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
reward = learning_reward()
sizes = {"max_steps": 3, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "held_out": 4}
made = trainer("grpo", reward, folder, eval_strategy="steps", eval_steps=2, **sizes)
made.train()
learnt = {name: torch.from_numpy(value.copy()) for name, value in reward.reward.state_dict().items()}
found = {"learnt": learnt, "weights": weights(made.accelerator.unwrap_model(made.model))}
torch.save(found, folder / f"{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.minutes
def test_two_processes_learn_the_same_discriminator(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(rank)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        complaints = [worker.communicate(timeout=400)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], complaints
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["learnt"]["human_kl.window_lengths"].tolist() == [16, 16, 16]  # both processes' answers
    for part in ("learnt", "weights"):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name
