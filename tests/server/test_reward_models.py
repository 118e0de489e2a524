"""A server over a reward model with a head of its own, with a dictionary and without (oracle: library)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sarm_control import Controls, Edit, RewardModel
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.server.http.app import create_app
from sarm_control.server.settings import ServiceSettings
from tests.reward_model.classifiers import CHATML_STYLE, CONFIGS, make_classifier, make_tokenizer, save
from tests.reward_model.test_attached import make_dictionary
from tests.server.conftest import Served, post
from tests.server.serving import serving

PROMPTS = ["how do i cook bread ?", "why ?", "is the door safe or not ?"]
ANSWERS = ["sure , here the steps", "no", "i cannot help that ."]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    tokenizer = make_tokenizer(CHATML_STYLE)
    folder = tmp_path_factory.mktemp("served") / "rm"
    return RewardModel.from_pretrained(
        save(make_classifier(CONFIGS["llama"](), bias=True), folder, tokenizer=tokenizer)
    )


@pytest.fixture(scope="module", params=["classifier", "attached"])
def served(base: RewardModel, request: pytest.FixtureRequest) -> Iterator[Served]:
    model, controls = base, Controls()
    if request.param == "attached":
        model = base.attach(make_dictionary(base))
        latent = int(model.score(PROMPTS, ANSWERS).latents.indices[0])
        controls = Controls(edits=[Edit(latent, scale=0.0)])
    reward = ControlledReward(model, controls)
    with serving(create_app(reward, ServiceSettings(model_name=request.param))) as client:
        yield Served(client, reward)


def test_scores_are_the_librarys_also_out_of_the_cache(served: Served) -> None:
    asked: dict[str, Any] = {"prompts": PROMPTS, "responses": ANSWERS, "top": 5}
    expected = served.reward.model.score(PROMPTS, ANSWERS)
    shaped = served.reward.breakdown(expected).columns["reward/total"]
    once, again = (post(served.client, "/v1/score", asked)["results"] for _ in range(2))
    assert once == again
    for j, one in enumerate(once):
        assert one["reward_model"] == pytest.approx(float(expected.rewards[j]), abs=1e-6)
        assert one["total"] == pytest.approx(float(shaped[j]), abs=1e-6)
        assert [part["latent"] for part in one["contributions"][-2:]] == ["residual", "constant"]
        assert one["contributions"][-1]["contribution"] == pytest.approx(expected.constant)


def test_whole_conversations_are_read_at_the_same_token(served: Served) -> None:
    template = served.reward.model.template
    asked = [template.words([{"role": "user", "content": prompt}], generation=True) for prompt in PROMPTS]
    texts = [f"{before}{answer} <|end|>" for before, answer in zip(asked, ANSWERS, strict=True)]
    found = post(served.client, "/get_reward", {"query": texts, "prompts": asked})
    shaped = served.reward.breakdown(served.reward.model.score(PROMPTS, ANSWERS)).columns["reward/total"]
    np.testing.assert_allclose(found["rewards"], shaped, atol=1e-6)


def test_every_engine_gets_the_librarys_totals(served: Served) -> None:
    """The forms of verl (`/classify`, `/v1/embeddings`) and slime (`/rm`) beside OpenRLHF's above."""
    template = served.reward.model.template
    asked = [template.words([{"role": "user", "content": prompt}], generation=True) for prompt in PROMPTS]
    texts = [f"{before}{answer} <|end|>" for before, answer in zip(asked, ANSWERS, strict=True)]
    shaped = served.reward.breakdown(served.reward.model.score(PROMPTS, ANSWERS)).columns["reward/total"]
    classified = post(served.client, "/classify", {"model": "m", "input": texts})
    found = [one["probs"][0] for one in classified["data"]]
    np.testing.assert_allclose(found, shaped, atol=1e-6)
    for prompt, answer, total in zip(PROMPTS, ANSWERS, shaped, strict=True):
        slime = post(served.client, "/rm", {"prompt": prompt, "response": f"{answer} <|end|>"})
        assert slime == pytest.approx(total, abs=1e-6)


def test_what_is_served_says_what_it_is(served: Served) -> None:
    found = served.client.get("/v1/model").json()
    model = served.reward.model
    assert (found["kind"], found["pooling"]) == (model.kind, "last_token")
    assert found["latents"] == model.config.latents
    if model.kind == "classifier":
        refused = served.client.get("/v1/latents/0")
        assert refused.status_code == 404
        assert "has no dictionary, so it has no latents" in refused.text
    else:
        assert served.client.get("/v1/latents/0").json()["weight"] == pytest.approx(
            float(model.head.weight[0])
        )
