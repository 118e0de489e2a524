"""A reward deployment: replicas and the owner of what is learnt, in one process and on Ray (oracle)."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from sarm_control.embedded import data_file
from sarm_control.engines.reward.open_reward import ControlFiles, open_reward
from sarm_control.errors import ConfigError, MissingExtraError
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.server.ray.settings import AnswerReward, AnswerToScore, RewardSettings, require_serve
from tests.server.ray_answers import answers

WINDOW, LESSONS = 16, 3
CONTROLS = """\
reward:
  edits: ["3:max=0.5"]
  penalties: ["5:tau=0.2,alpha=0.1"]
  human_kl: {beta: 0.05, latents: [1, 3, 5, 8]}
data:
  human: human.jsonl
"""


@pytest.fixture
def controls(tmp_path: Path) -> Path:
    rows = data_file(Path("lab:human")).read_text().splitlines(keepends=True)[200:264]
    (tmp_path / "human.jsonl").write_text("".join(rows))
    (tmp_path / "controls.yaml").write_text(CONTROLS.replace("human.jsonl", str(tmp_path / "human.jsonl")))
    return tmp_path / "controls.yaml"


@pytest.fixture
def replicas() -> Any:
    return pytest.importorskip(
        "sarm_control.server.ray.replica", reason="pip install 'sarm-control[ray]'", exc_type=ImportError
    )


class Handle:
    """Calls an object of this process as a handle calls a replica."""

    def __init__(self, called: object) -> None:
        self.called = called

    def __getattr__(self, name: str) -> "Remote":
        return Remote(getattr(self.called, name))


class Remote:
    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


def columns(asked: Sequence[AnswerToScore]) -> tuple[list[Any], list[str], list[bool]]:
    return (
        [one["prompt"] for one in asked],
        [one["response"] for one in asked],
        [one["ended"] for one in asked],
    )


def assert_learnt_as_by_the_library(
    answer_rewards: Sequence[AnswerReward], controls: Path, state: Path
) -> None:
    """Every window is paid by what the windows before taught, and teaches in turn."""
    asked = answers(WINDOW * LESSONS)
    reward = open_reward(RewardModel.from_pretrained("lab", device="cpu"), ControlFiles(controls))
    for update in range(LESSONS):
        part = slice(update * WINDOW, (update + 1) * WINDOW)
        scored = reward.score(*columns(asked[part]))
        wanted = reward.breakdown(scored)
        given = answer_rewards[part]
        assert {one["human_kl_version"] for one in given} == {update}
        np.testing.assert_allclose([one["score"] for one in given], reward.values(wanted), atol=1e-6, rtol=0)
        for name in reward.terms:
            reply = [one["terms"][name] for one in given]
            np.testing.assert_allclose(reply, wanted.columns[name], atol=1e-6, rtol=0)
        reward.learn(scored)
    assert np.abs(wanted.columns["reward/human_kl"]).max() > 0  # it did learn something
    assert int(load_file(state)["learnt_batches"]) == LESSONS


def test_the_owner_learns_and_every_answer_says_from_how_much(
    controls: Path, tmp_path: Path, replicas: Any
) -> None:
    state = tmp_path / "state.safetensors"
    settings = RewardSettings(controls=controls, state_file=state, learn_window=WINDOW)

    async def serve() -> list[AnswerReward]:
        controls = replicas.SharedControls(settings)
        both = [replicas.Replica(settings, Handle(controls)) for _ in range(2)]
        answer_rewards: list[AnswerReward] = []
        asked = answers(WINDOW * LESSONS)
        evaluation = [one._replace(teaches=False) for one in both[0].waiting(asked)]
        assert {one["human_kl_version"] for one in await both[0].reward_answers(evaluation)} == {0}
        assert not both[0].updates
        for update in range(LESSONS):
            replica = both[update % 2]
            answer_rewards += await replica.reward_answers(
                replica.waiting(asked[update * WINDOW : (update + 1) * WINDOW])
            )
            await asyncio.gather(*replica.updates)
        return answer_rewards

    assert_learnt_as_by_the_library(asyncio.run(serve()), controls, state)


def test_an_owner_that_is_started_again_goes_on_where_it_was(
    controls: Path, tmp_path: Path, replicas: Any
) -> None:
    settings = RewardSettings(
        controls=controls, state_file=tmp_path / "state.safetensors", learn_window=WINDOW
    )

    async def serve() -> tuple[Any, Any, Any]:
        controls = replicas.SharedControls(settings)
        replica = replicas.Replica(settings, Handle(controls))
        waiting = replica.waiting(answers(WINDOW))
        await replica.reward_answers(waiting)
        await asyncio.gather(*replica.updates)
        before = await replica.reward_answers(waiting)
        replica.controls = Handle(replicas.SharedControls(settings))  # the one that learnt is gone
        after = await replica.reward_answers(waiting)
        other = replicas.Replica(settings, replica.controls)
        return before, after, await other.reward_answers(waiting)

    before, after, other = asyncio.run(serve())
    assert before == after == other
    assert {one["human_kl_version"] for one in before} == {1}


def test_a_term_that_is_frozen_before_it_learnt_is_refused(controls: Path, replicas: Any) -> None:
    with pytest.raises(ConfigError, match=r"learnt nothing yet and is frozen: it would charge 0 for ever"):
        replicas.Replica(RewardSettings(controls=controls), None)


def test_a_reward_that_is_no_number_is_an_error_and_none(replicas: Any) -> None:
    settings = RewardSettings()
    replica = replicas.Replica(settings, Handle(replicas.SharedControls(settings)))
    replica.reward.model.head.weight[:] = np.nan

    async def serve() -> Any:
        return await replica.reward_answers(replica.waiting(answers(1)))

    with pytest.raises(ArithmeticError, match="a reward is not a finite number"):
        asyncio.run(serve())


def test_answers_do_not_depend_on_those_they_share_a_pass_with(replicas: Any) -> None:
    settings = RewardSettings(batch_tokens=512)

    async def serve() -> tuple[list[AnswerReward], list[AnswerReward]]:
        replica = replicas.Replica(settings, Handle(replicas.SharedControls(settings)))
        waiting = replica.waiting(answers(40))
        together = await replica.reward_answers(waiting)
        return together, [(await replica.reward_answers([one]))[0] for one in waiting]

    together, alone = asyncio.run(serve())
    scored = RewardModel.from_pretrained("lab", device="cpu").score(
        *columns(answers(40))[:2], ended=columns(answers(40))[2]
    )
    for answer_rewards in (together, alone):
        np.testing.assert_allclose(
            [one["score"] for one in answer_rewards], scored.rewards, atol=1e-6, rtol=0
        )
        assert [one["ended"] for one in answer_rewards] == scored.ended.tolist()


@pytest.mark.minutes
@pytest.mark.usefixtures("replicas")
def test_on_ray_a_replica_killed_under_load_loses_nothing(controls: Path, tmp_path: Path) -> None:
    state, count = tmp_path / "state.safetensors", 1500
    words = [str(word) for word in (count, controls, state, WINDOW, LESSONS)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.server.serve_on_ray", *words],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_raylet_start_wait_time_s": "180"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    killed = found["kill"]
    assert killed["busy"]
    assert killed["killed"] not in killed["after"]
    scored = RewardModel.from_pretrained("lab", device="cpu").score(
        *columns(answers(count))[:2], ended=columns(answers(count))[2]
    )
    assert set(killed["answer_rewards"]) == {"http", "handle"}
    for answer_rewards in killed["answer_rewards"].values():
        assert len(answer_rewards) == count  # nothing lost
        np.testing.assert_allclose(
            [one["score"] for one in answer_rewards], scored.rewards, atol=1e-6, rtol=0
        )
    assert_learnt_as_by_the_library(found["learn"], controls, state)


def test_without_ray_serve_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    with pytest.raises(MissingExtraError, match=r"a reward deployment needs Ray Serve") as raised:
        require_serve()
    assert raised.value.hint == 'pip install "sarm-control[ray]"'
