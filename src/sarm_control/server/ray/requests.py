"""The requests that replicas of `sarm_control.server.ray.deployment` answer over HTTP, by their paths.

Shapes: `N` answers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.bounded_json import parse_json
from sarm_control.conversation import Rendered, TemplatedText
from sarm_control.engines import LEARN_HEADER
from sarm_control.errors import DataError, SarmError
from sarm_control.server.ray.settings import AnswerReward


def teaches(headers: Mapping[str, str]) -> bool:
    """Whether the controls may learn from a request: not where its headers, in small letters, say no."""
    return headers.get(LEARN_HEADER.lower(), "true").lower() not in ("false", "0", "no", "off")


class Form(NamedTuple):
    """How a kind of request is read, and how its answers are written."""

    read: Callable[[Mapping[str, Any], TemplatedText], list[Rendered]]
    write: Callable[[list[AnswerReward]], Any]


def read_json(body: bytes) -> Mapping[str, Any]:
    """The body of a request.

    Raises:
        DataError: it is no JSON object.
    """
    try:
        found = parse_json(body.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"the request is not JSON: {error}") from error
    if not isinstance(found, Mapping):
        raise DataError("the request is not a JSON object")
    return found


class ErrorReply(NamedTuple):
    """How an error is answered."""

    status: int
    body: dict[str, str | None]


def error_reply(error: SarmError | ArithmeticError) -> ErrorReply:
    """What a caller can put right is 422; a reward that is no number is the model's fault: 500."""
    if isinstance(error, SarmError):
        return ErrorReply(422, {"error": str(error), "hint": error.hint})
    message = f"the reward could not be computed ({type(error).__name__})"
    return ErrorReply(500, {"error": message, "hint": "the replica's log says where"})


def _scores(found: Mapping[str, Any], reader: TemplatedText) -> list[Rendered]:
    """`prompts`, `responses` and, where some did not end, `ended`."""
    unknown = sorted(set(found) - {"prompts", "responses", "ended"})
    if unknown:
        raise DataError(
            f"unknown key {unknown[0]!r}: a request has prompts, responses and, if need be, ended"
        )
    prompts, responses = _list(found, "prompts"), _list(found, "responses")
    ended = _flags(found, "ended") if "ended" in found else [True] * len(responses)
    _same_length({"prompts": prompts, "responses": responses, "ended": ended})
    return [
        reader.template.render(_prompt(prompt), _text(response), ended=end)
        for prompt, response, end in zip(prompts, responses, ended, strict=True)
    ]


def _openrlhf(found: Mapping[str, Any], reader: TemplatedText) -> list[Rendered]:
    """`query`, N texts in the template's words, and the `prompts` they begin with."""
    queries = _list(found, "query")
    prompts = _list(found, "prompts") if found.get("prompts") else [None] * len(queries)
    _same_length({"query": queries, "prompts": prompts})
    return [
        reader.render(_text(query), None if prompt is None else _text(prompt))
        for query, prompt in zip(queries, prompts, strict=True)
    ]


def _openrlhf_answer(answer_rewards: list[AnswerReward]) -> dict[str, Any]:
    """Numbers for one query, lists for several."""
    logs = [_logged(one) for one in answer_rewards]
    rewards = _one_or_all([one["score"] for one in answer_rewards])
    named = {name: _one_or_all([one[name] for one in logs]) for name in (logs[0] if logs else ())}
    return {"rewards": rewards, "scores": rewards, "extra_logs": named}


def _logged(one: AnswerReward) -> dict[str, float]:
    return {
        **one["terms"],
        "human_kl/version": float(one["human_kl_version"]),
        "truncated": float(one["truncated"]),
        "ended": float(one["ended"]),
    }


def _score_answer(answer_rewards: list[AnswerReward]) -> dict[str, Any]:
    """As `sarm serve` answers: charges are positive amounts."""
    return {"results": [_score(one) for one in answer_rewards]}


def _score(one: AnswerReward) -> dict[str, Any]:
    terms = one["terms"]
    amounts = {name: 0.0 - value for name, value in terms.items()}
    shaped = {"shaping": terms["reward/shaping"]} if "reward/shaping" in terms else {}
    prefix = "reward/penalty/"
    return {
        "score": one["score"],
        "total": terms["reward/total"],
        "reward_model": terms["reward/model"],
        "edited": terms["reward/model"] + terms["reward/edits"],
        "penalties": {name.removeprefix(prefix): amounts[name] for name in terms if name.startswith(prefix)},
        "human_kl": amounts["reward/human_kl"],
        "missing_end": amounts["reward/missing_end"],
        **shaped,
        **{name: one[name] for name in ("ended", "truncated", "tokens", "human_kl_version")},
    }


def _slime(found: Mapping[str, Any], reader: TemplatedText) -> list[Rendered]:
    """One `prompt`, templated or plain or messages, and its `response`."""
    prompt, response = _prompt(found.get("prompt")), _text(found.get("response"))
    return [reader.render_answer(prompt, response)]


FORMS = {
    "/v1/score": Form(_scores, _score_answer),
    "/get_reward": Form(_openrlhf, _openrlhf_answer),
    "/rm": Form(_slime, lambda answer_rewards: answer_rewards[0]["score"]),
}


def _one_or_all(values: Sequence[float]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def _list(found: Mapping[str, Any], key: str) -> list[Any]:
    value = found.get(key)
    if not isinstance(value, list):
        raise DataError(f"{key} has to be a list")
    return value


def _flags(found: Mapping[str, Any], key: str) -> list[bool]:
    values = _list(found, key)
    other = next((place for place, value in enumerate(values) if not isinstance(value, bool)), None)
    if other is not None:
        raise DataError(f"{key}[{other}] is {_shown(values[other])}, neither true nor false")
    return values


def _same_length(lists: Mapping[str, Sequence[Any]]) -> None:
    if len({len(one) for one in lists.values()}) > 1:
        raise DataError(f"{', '.join(lists)} have to be lists of the same length")
    if not all(lists.values()):
        raise DataError("no conversation was given")


def _prompt(given: Any) -> Any:
    if not isinstance(given, list):
        return _text(given)
    if not given or not all(isinstance(turn, Mapping) and {"role", "content"} <= set(turn) for turn in given):
        raise DataError("a prompt is a string or a list of messages with role and content")
    return [{"role": _text(turn["role"]), "content": _text(turn["content"])} for turn in given]


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise DataError(f"{_shown(given)} is not a string")
    try:
        given.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{_shown(given)} holds half a character (a surrogate without its pair)") from error
    return given


def _shown(given: Any) -> str:
    return json.dumps(given)[:80]
