"""The forms in which engines ask and are answered; see docs/serving.md for which engine sends what."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from sarm_control.control import SHAPING
from sarm_control.server.http.problems import Refusal
from sarm_control.server.http.schemas import (
    ClassifyRequest,
    EmbeddingsRequest,
    OpenRlhfRequest,
    ScoreRequest,
    SlimeRequest,
)
from sarm_control.server.scoring.conversations import (
    Conversation,
    PromptAndResponse,
    TextAndAnswer,
    WholeText,
)
from sarm_control.server.scoring.scorer import Answered

VERSION_HEADER = "x-sarm-human-kl-version"
"""Response header of the forms that have no room for it; see `versions`."""
LEARN_HEADER = "x-sarm-learn"
"""Request header; `false` keeps the controls from learning from what is asked about."""


def versions(answers: Sequence[Answered]) -> str:
    """The version that paid for the answers; one for each, with commas, where there were several."""
    each = [str(answer.reward.version) for answer in answers]
    return each[0] if len(set(each)) == 1 else ",".join(each)


def openrlhf_conversations(asked: OpenRlhfRequest) -> list[Conversation]:
    """Whole texts, cut where their prompts end.

    Raises:
        Refusal: another number of prompts than of queries.
    """
    queries = _listed(asked.query)
    prompts = [None] * len(queries) if not asked.prompts else _listed(asked.prompts)
    if len(prompts) != len(queries):
        raise Refusal(422, f"{len(prompts)} prompts for {len(queries)} queries", "send one for each, or none")
    return [WholeText(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]


def openrlhf_answer(answers: Sequence[Answered], terms: Sequence[str], *, one: bool) -> dict[str, Any]:
    """Numbers for one query, lists for several; the names in `extra_logs` are always the same."""
    logs = {name: [answer.column(name) for answer in answers] for name in terms}
    logs["human_kl/version"] = [float(answer.reward.version) for answer in answers]
    logs["truncated"] = [float(answer.truncated) for answer in answers]
    logs["ended"] = [float(answer.ended) for answer in answers]
    values = [answer.value for answer in answers]
    if one:
        return {
            "rewards": values[0],
            "scores": values[0],
            "extra_logs": {name: column[0] for name, column in logs.items()},
        }
    return {"rewards": values, "scores": values, "extra_logs": logs}


def classified(asked: ClassifyRequest) -> list[Conversation]:
    """Whole texts.

    Raises:
        Refusal: an activation is asked for: a squashed reward is another reward.
    """
    if asked.activation or asked.use_activation:
        raise Refusal(422, "rewards are given as they are, without an activation", 'send "activation": false')
    return [WholeText(text) for text in _listed(asked.input)]


def classify_answer(answers: Sequence[Answered], model: str) -> dict[str, Any]:
    """As vLLM answers."""
    data = [
        {"index": index, "label": "reward", "probs": [answer.value], "num_classes": 1}
        for index, answer in enumerate(answers)
    ]
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": _usage(answers),
    }


def embedded(asked: EmbeddingsRequest) -> list[Conversation]:
    """Whole texts."""
    return [WholeText(text) for text in _listed(asked.input)]


def embeddings_answer(answers: Sequence[Answered], model: str) -> dict[str, Any]:
    """As SGLang answers."""
    data = [
        {"object": "embedding", "embedding": [answer.value], "index": index}
        for index, answer in enumerate(answers)
    ]
    return {"object": "list", "data": data, "model": model, "usage": _usage(answers)}


def slime_conversation(asked: SlimeRequest) -> Conversation:
    """A prompt in text, templated or plain, or in turns; the answer as it was generated."""
    prompt: Any = asked.prompt
    if not isinstance(prompt, str):
        prompt = [turn.model_dump() for turn in prompt]
    return TextAndAnswer(prompt, asked.response)


def asked_conversations(asked: ScoreRequest) -> list[Conversation]:
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


def score_answer(answer: Answered, top: int) -> dict[str, Any]:
    """One result of `/v1/score`; charges are given as positive amounts."""
    found = answer.reward.columns
    penalties = {
        name.rpartition("/")[2]: _charge(answer.column(name))
        for name in found
        if name.startswith("reward/penalty/")
    }
    model = answer.column("reward/model")
    result: dict[str, Any] = {
        "score": answer.value,
        "total": answer.column("reward/total"),
        "reward_model": model,
        "edited": model + answer.column("reward/edits"),
        "penalties": penalties,
        "human_kl": _charge(answer.column("reward/human_kl")),
        "missing_end": _charge(answer.column("reward/missing_end")),
        "ended": answer.ended,
        "truncated": answer.truncated,
        "tokens": answer.tokens,
        "human_kl_version": answer.reward.version,
    }
    if SHAPING in found:
        result["shaping"] = answer.column(SHAPING)
    if top:
        result["contributions"] = [one._asdict() for one in answer.contributions(top)]
    return result


def _charge(column: float) -> float:
    return -column if column else 0.0


def _listed(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _usage(answers: Sequence[Answered]) -> dict[str, int]:
    tokens = sum(answer.tokens for answer in answers)
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
