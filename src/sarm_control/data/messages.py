"""Prompts as chat messages, and when two prompts are the same."""

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


Prompt: TypeAlias = str | Sequence[Mapping[str, str]]


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt as chat messages; a plain string is one user turn."""
    if isinstance(prompt, str):
        return [Message(role="user", content=prompt)]
    return [Message(role=turn["role"], content=turn["content"]) for turn in prompt]


def prompt_text(prompt: Prompt) -> str:
    """A prompt in one text: its words where it is one user turn, else its turns as JSON.

    A plain string and a single user turn with the same words have one text.
    """
    messages = as_messages(prompt)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"].strip()
    return json.dumps([[turn["role"], turn["content"].strip()] for turn in messages], ensure_ascii=False)


def prompt_key(prompt: Prompt) -> str:
    """The text that decides whether two prompts are the same prompt: case and white space make no other one.

    Statistics are clustered by it and disjointness is checked on it, so a plain string and a single user
    turn with the same words are one prompt.
    """
    messages = as_messages(prompt)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return _folded(messages[0]["content"])
    return json.dumps([[turn["role"], _folded(turn["content"])] for turn in messages], ensure_ascii=False)


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
