"""Every endpoint against the library (oracle, within 1e-6), whatever it was batched with (metamorphic)."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, get_ident
from typing import Any

import numpy as np
import pytest

from sarm_control import Controls, HumanKL, RewardModel
from sarm_control.control.reference import ReferenceStatistics
from sarm_control.control.state import ControlState
from sarm_control.control.training_reward import TOTAL, RewardBreakdown
from sarm_control.data.rows import read_rows
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.latents.human import HumanBuffer
from sarm_control.latents.rows import score_rows
from sarm_control.server.http.app import create_app
from sarm_control.server.settings import ServiceSettings
from tests.server.conftest import Rows, Served, controlled, post, templated
from tests.server.serving import serving

CLOSE: dict[str, Any] = {"abs": 1e-6, "rel": 0}


def library(reward: ControlledReward, rows: Rows, ended: list[bool] | None = None) -> RewardBreakdown:
    return reward.breakdown(reward.score(rows.prompts, rows.answers, ended))


def test_oracle_scores_are_the_librarys(plain: Served, rows: Rows) -> None:
    expected = plain.reward.model.score(rows.prompts, rows.answers)
    asked = {"prompts": rows.prompts, "responses": rows.answers, "top": 3}
    found = post(plain.client, "/v1/score", asked)
    assert found["head"] == plain.reward.model.fingerprint
    results = found["results"]
    for name in ("score", "total", "reward_model", "edited"):
        assert [one[name] for one in results] == pytest.approx(expected.rewards.tolist(), **CLOSE)
    assert [one["truncated"] for one in results] == expected.truncated.tolist()
    assert expected.truncated.max() > 0
    for j, one in enumerate(results):
        parts = [(part.latent, part.contribution) for part in expected.contributions(j, 3)]
        assert [part["latent"] for part in one["contributions"]] == [latent for latent, _ in parts]
        assert [part["contribution"] for part in one["contributions"]] == pytest.approx(
            [amount for _, amount in parts], abs=1e-5
        )


def test_oracle_whole_conversations_in_messages(plain: Served) -> None:
    turns = [
        {"role": "user", "content": "hello , what is the price of the apple ?"},
        {"role": "assistant", "content": "costly ."},
        {"role": "user", "content": "thank you ."},
        {"role": "assistant", "content": "please reach out anytime ."},
    ]
    expected = plain.reward.model.score([turns[:-1]], [turns[-1]["content"]]).rewards[0]
    found = post(plain.client, "/v1/score", {"messages": [turns]})["results"][0]
    assert found["total"] == pytest.approx(expected, **CLOSE)
    apart = post(plain.client, "/v1/score", {"prompts": [turns[:-1]], "responses": [turns[-1]["content"]]})
    assert apart["results"][0]["total"] == pytest.approx(expected, **CLOSE)
    ended = turns[-1]["content"] + "<|eot_id|>"
    beside = post(plain.client, "/rm", {"prompt": turns[:-1], "response": ended})
    assert beside == pytest.approx(expected, **CLOSE)


def test_oracle_engines_get_the_same_number(plain: Served, rows: Rows, lab: RewardModel) -> None:
    expected = lab.score(rows.prompts, rows.answers).rewards.tolist()
    pairs = [templated(lab, *pair) for pair in zip(rows.prompts, rows.answers, strict=True)]
    whole, asked = [text for text, _ in pairs], [prompt for _, prompt in pairs]

    several = post(
        plain.client, "/get_reward", {"query": whole, "prompts": asked, "labels": [""] * len(whole)}
    )
    assert several["rewards"] == several["scores"] == pytest.approx(expected, **CLOSE)
    assert several["extra_logs"]["truncated"] == lab.score(rows.prompts, rows.answers).truncated.tolist()
    one = post(plain.client, "/get_reward", {"query": whole[:1], "prompts": asked[:1], "labels": [None]})
    assert one["rewards"] == one["scores"] == pytest.approx(expected[0], **CLOSE)
    assert set(one["extra_logs"]) == set(several["extra_logs"]) >= set(plain.reward.terms)
    assert all(isinstance(value, float) for value in one["extra_logs"].values())

    body = {"model": "/etc/passwd", "input": whole, "activation": False}
    classes = post(plain.client, "/classify", body)
    assert [one["probs"][-1] for one in classes["data"]] == pytest.approx(expected, **CLOSE)
    assert classes["model"] == "lab"
    embedded = post(plain.client, "/v1/embeddings", {"model": "anything", "input": whole[0]})
    assert embedded["data"][-1]["embedding"][-1] == pytest.approx(expected[0], **CLOSE)
    # engines that strip what their tokenizer would add again
    bare = whole[0].removeprefix("<|begin_of_text|>")
    assert post(plain.client, "/classify", {"input": bare})["data"][-1]["probs"][-1] == pytest.approx(
        expected[0], **CLOSE
    )
    for prompt in (rows.prompts[0], asked[0], [{"role": "user", "content": rows.prompts[0]}]):
        body = {"prompt": prompt, "response": f"{rows.answers[0]} <|eot_id|>", "label": None}
        assert post(plain.client, "/rm", body) == pytest.approx(expected[0], **CLOSE)


@pytest.mark.long
def test_metamorphic_no_request_changes_another(under_controls: Served, rows: Rows) -> None:
    """Single requests from many clients at once, against the library's pass over all of them."""
    expected = library(under_controls.reward, rows)
    cases = list(range(len(rows.prompts))) * 3

    def ask(n: int) -> float:
        body = {"prompts": [rows.prompts[n]], "responses": [rows.answers[n]]}
        return float(post(under_controls.client, "/v1/score", body)["results"][0]["total"])

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, cases))
    assert found == pytest.approx([expected.columns[TOTAL][n] for n in cases], **CLOSE)


