"""The lab behind a port: without controls, and with every control at once."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

pytest.importorskip("fastapi", reason='the server wants the extra "serve"')
pytest.importorskip("uvicorn", reason='the server wants the extra "serve"')
pytest.importorskip("prometheus_client", reason='the server wants the extra "serve"')

from sarm_control import Controls, Edit, HumanKL, Penalty, RewardModel
from sarm_control.control.reference import ReferenceStatistics
from sarm_control.data.rows import read_rows
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.latents.human import HumanBuffer
from sarm_control.latents.rows import score_rows
from sarm_control.server.http.app import create_app
from sarm_control.server.settings import ServiceSettings
from tests.server.serving import serving


class Rows(NamedTuple):
    prompts: list[str]
    answers: list[str]


class Served(NamedTuple):
    client: httpx.Client
    reward: ControlledReward


@pytest.fixture(scope="session")
def lab() -> RewardModel:
    return RewardModel.from_pretrained("lab", device="cpu")


@pytest.fixture(scope="session")
def rows() -> Rows:
    """Conversations of many lengths; a few are too long for the context, one has no answer."""
    found = read_rows("lab:audit", want={"pair"})[:60]
    prompts = [str(row.prompt) for row in found]
    answers = [row.chosen[0] for row in found[:30]] + [row.rejected[0] for row in found[30:]]
    prompts[3] = " ".join(prompts[:9])
    answers[4], answers[5] = "", " ".join(answers[:12])
    return Rows(prompts, answers)


def controlled(lab: RewardModel) -> ControlledReward:
    """Edits, penalties in SDs, a penalty for a missing end and a human-KL term that has learnt something."""
    rows = read_rows("lab:audit", want={"pair"})
    scored = score_rows(lab, rows[:100])
    human = HumanBuffer.from_scored(score_rows(lab, read_rows("lab:human", want={"answer"})), (1, 2, 5))
    controls = Controls(
        edits=[Edit(7, scale=0.5), Edit(8, max=1.0)],
        penalties=[Penalty(7, tau="q0.5", alpha="0.5sd"), Penalty(3, tau=0.5, alpha=0.2, form="hinge")],
        human_kl=HumanKL(beta="0.1sd", latents=(1, 2, 5)),
    )
    reward = ControlledReward(
        lab,
        controls,
        missing_end="1sd",
        reference=ReferenceStatistics.from_scored(scored, controls.quantile_latents()),
        human=human,
        standardize=True,
    )
    reward.learn(scored)
    return reward


@pytest.fixture(scope="session")
def plain(lab: RewardModel) -> Iterator[Served]:
    reward = ControlledReward(lab)
    with serving(create_app(reward, ServiceSettings(model_name="lab"))) as client:
        yield Served(client, reward)


@pytest.fixture(scope="session")
def under_controls(lab: RewardModel) -> Iterator[Served]:
    reward = controlled(lab)
    with serving(create_app(reward, ServiceSettings(model_name="lab"))) as client:
        yield Served(client, reward)


def templated(lab: RewardModel, prompt: str, answer: str) -> tuple[str, str]:
    """What a policy saw and said: the whole text, and the prompt alone."""
    asked = lab.template.words([{"role": "user", "content": prompt}], generation=True)
    return f"{asked}{answer} <|eot_id|>", asked


def post(client: httpx.Client, path: str, body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def hooked(lab: RewardModel, hook: Callable[..., Any]) -> RewardModel:
    """The lab's model with a hook that sees, and may change, the states of every pass."""
    trunk = copy.deepcopy(lab.trunk)
    trunk.register_forward_hook(hook)
    return RewardModel(lab.config, trunk, lab.autoencoder, lab.head, lab.template)
