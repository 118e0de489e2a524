"""Turns of a conversation in the forms they are kept in, as `{"role", "content"}` with a text each."""

from typing import Any, NoReturn

from sarm_control.data.lines import Reason, type_name
from sarm_control.data.messages import Message

_TOOL_ROLES = ("tool", "function", "function_call", "function_response", "observation", "ipython")
_SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model"), "assistant"),
    "system": "system",
}
_NO_TOOLS = "drop rows with tool turns, or set them aside with --skip-bad-rows"


def turns_of(value: Any, name: str) -> list[Message]:
    """The turns of a list of `{"role", "content"}` or `{"from", "value"}` objects.

    Args:
        value: the list; a content is a text or a list of `{"type": "text"}` parts, which are joined.
        name: of the field, for messages.

    Raises:
        Reason: not such a list, a part that is no text, or a turn that calls a tool or is its reply.
    """
    if not isinstance(value, list) or not value:
        raise Reason(f'{name} is {type_name(value)}, wants a list of {{"role", "content"}} messages')
    return [_turn(item, f"{name}[{i}]") for i, item in enumerate(value)]


def answer_turns(value: Any, name: str) -> list[Message]:
    """As `turns_of`; one message may stand alone."""
    return [_turn(value, name)] if isinstance(value, dict) else turns_of(value, name)


def split_answer(turns: list[Message], name: str) -> tuple[list[Message], str]:
    """The turns before the last, and the last, which has to be the assistant's.

    Raises:
        Reason: it is another's.
    """
    if turns[-1]["role"] != "assistant":
        raise Reason(f"{name} ends with the turn of {turns[-1]['role']}, not with the assistant's answer")
    return turns[:-1], turns[-1]["content"]


def as_prompt(turns: list[Message], name: str) -> Any:
    """Turns as the prompt of a plain row: a single user turn is its text.

    Raises:
        Reason: there is no turn.
    """
    if not turns:
        raise Reason(f"{name} holds only the assistant's message, no prompt")
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    return [dict(turn) for turn in turns]


def _turn(item: Any, name: str) -> Message:
    if isinstance(item, dict) and {"role", "content"} <= item.keys():
        if not isinstance(item["role"], str):
            raise Reason(f"{name}.role is {type_name(item['role'])}, wants a string")
        _check_no_tool(item, item["role"], name)
        return Message(role=item["role"], content=_text(item["content"], f"{name}.content"))
    if isinstance(item, dict) and {"from", "value"} <= item.keys():
        return _said(item, name)
    raise Reason(f'{name} is not a {{"role", "content"}} message')


def _said(item: dict[str, Any], name: str) -> Message:
    speaker = item["from"]
    if isinstance(speaker, str):
        _check_no_tool(item, speaker, name)
        if speaker in _SPEAKERS:
            return Message(role=_SPEAKERS[speaker], content=_text(item["value"], f"{name}.value"))
    shown = repr(speaker[:40]) if isinstance(speaker, str) else type_name(speaker)
    raise Reason(f"{name}.from is {shown}, wants human, gpt or system")


def _check_no_tool(item: dict[str, Any], role: str, name: str) -> None:
    if role in _TOOL_ROLES:
        _no_tool(f"{name} is a turn of role {role}")
    for call in ("tool_calls", "function_call"):
        if item.get(call):
            _no_tool(f"{name} has {call}")


def _no_tool(what: str) -> NoReturn:
    raise Reason(f"tool turns are not read: {what}", _NO_TOOLS)


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise Reason(f"{name} is {type_name(value)}, wants a string")
    return "".join(_part(part, f"{name}[{i}]") for i, part in enumerate(value))


def _part(part: Any, name: str) -> str:
    if not isinstance(part, dict):
        raise Reason(f'{name} is {type_name(part)}, wants {{"type": "text", "text": ...}}')
    kind, text = part.get("type"), part.get("text")
    if kind == "text" and isinstance(text, str):
        return text
    shown = repr(kind[:40]) if isinstance(kind, str) else type_name(kind)
    raise Reason(f'{name} is a part of type {shown}, only {{"type": "text", "text": ...}} is read')