def test_oracle_every_part_under_controls(under_controls: Served, rows: Rows) -> None:
    reward = under_controls.reward
    ended = [n % 3 != 0 for n in range(len(rows.prompts))]
    expected = library(reward, rows, ended)
    body = {"prompts": rows.prompts, "responses": rows.answers, "ended": ended}
    results = post(under_controls.client, "/v1/score", body)["results"]
    columns = expected.columns
    parts = {
        "score": reward.values(expected),
        "total": columns[TOTAL],
        "reward_model": columns["reward/model"],
        "edited": columns["reward/model"] + columns["reward/edits"],
        "human_kl": -columns["reward/human_kl"],
        "missing_end": -columns["reward/missing_end"],
    }
    for name, column in parts.items():
        assert np.ptp(column) > 0
        assert [one[name] for one in results] == pytest.approx(column.tolist(), **CLOSE)
    for latent in ("7", "3"):
        amounts = -columns[f"reward/penalty/{latent}"]
        assert [one["penalties"][latent] for one in results] == pytest.approx(amounts.tolist(), **CLOSE)
    for one in results:
        penalties = sum(one["penalties"].values()) + one["human_kl"] + one["missing_end"]
        assert one["total"] == pytest.approx(one["edited"] - penalties, **CLOSE)
    assert [one["ended"] for one in results] == ended


def test_oracle_the_parts_of_a_bounded_reward(lab: RewardModel, rows: Rows) -> None:
    reference = ReferenceStatistics.from_scored(lab.score(rows.prompts, rows.answers))
    reward = ControlledReward(lab, missing_end="1sd", reference=reference, shaping="par")
    expected = library(reward, rows).columns
    with serving(create_app(reward)) as client:
        body = {"prompts": rows.prompts, "responses": rows.answers}
        for one, total, shaping in zip(
            post(client, "/v1/score", body)["results"],
            expected[TOTAL],
            expected["reward/shaping"],
            strict=True,
        ):
            assert (one["total"], one["shaping"]) == pytest.approx((total, shaping), **CLOSE)
            assert one["edited"] - one["missing_end"] + one["shaping"] == pytest.approx(total, **CLOSE)
        whole, asked = templated(lab, rows.prompts[0], rows.answers[0])
        logs = post(client, "/get_reward", {"query": whole, "prompts": asked})["extra_logs"]
        parts = [value for name, value in logs.items() if name.startswith("reward/") and name != TOTAL]
        assert sum(parts) == pytest.approx(logs[TOTAL], **CLOSE)
        model = client.get("/v1/model").json()
        assert (model["shaping"], "reward/shaping" in model["terms"]) == ("par", True)


