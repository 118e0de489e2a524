"""The words a conversation is made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


Prompt: TypeAlias = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one (prompt, answer), ready for the trunk.

    Args:
        input_ids: at most one begin-of-text first, the end-of-turn of the answer last.
        prompt_length: tokens before the answer; the answer is `input_ids[prompt_length:-1]`.
        truncated: tokens dropped from the left, 0 when the conversation fitted.
        ended: false when the answer had no end-of-turn of its own and one was appended.
    """

    input_ids: list[int]
    prompt_length: int
    truncated: int
    ended: bool

    @property
    def answer_length(self) -> int:
        """Tokens of the answer without its end-of-turn."""
        return len(self.input_ids) - self.prompt_length - 1


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt as chat messages; a plain string is one user turn."""
    if isinstance(prompt, str):
        return [Message(role="user", content=prompt)]
    return [Message(role=turn["role"], content=turn["content"]) for turn in prompt]


def prompt_key(prompt: Prompt) -> str:
    """The text that decides whether two prompts are the same prompt.

    Statistics are clustered by it and disjointness is checked on it, so a plain
    string and a single user turn with the same words are one prompt.
    """
    messages = as_messages(prompt)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"].strip()
    return json.dumps([[turn["role"], turn["content"].strip()] for turn in messages], ensure_ascii=False)
