"""What replicas are asked over HTTP, and how they share the budget of a pass (contract, property)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sarm_control.conversation.templated import TemplatedText
from sarm_control.engines.server_client import ServerSettings
from sarm_control.engines.verl import rewards_of
from sarm_control.errors import DataError
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.server.ray.requests import FORMS, error_reply, read_json, teaches
from sarm_control.server.ray.settings import AnswerReward, RewardSettings

TERMS = {
    "reward/model": 0.75,
    "reward/edits": -0.25,
    "reward/penalty/7": -0.25,
    "reward/human_kl": 0.0,
    "reward/missing_end": 0.0,
    "reward/total": 0.25,
}
PAID = AnswerReward(score=0.5, terms=TERMS, ended=True, truncated=0, tokens=9, human_kl_version=4)
OTHER = AnswerReward(**{**PAID, "score": 1.5, "terms": {**TERMS, "reward/model": 1.5}})


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.from_pretrained("lab", device="cpu")


@pytest.fixture
def reader(model: RewardModel) -> TemplatedText:
    return TemplatedText(model.template)


def test_every_form_of_a_conversation_is_the_same_conversation(reader: TemplatedText) -> None:
    messages = [{"role": "user", "content": "what is rain ?"}]
    wanted = reader.template.render("what is rain ?", "water .")
    opened = reader.template.words([dict(one) for one in messages], generation=True)
    as_scores = {"prompts": ["what is rain ?", messages], "responses": ["water .", "water ."]}
    assert FORMS["/v1/score"].read(as_scores, reader) == [wanted, wanted]
    whole = {"query": [wanted.whole], "prompts": [opened], "labels": [None]}
    assert FORMS["/get_reward"].read(whole, reader) == [wanted]
    for prompt in ("what is rain ?", messages, opened):
        for end in ("", " <|eot_id|>"):
            found = FORMS["/rm"].read({"prompt": prompt, "response": f"water .{end}", "label": ""}, reader)
            assert found == [reader.template.render("what is rain ?", "water .", ended=bool(end))]


def test_an_answer_that_did_not_end_is_said_not_to_have(reader: TemplatedText) -> None:
    asked = {"prompts": ["a", "a"], "responses": ["b", "b"], "ended": [True, False]}
    assert [one.ended for one in FORMS["/v1/score"].read(asked, reader)] == [True, False]


def test_answers_have_the_form_each_engine_reads() -> None:
    assert FORMS["/rm"].write([PAID]) == 0.5
    one, two = FORMS["/get_reward"].write([PAID]), FORMS["/get_reward"].write([PAID, OTHER])
    beside = {"human_kl/version": 4.0, "truncated": 0.0, "ended": 1.0}
    assert one == {"rewards": 0.5, "scores": 0.5, "extra_logs": {**TERMS, **beside}}
    assert two["rewards"] == [0.5, 1.5]
    assert two["extra_logs"]["reward/model"] == [0.75, 1.5]
    assert set(two["extra_logs"]) == set(one["extra_logs"])


@pytest.mark.parametrize("shaped", [{}, {"reward/shaping": -0.125}])
def test_verl_reads_the_parts_out_of_what_is_answered(shaped: dict[str, float]) -> None:
    terms = {**TERMS, **shaped}
    answer_rewards = AnswerReward(**{**PAID, "terms": terms})
    found = rewards_of(FORMS["/v1/score"].write([answer_rewards, OTHER]), 2, ServerSettings())
    assert [one.score for one in found] == [0.5, 1.5]
    logged = {name: value for name, value in found[0].extra.items() if name.startswith("reward/")}
    assert logged == terms


def test_a_score_is_answered_as_by_the_server() -> None:
    """Scripts and engines may be pointed at either."""
    schemas = pytest.importorskip("sarm_control.server.http.schemas", exc_type=ImportError)
    (answered,) = FORMS["/v1/score"].write([PAID])["results"]
    assert schemas.ScoreGiven.model_validate(answered).model_dump(exclude_unset=True) == answered


@pytest.mark.parametrize(
    ("path", "asked", "match"),
    [
        ("/v1/score", {"prompts": ["a"], "responses": ["b"], "model": "x"}, r"unknown key 'model'"),
        ("/v1/score", {"prompts": ["a"], "responses": ["b", "c"]}, r"lists of the same length"),
        ("/v1/score", {"prompts": "a", "responses": ["b"]}, r"prompts has to be a list"),
        (
            "/v1/score",
            {"prompts": [[{"role": "user"}]], "responses": ["b"]},
            r"messages with role and content",
        ),
        ("/v1/score", {"prompts": [7], "responses": ["b"]}, r"7 is not a string"),
        (
            "/v1/score",
            {"prompts": ["a", "a"], "responses": ["b", "b"], "ended": [True, 1]},
            r"ended\[1\] is 1, neither true nor false",
        ),
        (
            "/v1/score",
            {"prompts": ["a"], "responses": ["b"], "ended": ["true"]},
            r'ended\[0\] is "true", neither',
        ),
        ("/v1/score", {"prompts": ["\ud800"], "responses": ["b"]}, r'"\\ud800" holds half a character'),
        ("/rm", {"prompt": [{"role": "user", "content": "\udc00"}], "response": "b"}, r"holds half a char"),
        ("/v1/score", {"prompts": [], "responses": []}, r"no conversation was given"),
        ("/get_reward", {"query": [], "prompts": []}, r"no conversation was given"),
        ("/get_reward", {"query": ["b"], "prompts": ["a"]}, r"does not begin with its prompt"),
        ("/get_reward", {"prompts": ["a"]}, r"query has to be a list"),
        ("/rm", {"prompt": "a"}, r"null is not a string"),
    ],
)
def test_a_request_nobody_can_read_is_refused(
    path: str, asked: dict[str, object], match: str, reader: TemplatedText
) -> None:
    with pytest.raises(DataError, match=match):
        FORMS[path].read(asked, reader)


def test_an_evaluation_says_that_it_teaches_nothing() -> None:
    reply = {name.lower(): value for name, value in ServerSettings(learn=False).headers.items()}
    assert not teaches(reply)
    assert teaches({name.lower(): value for name, value in ServerSettings().headers.items()})


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 200_000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(DataError, match=r"the request is not"):
        read_json(body)
    assert read_json(json.dumps({"a": 1}).encode()) == {"a": 1}


def test_a_reward_that_is_no_number_is_no_fault_of_the_caller() -> None:
    """Clients ask again after 500, and give up after 422."""
    reply = error_reply(ArithmeticError("a reward is not a finite number"))
    assert (reply.status, reply.body["error"]) == (500, "the reward could not be computed (ArithmeticError)")
    refused = error_reply(DataError("no conversation was given", hint="send one"))
    assert refused == (422, {"error": "no conversation was given", "hint": "send one"})


@pytest.mark.parametrize("half", [{"learn_window": 64}, {"state_file": "x"}])
def test_learning_and_its_file_go_together(half: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="learn_window and state_file go together"):
        RewardSettings(**half)


@given(st.lists(st.floats(0.001, 3.0), min_size=1, max_size=30))
def test_a_pass_never_exceeds_its_budget_unless_one_answer_does(shares: list[float]) -> None:
    """Ray puts as many into a pass as this says fit into a hundred hundredths."""
    replica = pytest.importorskip("sarm_control.server.ray.replica", exc_type=ImportError)
    filled = replica.share_of_budget([replica.Waiting(None, share) for share in shares])
    if len(shares) == 1:
        assert filled <= 100
    elif filled <= 100:
        assert len(shares) * max(shares) <= 1.0
