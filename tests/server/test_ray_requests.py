"""What replicas are asked over HTTP, and how they share the budget of a pass (contract, property)."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sarm_control.conversation.template import Rendered
from sarm_control.conversation.templated import TemplatedText
from sarm_control.data import Message
from sarm_control.engines.server_client import ServerSettings
from sarm_control.engines.verl import rewards_of
from sarm_control.errors import DataError
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.reward_model.scored import Scored
from sarm_control.server.ray.settings import AnswerReward, RewardSettings
from sarm_control.server.scoring.control_state import Answered, BatchReward

engine_formats = pytest.importorskip("sarm_control.server.http.engine_formats", exc_type=ImportError)
problems = pytest.importorskip("sarm_control.server.http.problems", exc_type=ImportError)
requests = pytest.importorskip("sarm_control.server.ray.requests", exc_type=ImportError)
schemas = pytest.importorskip("sarm_control.server.http.schemas", exc_type=ImportError)

TERMS = {
    "reward/model": 0.75,
    "reward/edits": -0.25,
    "reward/penalty/7": -0.25,
    "reward/human_kl": 0.0,
    "reward/missing_end": 0.0,
    "reward/total": 0.25,
}
SERVED = engine_formats.ServedModel("lab", "0123456789abcdef", tuple(TERMS))


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.from_pretrained("lab", device="cpu")


@pytest.fixture(scope="module")
def scored(model: RewardModel) -> Scored:
    return model.score(["a", "b"], ["c", "d"])


@pytest.fixture
def reader(model: RewardModel) -> TemplatedText:
    return TemplatedText(model.template)


def rewarded(scored: Scored, **more: float) -> list[Answered]:
    """Two answers in one batch, rewarded by the fourth update."""
    terms = {**TERMS, **more}
    columns = {name: [value, value] for name, value in terms.items()}
    columns["reward/model"] = [0.75, 1.5]
    batch = BatchReward([0.5, 1.5], columns, scored, 4)
    return [Answered(batch, row, 9, cached=False) for row in range(2)]


def read(path: str, asked: object, reader: TemplatedText, **headers: str) -> list[Rendered]:
    parsed = requests.parse_request(path, headers, json.dumps(asked).encode())
    return [conversation.render(reader) for conversation in parsed.conversations]


def answered(path: str, answers: Sequence[Answered]) -> Any:
    """What a path answers; `/v1/score` alone looks at what was asked."""
    asked = schemas.ScoreRequest(prompts=["a"], responses=["b"])
    return engine_formats.FORMATS[path].response(answers, asked, SERVED)


def test_every_form_of_a_conversation_is_the_same_conversation(reader: TemplatedText) -> None:
    messages: list[Message] = [{"role": "user", "content": "what is rain ?"}]
    wanted = reader.template.render("what is rain ?", "water .")
    opened = reader.template.words(messages, generation=True)
    as_scores = {"prompts": ["what is rain ?", messages], "responses": ["water .", "water ."]}
    assert read("/v1/score", as_scores, reader) == [wanted, wanted]
    turns = [*messages, {"role": "assistant", "content": "water ."}]
    assert read("/v1/score", {"messages": [turns]}, reader) == [wanted]
    whole = {"query": [wanted.whole], "prompts": [opened], "labels": [None]}
    assert read("/get_reward", whole, reader) == [wanted]
    assert read("/classify", {"input": wanted.whole}, reader) == read(
        "/v1/embeddings", {"input": [wanted.whole]}, reader
    )
    for prompt in ("what is rain ?", messages, opened):
        for end in ("", " <|eot_id|>"):
            found = read("/rm", {"prompt": prompt, "response": f"water .{end}", "label": ""}, reader)
            assert found == [reader.template.render("what is rain ?", "water .", ended=bool(end))]


def test_an_answer_that_did_not_end_is_said_not_to_have(reader: TemplatedText) -> None:
    asked = {"prompts": ["a", "a"], "responses": ["b", "b"], "ended": [True, False]}
    assert [one.ended for one in read("/v1/score", asked, reader)] == [True, False]


def test_answers_have_the_form_each_engine_reads(scored: Scored) -> None:
    both = rewarded(scored)
    assert answered("/rm", both[:1]) == 0.5
    one, two = answered("/get_reward", both[:1]), answered("/get_reward", both)
    beside = {"human_kl/version": 4.0, "truncated": 0.0, "ended": 1.0}
    assert one == {"rewards": 0.5, "scores": 0.5, "extra_logs": {**TERMS, **beside}}
    assert two["rewards"] == [0.5, 1.5]
    assert two["extra_logs"]["reward/model"] == [0.75, 1.5]
    assert set(two["extra_logs"]) == set(one["extra_logs"])


@pytest.mark.parametrize("shaped", [{}, {"reward/shaping": -0.125}])
def test_verl_reads_the_parts_out_of_what_is_answered(shaped: dict[str, float], scored: Scored) -> None:
    found = rewards_of(answered("/v1/score", rewarded(scored, **shaped)), 2, ServerSettings())
    assert [one.score for one in found] == [0.5, 1.5]
    logged = {name: value for name, value in found[0].extra.items() if name.startswith("reward/")}
    assert logged == {**TERMS, **shaped}


def test_rewards_inside_ray_are_plain_data_with_every_part(scored: Scored) -> None:
    assert requests.answer_reward(rewarded(scored)[0]) == AnswerReward(
        score=0.5,
        terms=TERMS,
        ended=bool(scored.ended[0]),
        truncated=0,
        tokens=9,
        human_kl_version=4,
    )


@pytest.mark.parametrize(
    ("path", "asked", "match"),
    [
        ("/v1/score", {"prompts": ["a"], "responses": ["b"], "model": "x"}, r"model: extra inputs are not"),
        ("/v1/score", {"prompts": ["a"], "responses": ["b", "c"]}, r"1 prompts, 2 responses"),
        ("/v1/score", {"prompts": "a", "responses": ["b"]}, r"prompts: input should be a valid array"),
        (
            "/v1/score",
            {"prompts": [[{"role": "user"}]], "responses": ["b"]},
            r"prompts\[0\]\[0\].content: field required",
        ),
        ("/v1/score", {"prompts": [7], "responses": ["b"]}, r"prompts\[0\]: input should be a valid string"),
        (
            "/v1/score",
            {"prompts": ["a", "a"], "responses": ["b", "b"], "ended": [True, 1]},
            r"ended\[1\]: input should be a valid boolean",
        ),
        (
            "/v1/score",
            {"prompts": ["a"], "responses": ["b"], "ended": ["true"]},
            r"ended\[0\]: input should be a valid boolean",
        ),
        ("/v1/score", {"prompts": [], "responses": []}, r"no conversation was given"),
        ("/get_reward", {"query": [], "prompts": []}, r"query: .*at least 1 item"),
        ("/get_reward", {"query": ["b"], "prompts": ["a"]}, r"does not begin with its prompt"),
        ("/get_reward", {"query": ["b", "c"], "prompts": ["a"]}, r"1 prompts for 2 queries"),
        ("/get_reward", {"prompts": ["a"]}, r"query: field required"),
        ("/rm", {"prompt": "a"}, r"response: field required"),
        ("/v2/score", {}, r"no such path: /v2/score"),
    ],
)
def test_a_request_nobody_can_read_is_refused(
    path: str, asked: dict[str, object], match: str, reader: TemplatedText
) -> None:
    with pytest.raises((DataError, problems.Refusal), match=match) as raised:
        read(path, asked, reader)
    refusal = problems.refusal_of(raised.value)
    assert refusal.status == (404 if path == "/v2/score" else 422)
    assert refusal.hint is not None or isinstance(raised.value, DataError)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", b'{"prompts": ["\\ud800"], "responses": ["b"]}'),
        ("/rm", b'{"prompt": [{"role": "user", "content": "\\udc00"}], "response": "b"}'),
    ],
)
def test_half_a_character_is_refused(path: str, body: bytes) -> None:
    with pytest.raises(problems.Refusal, match=r"not JSON|holds half a character"):
        requests.parse_request(path, {}, body)


def test_nothing_is_learnt_where_header_or_body_forbid_it() -> None:
    def learns(settings: ServerSettings, **more: bool) -> bool:
        headers = {name.lower(): value for name, value in settings.headers.items()}
        body = json.dumps({"prompts": ["a"], "responses": ["b"], **more}).encode()
        return bool(requests.parse_request("/v1/score", headers, body).learn)

    assert learns(ServerSettings())
    assert not learns(ServerSettings(learn=False))
    assert not learns(ServerSettings(), learn=False)
    with pytest.raises(problems.Refusal, match=r"x-sarm-learn: input should be a valid boolean"):
        requests.parse_request("/rm", {"x-sarm-learn": "perhaps"}, b'{"prompt": "a", "response": "b"}')


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 200_000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(problems.Refusal, match=r"^body: (not JSON|input should be)"):
        requests.parse_request("/v1/score", {}, body)


def test_a_reward_that_is_no_number_is_no_fault_of_the_caller() -> None:
    """Clients ask again after 500, and give up after 422."""
    reply = problems.refusal_of(ArithmeticError("a reward is not a finite number"))
    assert (reply.status, str(reply)) == (500, "the reward could not be computed (ArithmeticError)")
    refused = problems.refusal_of(DataError("no conversation was given", hint="send one"))
    assert (refused.status, str(refused), refused.hint) == (422, "no conversation was given", "send one")


@pytest.mark.parametrize("half", [{"learn_window": 64}, {"state_file": "x"}])
def test_learning_and_its_file_go_together(half: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="learn_window and state_file go together"):
        RewardSettings(**half)


@pytest.mark.long
@given(st.lists(st.floats(0.001, 3.0), min_size=1, max_size=30))
def test_a_pass_never_exceeds_its_budget_unless_one_answer_does(shares: list[float]) -> None:
    """Ray puts as many into a pass as this says fit into a hundred hundredths."""
    replica = pytest.importorskip("sarm_control.server.ray.replica", exc_type=ImportError)
    filled = replica.share_of_budget([replica.Waiting(None, share) for share in shares])
    if len(shares) == 1:
        assert filled <= 100
    elif filled <= 100:
        assert len(shares) * max(shares) <= 1.0
