r"""Conversations in one text, as the HH-RLHF data have them: `\n\nHuman: ...\n\nAssistant: ...`."""

import re
from typing import Any, TypeGuard

from sarm_control.data.lines import Reason, type_name
from sarm_control.data.messages import Message

_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ ]?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: Any) -> TypeGuard[str]:
    """Whether a text is a conversation that begins with the human's turn and holds an answer."""
    return isinstance(value, str) and re.match(r"\s*Human:", value) is not None and "\n\nAssistant:" in value


def transcript_turns(value: Any, name: str) -> list[Message]:
    """The turns of a transcript; the space after a mark belongs to it, all else to the turn.

    Raises:
        Reason: it is none.
    """
    if not is_transcript(value):
        shown = "a text without turns" if isinstance(value, str) else type_name(value)
        raise Reason(f'{name} is {shown}, wants a transcript of "\\n\\nHuman: ...\\n\\nAssistant: ..."')
    _, *pieces = _MARK.split(value)
    roles, texts = pieces[::2], pieces[1::2]
    return [Message(role=_ROLES[role], content=text) for role, text in zip(roles, texts, strict=True)]


def asked_turns(value: str, name: str) -> list[Message]:
    """The turns of a transcript that is a prompt: without the mark after which the assistant is to speak."""
    turns = transcript_turns(value, name)
    return turns[:-1] if turns[-1] == Message(role="assistant", content="") else turns
