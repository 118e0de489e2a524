"""A reward deployment: replicas and the controls that they share, in one process and on Ray (oracle)."""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from starlette.requests import Request

from sarm_control.embedded import data_file
from sarm_control.engines.reward.open_reward import ControlFiles, open_reward
from sarm_control.errors import ConfigError, MissingExtraError, ModelError
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.server.http.metrics import Metrics
from sarm_control.server.ray.requests import answer_reward
from sarm_control.server.ray.settings import AnswerReward, AnswerToScore, RewardSettings, require_serve
from sarm_control.server.scoring.batcher import Batcher
from sarm_control.server.scoring.cache import LatentCache
from sarm_control.server.scoring.control_state import VersionedControls
from sarm_control.server.scoring.conversations import PromptAndResponse
from sarm_control.server.scoring.scorer import Scorer
from tests.server.ray_answers import answers

WINDOW, UPDATES = 16, 3
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
        "sarm_control.server.ray.replica", reason="pip install .[ray]", exc_type=ImportError
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


def replica_of(replicas: Any, settings: RewardSettings, controls: Any) -> Any:
    """A replica that gives every request a forward pass of its own."""

    class Unbatched(replicas.Replica):  # type: ignore[misc]  # Ray ships no types
        """`serve.batch` works inside Ray Serve alone; the test on Ray goes through it."""

        async def _queued(self, waiting: Sequence[Any]) -> Any:
            return await self.reward_waiting(waiting)

    return Unbatched(settings, controls)


async def rewards_of(replica: Any, waiting: Sequence[Any], *, learn: bool = True) -> list[AnswerReward]:
    """One request, as plain data."""
    return [answer_reward(answer) for answer in await replica.answered(waiting, learn=learn)]


def columns(asked: Sequence[AnswerToScore]) -> tuple[list[Any], list[str], list[bool]]:
    return (
        [one["prompt"] for one in asked],
        [one["response"] for one in asked],
        [one["ended"] for one in asked],
    )


def assert_learnt_as_by_the_library(
    answer_rewards: Sequence[AnswerReward], controls: Path, state: Path, model: str = "lab"
) -> None:
    """Every window is rewarded by what was learnt from the windows before it."""
    asked = answers(WINDOW * UPDATES)
    reward = open_reward(RewardModel.from_pretrained(model, device="cpu"), ControlFiles(controls))
    for update in range(UPDATES):
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
    assert int(load_file(state)["learnt_batches"]) == UPDATES


@pytest.mark.long
@pytest.mark.parametrize("model", ["lab", "lab:attached"])
def test_the_controls_learn_and_every_answer_says_from_how_many_updates(
    model: str, controls: Path, tmp_path: Path, replicas: Any
) -> None:
    state = tmp_path / "state.safetensors"
    settings = RewardSettings(model=model, controls=controls, state_file=state, learn_window=WINDOW)

    async def serve() -> list[AnswerReward]:
        controls = replicas.SharedControls(settings)
        both = [replica_of(replicas, settings, Handle(controls)) for _ in range(2)]
        answer_rewards: list[AnswerReward] = []
        asked = answers(WINDOW * UPDATES)
        evaluation = await rewards_of(both[0], both[0].waiting(asked), learn=False)
        assert {one["human_kl_version"] for one in evaluation} == {0}
        assert not both[0].updates
        for update in range(UPDATES):
            replica = both[update % 2]
            part = asked[update * WINDOW : (update + 1) * WINDOW]
            answer_rewards += await rewards_of(replica, replica.waiting(part))
            await asyncio.gather(*replica.updates)
        return answer_rewards

    assert_learnt_as_by_the_library(asyncio.run(serve()), controls, state, model)


def test_shared_controls_that_are_started_again_go_on_where_they_were(
    controls: Path, tmp_path: Path, replicas: Any
) -> None:
    settings = RewardSettings(
        controls=controls, state_file=tmp_path / "state.safetensors", learn_window=WINDOW
    )

    async def serve() -> tuple[Any, Any, Any]:
        controls = replicas.SharedControls(settings)
        replica = replica_of(replicas, settings, Handle(controls))
        waiting = replica.waiting(answers(WINDOW))
        await rewards_of(replica, waiting)
        await asyncio.gather(*replica.updates)
        before = await rewards_of(replica, waiting)
        replica.controls = Handle(replicas.SharedControls(settings))  # the one that learnt is gone
        after = await rewards_of(replica, waiting)
        other = replica_of(replicas, settings, replica.controls)
        return before, after, await rewards_of(other, waiting)

    before, after, other = asyncio.run(serve())
    assert before == after == other
    assert {one["human_kl_version"] for one in before} == {1}


