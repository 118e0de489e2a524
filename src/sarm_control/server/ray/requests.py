"""Requests over HTTP to the replicas of a Ray deployment.

They have the forms of `sarm serve`, are read by the same schemas and refused in the same words.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from sarm_control.engines import LEARN_HEADER
from sarm_control.server.http.engine_formats import FORMATS, EngineFormat, may_learn
from sarm_control.server.http.problems import Refusal, invalid
from sarm_control.server.ray.settings import AnswerReward
from sarm_control.server.scoring.control_state import Answered
from sarm_control.server.scoring.conversations import Conversation

_FLAG = TypeAdapter(bool)
_HINT = "docs/openapi.json describes what each path takes"


class ParsedRequest(NamedTuple):
    """A request that was understood.

    Args:
        form: how it is answered.
        body: what was posted.
        conversations: what it asks about.
        learn: whether the controls may learn from it.
    """

    form: EngineFormat
    body: BaseModel
    conversations: list[Conversation]
    learn: bool


def parse_request(path: str, headers: Mapping[str, str], body: bytes) -> ParsedRequest:
    """Reads a request.

    Args:
        path: where it was posted to; only its end counts, since a deployment may have a route prefix.
        headers: by their names in lower case.
        body: as it was posted.

    Raises:
        Refusal: 404 for another path, 422 for a body or header that does not fit the schema.
    """
    form = next((form for end, form in FORMATS.items() if path.endswith(end)), None)
    if form is None:
        raise Refusal(404, f"no such path: {path}", f"this deployment answers {', '.join(FORMATS)}")
    posted = _validated(form.request, body)
    learn = may_learn(posted, _learn_header(headers))
    return ParsedRequest(form, posted, form.conversations(posted), learn)


def _validated(schema: type[BaseModel], body: bytes) -> BaseModel:
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error, "body") from None


def _learn_header(headers: Mapping[str, str]) -> bool:
    name = LEARN_HEADER.lower()
    try:
        return _FLAG.validate_python(headers.get(name, "true"))
    except ValidationError as error:
        raise _invalid(error, "header", name) from None


def _invalid(error: ValidationError, *place: str) -> Refusal:
    return invalid([{**one, "loc": (*place, *one["loc"])} for one in error.errors()], _HINT)


def answer_reward(answer: Answered) -> AnswerReward:
    """A reward as plain data, for callers inside Ray."""
    return AnswerReward(
        score=answer.value,
        terms={name: answer.column(name) for name in answer.reward.columns},
        ended=answer.ended,
        truncated=answer.truncated,
        tokens=answer.tokens,
        human_kl_version=answer.reward.version,
    )
