"""The forms in which engines ask and are answered; see docs/serving.md for which engine sends what.

`FORMATS` is the one table of them. `sarm serve` and the replicas of a Ray deployment both read it, so that a
request means the same to either and gets the same answer.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pydantic import BaseModel
from starlette.responses import Response

from sarm_control.control import SHAPING
from sarm_control.server.http.problems import Refusal
from sarm_control.server.http.schemas import (
    ClassifyRequest,
    EmbeddingsRequest,
    OpenRlhfRequest,
    ScoreRequest,
    SlimeRequest,
)
from sarm_control.server.scoring.control_state import Answered
from sarm_control.server.scoring.conversations import (
    Conversation,
    PromptAndResponse,
    TextAndAnswer,
    WholeText,
)

VERSION_HEADER = "x-sarm-human-kl-version"
"""Response header with the version of the controls, for forms that have no field for it; see `versions`."""


class ServedModel(NamedTuple):
    """What answers say about the model beside its rewards.

    Args:
        name: what answers call the model.
        head: fingerprint of the head.
        terms: names of the parts of a reward.
    """

    name: str
    head: str
    terms: tuple[str, ...]


class EngineFormat(NamedTuple):
    """One form of request and of its answer.

    Args:
        request: the schema of what is posted.
        conversations: the conversations that a request asks about.
        response: the JSON data of the answer, from the rewards, the request and the model.
    """

    request: type[BaseModel]
    conversations: Callable[[Any], list[Conversation]]
    response: Callable[[Sequence[Answered], Any, ServedModel], Any]


def may_learn(request: BaseModel, header: bool) -> bool:
    """Whether the controls may learn from a request: its header and its body can each forbid it."""
    return header and (not isinstance(request, ScoreRequest) or request.learn)


def versions(answers: Sequence[Answered]) -> str:
    """The version of the controls behind the answers; one for each, with commas, where they differ."""
    each = [str(answer.reward.version) for answer in answers]
    return each[0] if len(set(each)) == 1 else ",".join(each)


def json_response(content: Any, answers: Sequence[Answered] = ()) -> Response:
    """A response of JSON data, with the header of versions where it holds rewards.

    Raises:
        ValueError: NaN or an infinity, which JSON cannot hold.
    """
    headers = {VERSION_HEADER: versions(answers)} if answers else None
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    return Response(body, media_type="application/json", headers=headers)


def _openrlhf_conversations(asked: OpenRlhfRequest) -> list[Conversation]:
    """Whole texts, cut where their prompts end.

    Raises:
        Refusal: another number of prompts than of queries.
    """
    queries = _listed(asked.query)
    prompts = [None] * len(queries) if not asked.prompts else _listed(asked.prompts)
    if len(prompts) != len(queries):
        raise Refusal(422, f"{len(prompts)} prompts for {len(queries)} queries", "send one for each, or none")
    return [WholeText(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]


def _openrlhf_response(answers: Sequence[Answered], _: OpenRlhfRequest, model: ServedModel) -> dict[str, Any]:
    """Numbers for one query, lists for several; the names in `extra_logs` are always the same."""
    logs = {name: [answer.column(name) for answer in answers] for name in model.terms}
    logs["human_kl/version"] = [float(answer.reward.version) for answer in answers]
    logs["truncated"] = [float(answer.truncated) for answer in answers]
    logs["ended"] = [float(answer.ended) for answer in answers]
    values = [answer.value for answer in answers]
    if len(answers) == 1:
        return {
            "rewards": values[0],
            "scores": values[0],
            "extra_logs": {name: column[0] for name, column in logs.items()},
        }
    return {"rewards": values, "scores": values, "extra_logs": logs}


def _classify_conversations(asked: ClassifyRequest) -> list[Conversation]:
    """Whole texts.

    Raises:
        Refusal: an activation is asked for: a squashed reward is another reward.
    """
    if asked.activation or asked.use_activation:
        raise Refusal(422, "rewards are given as they are, without an activation", 'send "activation": false')
    return [WholeText(text) for text in _listed(asked.input)]


def _classify_response(answers: Sequence[Answered], _: ClassifyRequest, model: ServedModel) -> dict[str, Any]:
    """As vLLM answers."""
    data = [
        # verl takes the last number of `probs`, and of `embedding` below: a list of one is the reward
        {"index": index, "label": "reward", "probs": [answer.value], "num_classes": 1}
        for index, answer in enumerate(answers)
    ]
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model.name,
        "data": data,
        "usage": _usage(answers),
    }


def _embeddings_conversations(asked: EmbeddingsRequest) -> list[Conversation]:
    """Whole texts."""
    return [WholeText(text) for text in _listed(asked.input)]


def _embeddings_response(
    answers: Sequence[Answered], _: EmbeddingsRequest, model: ServedModel
) -> dict[str, Any]:
    """As SGLang answers."""
    data = [
        {"object": "embedding", "embedding": [answer.value], "index": index}
        for index, answer in enumerate(answers)
    ]
    return {"object": "list", "data": data, "model": model.name, "usage": _usage(answers)}


def _slime_conversations(asked: SlimeRequest) -> list[Conversation]:
    """A prompt in text, templated or plain, or in turns; the answer as it was generated."""
    prompt: Any = asked.prompt
    if not isinstance(prompt, str):
        prompt = [turn.model_dump() for turn in prompt]
    return [TextAndAnswer(prompt, asked.response)]


def _slime_response(answers: Sequence[Answered], _: SlimeRequest, __: ServedModel) -> float:
    """A bare number."""
    return answers[0].value


def _score_conversations(asked: ScoreRequest) -> list[Conversation]:
    """The conversations of `/v1/score`."""
    if asked.messages is not None:
        turns = [[turn.model_dump() for turn in messages] for messages in asked.messages]
        pairs: list[tuple[Any, str]] = [(one[:-1], one[-1]["content"]) for one in turns]
    else:
        prompts = [
            one if isinstance(one, str) else [turn.model_dump() for turn in one]
            for one in asked.prompts or ()
        ]
        pairs = list(zip(prompts, asked.responses or (), strict=True))
    ended = asked.ended or [True] * len(pairs)
    return [PromptAndResponse(*pair, flag) for pair, flag in zip(pairs, ended, strict=True)]


def _score_response(answers: Sequence[Answered], asked: ScoreRequest, model: ServedModel) -> dict[str, Any]:
    return {"head": model.head, "results": [_score_result(answer, asked.top) for answer in answers]}


def _score_result(answer: Answered, top: int) -> dict[str, Any]:
    """One result of `/v1/score`; penalties are given as positive amounts."""
    columns = answer.reward.columns
    penalties = {
        name.rpartition("/")[2]: _penalty(answer.column(name))
        for name in columns
        if name.startswith("reward/penalty/")
    }
    model = answer.column("reward/model")
    result: dict[str, Any] = {
        "score": answer.value,
        "total": answer.column("reward/total"),
        "reward_model": model,
        "edited": model + answer.column("reward/edits"),
        "penalties": penalties,
        "human_kl": _penalty(answer.column("reward/human_kl")),
        "missing_end": _penalty(answer.column("reward/missing_end")),
        "ended": answer.ended,
        "truncated": answer.truncated,
        "tokens": answer.tokens,
        "human_kl_version": answer.reward.version,
    }
    if SHAPING in columns:
        result["shaping"] = answer.column(SHAPING)
    if top:
        result["contributions"] = [one._asdict() for one in answer.contributions(top)]
    return result


def _penalty(column: float) -> float:
    # -0.0 would be written as such
    return -column if column else 0.0


def _listed(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _usage(answers: Sequence[Answered]) -> dict[str, int]:
    tokens = sum(answer.tokens for answer in answers)
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}


FORMATS: Final[Mapping[str, EngineFormat]] = MappingProxyType(
    {
        "/v1/score": EngineFormat(ScoreRequest, _score_conversations, _score_response),
        "/get_reward": EngineFormat(OpenRlhfRequest, _openrlhf_conversations, _openrlhf_response),
        "/classify": EngineFormat(ClassifyRequest, _classify_conversations, _classify_response),
        "/v1/embeddings": EngineFormat(EmbeddingsRequest, _embeddings_conversations, _embeddings_response),
        "/rm": EngineFormat(SlimeRequest, _slime_conversations, _slime_response),
    }
)
"""Every form by the path it is posted to."""