def test_an_update_takes_the_same_answers_as_in_the_http_server_however_batches_are_cut(
    controls: Path, tmp_path: Path, replicas: Any
) -> None:
    """One rule for both: exactly `learn_window` answers, the oldest first (metamorphic)."""
    files, sizes = [tmp_path / f"{name}.safetensors" for name in ("ray", "http")], (5, 9, 20, 7)
    settings = RewardSettings(controls=controls, state_file=files[0], learn_window=WINDOW)
    reward = open_reward(RewardModel.from_pretrained("lab", device="cpu"), ControlFiles(controls))
    served = VersionedControls(reward, learns=True, every=WINDOW, state_file=files[1])

    async def serve() -> int:
        shared = replicas.SharedControls(settings)
        replica = replica_of(replicas, settings, Handle(shared))
        asked = iter(answers(sum(sizes)))
        for size in sizes:
            part = list(itertools.islice(asked, size))
            scored = reward.score(*columns(part))
            served.finish(served.arrive(), [(scored, row) for row in range(len(part))])
            await rewards_of(replica, replica.waiting(part))
            await asyncio.gather(*replica.updates)
        return int(shared.state.version)

    assert asyncio.run(serve()) == served.version == sum(sizes) // WINDOW
    of_ray, of_http = map(load_file, files)
    assert set(of_ray) == set(of_http)
    for name, array in of_http.items():
        np.testing.assert_allclose(of_ray[name], array, atol=1e-5, rtol=1e-5, err_msg=name)


def test_a_request_over_http_is_answered_and_refused_as_by_the_server(replicas: Any) -> None:
    settings = RewardSettings()
    replica = replica_of(replicas, settings, Handle(replicas.SharedControls(settings)))
    rewards = RewardModel.from_pretrained("lab", device="cpu").score(["what is rain ?"], ["water ."]).rewards

    async def call(path: str, body: bytes, **headers: str) -> Any:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": named}
        return await replica(Request(scope, receive))

    async def calls() -> list[Any]:
        asked = json.dumps({"prompts": ["what is rain ?"], "responses": ["water ."], "top": 1}).encode()
        return [
            await call("/prefix/v1/score", asked),
            await call("/v1/score", b"{"),
            await call("/v2/score", asked),
            await call("/classify", b'{"input": "hello"}'),
        ]

    given, broken, nowhere, no_template = asyncio.run(calls())
    (result,) = json.loads(given.body)["results"]
    assert result["score"] == pytest.approx(float(rewards[0]), abs=1e-6)
    assert len(result["contributions"]) == 1
    assert given.headers["x-sarm-human-kl-version"] == "0"
    assert (broken.status_code, json.loads(broken.body)["error"]) == (422, "body: not JSON")
    assert (nowhere.status_code, json.loads(nowhere.body)["error"]) == (404, "no such path: /v2/score")
    assert no_template.status_code == 422
    assert "not a conversation in this reward model's chat template" in json.loads(no_template.body)["error"]


def test_a_term_that_is_frozen_before_it_learnt_is_refused(controls: Path, replicas: Any) -> None:
    with pytest.raises(ConfigError, match=r"learnt nothing yet and are frozen: their penalty would stay 0"):
        replicas.Replica(RewardSettings(controls=controls), None)


def test_a_reward_that_is_no_number_is_an_error_and_none(replicas: Any) -> None:
    settings = RewardSettings()
    replica = replica_of(replicas, settings, Handle(replicas.SharedControls(settings)))
    replica.reward.model.head.weight[:] = np.nan

    async def serve() -> Any:
        return await rewards_of(replica, replica.waiting(answers(1)))

    with pytest.raises(ArithmeticError, match="a reward is not a finite number"):
        asyncio.run(serve())


def breaking(model: RewardModel, word: str) -> None:
    """Makes every answer with this word one whose reward is no number."""
    (token,) = {*model.template.tokenizer(word, add_special_tokens=False).input_ids}
    trunk: Any = model.trunk.model
    with torch.no_grad():
        trunk.get_input_embeddings().weight[token] = torch.nan


def served_by_http(model: RewardModel, asked: Sequence[AnswerToScore]) -> list[Any]:
    """What `sarm serve` gives requests of one answer each that it takes together; errors in their place."""
    scorer = Scorer(model, VersionedControls(open_reward(model)), LatentCache(10**6), Metrics(), 10**6)
    batcher: Batcher[Any, Any] = Batcher([scorer], most_at_once=len(asked), most_waiting=len(asked))

    async def requests() -> list[Any]:
        waiting = [batcher.submit([PromptAndResponse(**one)]) for one in asked]
        batcher.start()  # after the last, so that one pass has them all
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    try:
        given = asyncio.run(requests())
    finally:
        batcher.close(30)
    return [one if isinstance(one, Exception) else one[0] for one in given]