def test_answers_without_their_end_are_penalised(
    under_controls: Served, rows: Rows, lab: RewardModel
) -> None:
    whole, asked = templated(lab, rows.prompts[0], rows.answers[0])
    cut = whole.removesuffix(" <|eot_id|>")
    expected = library(under_controls.reward, Rows(rows.prompts[:1], rows.answers[:1]), [False])
    found = post(under_controls.client, "/get_reward", {"query": [cut], "prompts": [asked], "labels": [None]})
    assert found["rewards"] == pytest.approx(expected.scores[0], **CLOSE)
    assert found["extra_logs"]["ended"] == 0.0
    assert found["extra_logs"]["reward/missing_end"] < 0


@pytest.mark.long
def test_known_conversations_are_not_scored_again(lab: RewardModel, rows: Rows) -> None:
    passes: list[int] = []
    handle = lab.trunk.register_forward_hook(lambda *_: passes.append(1))
    body = {"prompts": rows.prompts, "responses": rows.answers}
    try:
        with serving(create_app(controlled(lab), ServiceSettings())) as client:
            first = post(client, "/v1/score", body)
            before = len(passes)
            assert post(client, "/v1/score", body) == first
            assert len(passes) == before
            text = client.get("/metrics").text
    finally:
        handle.remove()
    assert f'sarm_cache_total{{result="hit"}} {len(rows.prompts)}.0' in text


@pytest.mark.long
def test_two_devices_share_one_state_of_the_controls(lab: RewardModel, rows: Rows) -> None:
    reward, workers, both = controlled(lab), set[int](), Barrier(2)

    def first_pass_of_each_meets_the_other(*_: object) -> None:
        if get_ident() not in workers:
            workers.add(get_ident())
            both.wait(timeout=60)

    with serving(create_app(reward, ServiceSettings(most_at_once=4), replicas=[lab])) as client:
        handle = lab.trunk.register_forward_hook(first_pass_of_each_meets_the_other)
        with handle, ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(
                    lambda n: post(
                        client, "/v1/score", {"prompts": [rows.prompts[n]], "responses": [rows.answers[n]]}
                    )["results"][0]["total"],
                    range(len(rows.prompts)),
                )
            )
        assert client.get("/v1/model").json()["devices"] == ["cpu", "cpu"]
    assert len(workers) == 2
    assert found == pytest.approx(library(reward, rows).columns[TOTAL].tolist(), **CLOSE)
    other = lab.with_head(-lab.head.weight)
    with pytest.raises(ModelError, match="another head"):
        create_app(ControlledReward(lab), replicas=[other])


