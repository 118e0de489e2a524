"""Prompts and completions as engines give them (strings or messages), rendered in a chat template."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from sarm_control.conversation import Rendered, TemplatedText
from sarm_control.errors import DataError
from sarm_control.reward_model import OnNonfinite, RewardModel, Scored

EngineText: TypeAlias = str | Sequence[Mapping[str, Any]]
Turn: TypeAlias = dict[str, str]


class Completion(NamedTuple):
    """A completion: the text that is scored, and the turns before it, which belong to the prompt."""

    text: str
    before: list[Turn]


def score_rows(
    model: RewardModel,
    prompts: Sequence[EngineText],
    completions: Sequence[EngineText],
    ended: Sequence[bool],
    *,
    on_nonfinite: OnNonfinite = "raise",
) -> Scored:
    """Latents and rewards of N completions.

    - A plain prompt is one user turn, however the policy renders it. If the reward model's chat template was
      applied to it already, it is read as that conversation.
    - If a prompt ends with an assistant's message, the completion continues that message.
    - If a completion has several messages (tool calls and their results), the last one is the answer; those
      before it belong to the prompt.

    Args:
        model: the reward model.
        prompts: [N] strings, or messages whose contents are strings or text parts.
        completions: [N] strings or messages, without the end token.
        ended: [N] whether each answer ended; false where it hit the length limit.
        on_nonfinite: see `RewardModel.score`.

    Raises:
        NonFiniteError: see `RewardModel.score`.
        DataError: a plain prompt in another model's chat template, a completion whose last message is not
            the assistant's, content that is not text.
    """
    reader, rows = TemplatedText(model.template), zip(prompts, completions, ended, strict=True)
    encoded = model.template.encode_rendered([_render(reader, *row) for row in rows])
    return model.score_encoded(encoded, on_nonfinite=on_nonfinite)


def _render(reader: TemplatedText, prompt: EngineText, completion: EngineText, ended: bool) -> Rendered:
    answer = _answer(completion)
    if isinstance(prompt, str) and not answer.before:
        return reader.render_answer(prompt, answer.text)._replace(ended=ended)
    turns = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [_turn(one) for one in prompt]
    )
    begun = ""  # the beginning of the answer that the prompt holds already
    if turns and not answer.before and turns[-1]["role"] == "assistant":
        *turns, beginning = turns
        begun = beginning["content"]
    return reader.template.render([*turns, *answer.before], begun + answer.text, ended=ended)


def _answer(completion: EngineText) -> Completion:
    if isinstance(completion, str):
        return Completion(completion, [])
    turns = [_turn(one) for one in completion]
    if not turns or turns[-1]["role"] != "assistant":
        raise DataError("a completion has no assistant's message at its end")
    return Completion(turns[-1]["content"], turns[:-1])


def _turn(message: Mapping[str, Any]) -> Turn:
    return {"role": str(message["role"]), "content": _text(message.get("content"))}


def _text(content: Any) -> str:
    """The text of a message: a string, text parts joined, or nothing where there is only a tool call."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part if isinstance(part, Mapping) else {"type": type(part).__name__} for part in content]
    other = next((part.get("type") for part in parts if part.get("type") != "text"), None)
    if other is not None:
        raise DataError(f"a message holds a part of type {other}; a SARM reads text only")
    return "".join(str(part["text"]) for part in parts)