def test_one_reward_that_is_no_number_fails_no_other_request_as_in_the_http_server(replicas: Any) -> None:
    settings, asked, sizes = RewardSettings(), answers(12), list[int]()
    replica = replica_of(replicas, settings, Handle(replicas.SharedControls(settings)))
    wanted = RewardModel.from_pretrained("lab", device="cpu").score(
        *columns(asked)[:2], ended=columns(asked)[2]
    )
    broken = ["oil" in one["response"] for one in asked]
    assert 0 < sum(broken) < len(asked)
    breaking(replica.reward.model, "oil")
    replica.reward.model.trunk.register_forward_hook(lambda *passed: sizes.append(len(passed[2])))
    on_ray = asyncio.run(replica.reward_waiting(replica.waiting(asked)))
    assert sizes == [12], "who has a reward is not scored again"
    by_http = served_by_http(replica.reward.model, asked)
    assert sum(sizes) == 24
    for given in (on_ray, by_http):
        assert [isinstance(one, ArithmeticError) for one in given] == broken
        for one, reward in zip(given, wanted.rewards, strict=True):
            assert isinstance(one, ArithmeticError) or one.value == pytest.approx(float(reward), abs=1e-6)


def test_work_that_breaks_is_tried_answer_by_answer(replicas: Any) -> None:
    settings = RewardSettings()
    replica = replica_of(replicas, settings, Handle(replicas.SharedControls(settings)))
    waiting = replica.waiting(answers(4))
    no_token = replace(waiting[2].encoded, input_ids=[*waiting[2].encoded.input_ids, 10**6])
    waiting[2] = waiting[2]._replace(encoded=no_token)
    given = asyncio.run(replica.reward_waiting(waiting))
    assert [isinstance(one, Exception) for one in given] == [False, False, True, False]
    with pytest.raises(ModelError, match="token 1000000, the model has embeddings for"):
        asyncio.run(replica.answered(waiting))


def test_nothing_is_learnt_from_a_request_that_fails(controls: Path, tmp_path: Path, replicas: Any) -> None:
    """Its client sends it again, and its other answers would count twice."""
    settings = RewardSettings(
        controls=controls, state_file=tmp_path / "state.safetensors", learn_window=WINDOW
    )
    replica = replica_of(replicas, settings, Handle(replicas.SharedControls(settings)))
    asked = answers(4 * WINDOW)
    fine = [one for one in asked if "oil" not in one["response"] + one["prompt"]][:WINDOW]
    (bad, *_) = [one for one in asked if "oil" in one["response"]]
    breaking(replica.reward.model, "oil")

    async def serve() -> list[int]:
        versions = []
        for part in ([*fine, bad], fine, fine):
            with contextlib.suppress(ArithmeticError):
                rewards = await rewards_of(replica, replica.waiting(part))
                versions.append(rewards[0]["human_kl_version"])
            await asyncio.gather(*replica.updates)
        return versions

    assert asyncio.run(serve()) == [0, 1]


def test_a_reply_that_comes_late_does_not_bring_an_older_version_back(
    controls: Path, tmp_path: Path, replicas: Any
) -> None:
    settings = RewardSettings(
        controls=controls, state_file=tmp_path / "state.safetensors", learn_window=WINDOW
    )

    class Late(replicas.SharedControls):  # type: ignore[misc]  # Ray ships no types
        """Its second reply is overtaken by the third."""

        def __init__(self) -> None:
            super().__init__(settings)
            self.replies = itertools.count(1)
            self.written, self.send = asyncio.Event(), asyncio.Event()

        async def newer(self, version: int) -> Any:
            found = await super().newer(version)
            if next(self.replies) == 2:
                self.written.set()
                await self.send.wait()
            return found

    async def serve() -> tuple[int, list[AnswerReward]]:
        shared = Late()
        replica = replica_of(replicas, settings, Handle(shared))
        waiting = replica.waiting(answers(WINDOW))
        first = await replica.answered(waiting)
        await asyncio.gather(*replica.updates)
        late = asyncio.ensure_future(rewards_of(replica, waiting, learn=False))
        await shared.written.wait()
        await shared.learn(first[0].reward.scored)
        (newest, *_) = await rewards_of(replica, waiting, learn=False)
        assert newest["human_kl_version"] == 2
        shared.send.set()
        rewards = await late
        return replica.state.version, rewards

    version, rewards = asyncio.run(serve())
    assert version == 2
    assert {one["human_kl_version"] for one in rewards} == {2}


def test_answers_do_not_depend_on_those_they_share_a_pass_with(replicas: Any) -> None:
    settings = RewardSettings(batch_tokens=512)

    async def serve() -> tuple[list[AnswerReward], list[AnswerReward]]:
        replica = replica_of(replicas, settings, Handle(replicas.SharedControls(settings)))
        waiting = replica.waiting(answers(40))
        together = await rewards_of(replica, waiting)
        return together, [(await rewards_of(replica, [one]))[0] for one in waiting]

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
    words = [str(word) for word in (count, controls, state, WINDOW, UPDATES)]
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
    assert raised.value.hint == 'pip install ".[ray]" in the clone'