@pytest.mark.long
def test_oracle_learning_from_recent_requests(lab: RewardModel, rows: Rows) -> None:
    """Updates take whole windows of answers in their order; each answer has its version."""
    ours = controlled(lab)
    with serving(create_app(controlled(lab), ServiceSettings(learn=True, learn_every=20))) as client:
        for start in range(0, 60, 15):
            part = slice(start, start + 15)
            body = {"prompts": rows.prompts[part], "responses": rows.answers[part]}
            results = post(client, "/v1/score", body)["results"]
            assert {one["human_kl_version"] for one in results} == {start // 20}
            expected = ours.breakdown(ours.score(rows.prompts[part], rows.answers[part]))
            assert [one["human_kl"] for one in results] == pytest.approx(
                (-expected.columns["reward/human_kl"]).tolist(), abs=1e-6
            )
            for update in range(start // 20, (start + 15) // 20):
                taken = slice(20 * update, 20 * update + 20)
                ours.learn(ours.score(rows.prompts[taken], rows.answers[taken]))
        known = client.get("/v1/model").json()["human_kl"]
    assert (known["version"], known["learns"]) == (3, True)
    assert "human_kl/kl" in known["metrics"]


def test_frozen_controls_stay_as_they_are(under_controls: Served, rows: Rows) -> None:
    before = under_controls.client.get("/v1/model").json()["human_kl"]
    body = {"prompts": rows.prompts * 6, "responses": rows.answers * 6}
    post(under_controls.client, "/v1/score", body)
    assert under_controls.client.get("/v1/model").json()["human_kl"] == before
    assert (before["version"], before["learns"]) == (0, False)


@pytest.mark.long
def test_controls_that_never_learn_or_depend_on_other_answers_are_refused(lab: RewardModel) -> None:
    human = HumanBuffer.from_scored(score_rows(lab, read_rows("lab:human", want={"answer"})), (1,))
    fresh = ControlledReward(lab, Controls(human_kl=HumanKL(beta=0.1, latents=(1,))), human=human)
    with pytest.raises(ConfigError, match="have learnt nothing yet and are frozen"):
        create_app(fresh)
    batch = Controls(human_kl=HumanKL(beta=0.1, latents=(1,), mode="batch"))
    with pytest.raises(ConfigError, match="batch mode"):
        create_app(ControlledReward(lab, batch, human=human), ServiceSettings(learn=True))
    with pytest.raises(DataError, match="has 2050 demonstrations, a step has 3000 answers"):
        create_app(
            ControlledReward(lab, Controls(human_kl=HumanKL(beta=0.1, latents=(1,))), human=human),
            ServiceSettings(learn=True, learn_every=3000),
        )
    with pytest.raises(ConfigError, match="nothing to learn"):
        create_app(ControlledReward(lab, learner=ControlState()), ServiceSettings(learn=True))


def test_what_is_served(under_controls: Served, lab: RewardModel) -> None:
    client = under_controls.client
    model = client.get("/v1/model").json()
    assert (model["model"], model["head"], model["latents"]) == ("lab", lab.fingerprint, lab.config.latents)
    assert model["terms"] == list(under_controls.reward.terms)
    assert {edit["latent"] for edit in model["controls"]["edits"]} == {7, 8}
    post(client, "/v1/score", {"prompts": ["hello"], "responses": ["first fold the wood ."]})
    latent = client.get("/v1/latents/7").json()
    assert latent["weight"] == pytest.approx(float(lab.head.weight[7]))
    assert [edit["scale"] for edit in latent["edits"]] == [0.5]
    assert [penalty["latent"] for penalty in latent["penalties"]] == [7]
    assert 0 < latent["active"] <= latent["answers"]
    assert client.get("/v1/latents/5").json()["in_human_kl"]
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    page = client.get("/metrics").text
    for name in ("sarm_requests_total", "sarm_answers_total", "sarm_queue_answers", "sarm_human_kl_version"):
        assert name in page
    assert 'path="/v1/latents/{latent}"' in page


def test_metamorphic_both_ways_to_an_answer_give_the_same(under_controls: Served, rows: Rows) -> None:
    """The short way is for plain JSON; this type goes FastAPI's way."""
    whole, asked = templated(under_controls.reward.model, rows.prompts[0], rows.answers[0])
    bodies = {
        "/v1/score": {"prompts": rows.prompts, "responses": rows.answers, "top": 2},
        "/get_reward": {"query": [whole], "prompts": [asked], "labels": [None]},
        "/v1/embeddings": {"input": [whole, whole]},
        "/rm": {"prompt": asked, "response": rows.answers[0]},
    }
    for path, body in bodies.items():
        short = under_controls.client.post(path, json=body)
        content, kind = short.request.content, {"content-type": "application/x+json"}
        long = under_controls.client.post(path, content=content, headers=kind)
        assert (short.status_code, short.headers["x-sarm-human-kl-version"]) == (200, "0")
        assert (long.status_code, long.headers["x-sarm-human-kl-version"]) == (200, "0")
        assert long.json() == short.json()
