"""What a server's controls learn from: answers in their order, without those of evaluations (oracle).

What they learnt outlives the server; an update that fails is reported."""

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from sarm_control import RewardModel
from sarm_control.control.state import ControlState
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.reward_model.scored import Scored
from sarm_control.server.http.app import create_app
from sarm_control.server.http.engine_formats import versions
from sarm_control.server.scoring.control_state import Answered, BatchReward
from sarm_control.server.settings import ServiceSettings
from tests.server.conftest import Rows, controlled, post, templated
from tests.server.serving import serving

SAID = "a secret answer"
EVALUATION = {"x-sarm-learn": "false"}


def asked(rows: Rows, start: int, stop: int, **more: Any) -> dict[str, Any]:
    return {"prompts": rows.prompts[start:stop], "responses": rows.answers[start:stop], **more}


def known(client: httpx.Client) -> Any:
    return client.get("/v1/model").json()["human_kl"]


def learnt(reward: ControlledReward, rows: Rows, start: int, stop: int) -> ControlledReward:
    reward.learn(reward.score(rows.prompts[start:stop], rows.answers[start:stop]))
    return reward


@pytest.mark.long
def test_nothing_is_learnt_from_evaluations_and_failed_requests(lab: RewardModel, rows: Rows) -> None:
    whole = [templated(lab, *pair) for pair in zip(rows.prompts, rows.answers, strict=True)]
    texts, prompts = [text for text, _ in whole[:30]], [prompt for _, prompt in whole[:30]]
    with serving(create_app(controlled(lab), ServiceSettings(learn=True, learn_every=20))) as client:
        post(client, "/v1/score", asked(rows, 20, 30))
        post(client, "/v1/score", asked(rows, 0, 30, learn=False))
        others: dict[str, Any] = {
            "/v1/score": asked(rows, 0, 30),
            "/get_reward": {"query": texts, "prompts": prompts},
            "/classify": {"input": texts},
            "/v1/embeddings": {"input": texts},
            "/rm": {"prompt": prompts[0], "response": rows.answers[0]},
        }
        for path, body in others.items():
            assert client.post(path, json=body, headers=EVALUATION).status_code == 200
        refused = client.post("/classify", json={"input": [*texts, "no conversation"]})
        assert refused.status_code == 422
        assert known(client)["version"] == 0
        post(client, "/v1/score", asked(rows, 30, 40))
        assert known(client)["version"] == 1
        (found,) = post(client, "/v1/score", asked(rows, 50, 51))["results"]
    ours = learnt(controlled(lab), rows, 20, 40)
    expected = ours.breakdown(ours.score(rows.prompts[50:51], rows.answers[50:51])).columns[
        "reward/human_kl"
    ][0]
    assert found["human_kl"] == pytest.approx(-expected, abs=1e-6, rel=0)
    assert found["human_kl_version"] == 1


@pytest.mark.long
def test_what_was_learnt_outlives_the_server(lab: RewardModel, rows: Rows, tmp_path: Path) -> None:
    file = tmp_path / "learnt" / "state.safetensors"
    learning = ServiceSettings(learn=True, learn_every=20, state_file=file)
    with serving(create_app(controlled(lab), learning)) as client:
        post(client, "/v1/score", asked(rows, 0, 45))
        before = known(client)
        expected = post(client, "/v1/score", asked(rows, 50, 60, learn=False))
    assert before["version"] == 2
    for settings in (learning, ServiceSettings(state_file=file)):
        with serving(create_app(controlled(lab), settings)) as client:
            assert {**known(client), "learns": True, "metrics": before["metrics"]} == before
            assert post(client, "/v1/score", asked(rows, 50, 60, learn=False)) == expected
    file.write_bytes(b"cut")
    with pytest.raises(TrainingError, match=r"state.safetensors: what the controls learnt cannot be read"):
        create_app(controlled(lab), learning)
    with pytest.raises(ConfigError, match=r"nowhere: there is no such file, and nothing that would write it"):
        create_app(controlled(lab), ServiceSettings(state_file=tmp_path / "nowhere"))


class CannotLearn(ControlState):
    """Its updates fail."""

    def learn(self, scored: Scored) -> None:
        raise RuntimeError(SAID, len(scored))


@pytest.mark.long
def test_an_update_that_fails_is_counted_and_logged_and_the_reward_is_given(
    lab: RewardModel, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    reward = controlled(lab)
    reward.learner = CannotLearn(reward.learner.discriminator)
    settings = ServiceSettings(learn=True, learn_every=20)
    with serving(create_app(reward, settings)) as client, caplog.at_level(logging.ERROR):
        for start in (0, 20):
            results = post(client, "/v1/score", asked(rows, start, start + 20))["results"]
            assert {one["human_kl_version"] for one in results} == {0}
        assert known(client)["version"] == 0
        page = client.get("/metrics").text
        assert "sarm_failed_updates_total 2.0" in page
        assert "sarm_failed_lessons_total 2.0" in page
    logged = [record.message.partition("\n")[0] for record in caplog.records]
    assert logged == ["RuntimeError"] * 2
    assert "in learn" in caplog.text
    assert "secret" not in caplog.text


def test_answers_rewarded_by_several_versions_each_have_theirs(lab: RewardModel) -> None:
    scored = lab.score(["a"], ["b"])

    def rewarded_by(version: int) -> Answered:
        return Answered(BatchReward([0.0], {}, scored, version), 0, 3, cached=False)

    assert versions([rewarded_by(3), rewarded_by(3)]) == "3"
    assert versions([rewarded_by(3), rewarded_by(4), rewarded_by(3)]) == "3,4,3"
