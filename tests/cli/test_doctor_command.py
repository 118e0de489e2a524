"""`sarm doctor reward`: well for the lab under every engine's calls, and it says what is wrong with
rewards that are made wrong on purpose."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sarm_control import RewardModel
from sarm_control.cli import main
from sarm_control.engines.doctor.examination import SAMPLES, Call, DoctorSample, examine
from sarm_control.engines.doctor.trl import TrlAdapter, examine_trl
from sarm_control.engines.doctor.verl import verl_is_here
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.engines.trl import TrlReward
from tests.engines.trl_runs import learning_reward


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.from_pretrained("lab")


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "adapters"), [("trl", 1), ("openrlhf", 2), ("verl", 3 + verl_is_here()), ("slime", 1)]
)
def test_the_lab_is_well(
    engine: str, adapters: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "doctor.json"
    assert main(["-q", "doctor", "reward", "--engine", engine, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["passed"] is True
    assert len(found["adapters"]) == adapters
    for one in found["adapters"]:
        points = {point["name"]: point for point in one["points"]}
        assert points["equal to the library's reward"]["good"] is True
        assert one["adapter"] in shown
        assert sum(len(call["rewards"]) for call in one["calls"]) == len(SAMPLES)
    assert shown.endswith("nothing wrong\n")
    missing = engine == "verl" and not verl_is_here()
    assert ("not examined: verl is not installed here" in shown) == missing


@pytest.mark.long
def test_controls_that_learn_learn_in_a_step_alone(model: RewardModel) -> None:
    found = examine_trl(learning_reward(model))
    points = {point.name: point for point in found.points}
    assert found.passed
    assert "these controls learn" in points["a training step is one update"].found
    assert points["nothing is learnt in evaluation"].good is True


class Wrong:
    """An adapter whose calls are changed before they are judged."""

    name = "wrong"
    reports_end = True

    def __init__(self, model: RewardModel, change: Any) -> None:
        self.adapter = TrlAdapter(TrlReward(ControlledReward(model, missing_end=1.0)))
        self.change = change
        self.calls = 0

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        self.calls += 1
        return [self.change(call, self.calls) for call in self.adapter.ask(samples)]


def with_rewards(call: Call, rewards: Sequence[float]) -> Call:
    return Call(call.sent, call.got, tuple(rewards), call.logs)


def with_logs(call: Call, logs: dict[str, float]) -> Call:
    return Call(call.sent, call.got, call.rewards, logs)


@pytest.mark.parametrize(
    ("wrong", "change"),
    [
        ("a finite number for each answer", lambda call, _: with_rewards(call, [float("nan"), 0.0, 0.0])),
        ("a finite number for each answer", lambda call, _: with_rewards(call, call.rewards[:2])),
        (
            "the same answer, the same number",
            lambda call, n: with_rewards(call, [one + 1e-3 * n for one in call.rewards]),
        ),
        (
            "the same in another order",
            lambda call, _: with_rewards(call, [r + 0.1 * i for i, r in enumerate(call.rewards)]),
        ),
        ("the same names of numbers to log", lambda call, n: with_logs(call, {**call.logs, f"n{n}": 0.0})),
        (
            "the parts sum to the reward",
            lambda call, _: with_logs(call, {**call.logs, "reward/edits": 0.01}),
        ),
        (
            "equal to the library's reward",
            lambda call, _: with_rewards(call, [one + 1e-4 for one in call.rewards]),
        ),
    ],
)
def test_what_is_wrong_is_found(wrong: str, change: Any, model: RewardModel) -> None:
    found = examine(Wrong(model, change), ControlledReward(model, missing_end=1.0))
    assert not found.passed
    assert next(point for point in found.points if point.name == wrong).good is False


def test_an_end_that_is_not_looked_at_is_found(model: RewardModel) -> None:
    reward = TrlReward(ControlledReward(model, missing_end=1.0), end_tokens=range(1000))
    found = examine_trl(reward)
    assert [point.name for point in found.points if point.good is False] == [
        "an answer that was cut off is seen",
        "equal to the library's reward",
    ]


@pytest.mark.long
def test_a_server_that_learns_learns_nothing_from_the_doctor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = pytest.importorskip("tests.server.serving", exc_type=ImportError)
    app = pytest.importorskip("sarm_control.server.http.app", exc_type=ImportError)
    settings = pytest.importorskip("sarm_control.server.settings", exc_type=ImportError)
    taught = tmp_path / "state.safetensors"
    served = app.create_app(
        learning_reward().reward, settings.ServiceSettings(learn=True, learn_every=2, state_file=taught)
    )
    with running.serving(served) as client:
        for engine in ("openrlhf", "verl", "slime"):
            url = str(client.base_url).rstrip("/")
            assert main(["-q", "doctor", "reward", "--engine", engine, "--url", url]) == 0
        assert client.get("/v1/model").json()["human_kl"]["version"] == 0
    assert not taught.exists()
    assert "nothing wrong" in capsys.readouterr().out


def test_an_error_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    here = ["-q", "doctor", "reward", "--engine", "slime", "--url", "http://127.0.0.1:9"]
    assert main(here) == 1
    shown = capsys.readouterr().out
    assert "WRONG  an answer, not an error" in shown
    assert "something is wrong" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "trl", "--url", "http://127.0.0.1:9"], "TRL calls a function"),
        (["--engine", "verl", "--token-file", "token"], "of a server that runs"),
        (["--engine", "ppo"], "trl"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-q", "doctor", "reward", *options]) == 2
    assert message in capsys.readouterr().err
