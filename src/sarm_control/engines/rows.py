"""Prompts and completions as engines hand them over: strings or messages, to what a reward model reads."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from sarm_control.conversation import ChatTemplate, Prompt
from sarm_control.errors import DataError

EngineText: TypeAlias = str | Sequence[Mapping[str, Any]]


class Conversation(NamedTuple):
    """What is scored: the answer `response` to `prompt`."""

    prompt: Prompt
    response: str


def conversation(prompt: EngineText, completion: EngineText, special: Sequence[str] = ()) -> Conversation:
    """One prompt and its completion.

    - A plain prompt is one user turn, whatever the policy makes of it. A chat template that was applied
      to it already would be applied twice, so a prompt that holds one of `special` is refused.
    - A prompt that ends with an assistant's message is a beginning that the completion goes on with.
    - Of a completion of several messages (tool calls and their results) the last assistant's is the
      answer, those before it belong to the prompt.

    Args:
        prompt: a string, or messages whose contents are strings or text parts.
        completion: a string or messages, without the end token.
        special: see `special_texts`.

    Raises:
        DataError: special tokens in a plain prompt, no assistant's message, or content that is not text.
    """
    turns = _plain(prompt, special) if isinstance(prompt, str) else [_message(turn) for turn in prompt]
    written = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    answer = [_message(turn) for turn in written]
    if not answer or answer[-1]["role"] != "assistant":
        raise DataError("a completion has no assistant's message at its end")
    *between, last = answer
    begun = ""
    if turns and not between and turns[-1]["role"] == "assistant":
        *turns, beginning = turns
        begun = beginning["content"]
    return Conversation([*turns, *between], begun + last["content"])


def special_texts(template: ChatTemplate) -> tuple[str, ...]:
    """The texts of tokens that a chat template writes and a user does not."""
    tokenizer = template.tokenizer
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    texts = dict.fromkeys([*map(str, tokenizer.all_special_tokens), *added])
    return tuple(text for text in texts if text != tokenizer.unk_token)


def _plain(prompt: str, special: Sequence[str]) -> list[dict[str, str]]:
    found = next((text for text in special if text in prompt), None)
    if found is not None:
        raise DataError(
            f"a plain prompt holds the special token {found}: a chat template was applied to it already",
            hint='give messages ([{"role": "user", "content": ...}]); the engine applies the template itself',
        )
    return [{"role": "user", "content": prompt}]


def _message(turn: Mapping[str, Any]) -> dict[str, str]:
    return {"role": str(turn["role"]), "content": _text(turn.get("content"))}


def _text(content: Any) -> str:
    """Content as engines write it: a string, text parts, or nothing beside a tool call."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part if isinstance(part, Mapping) else {"type": type(part).__name__} for part in content]
    other = next((part.get("type") for part in parts if part.get("type") != "text"), None)
    if other is not None:
        raise DataError(f"a message holds a part of type {other}; a SARM reads text only")
    return "".join(str(part["text"]) for part in parts)
