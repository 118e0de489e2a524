"""Each form of rows as the plain fields that say the same: pure functions of one row's fields."""

from collections.abc import Collection, Mapping
from typing import Any

from sarm_control.data.lines import Reason, type_name
from sarm_control.data.messages import Message
from sarm_control.data.shapes.transcripts import asked_turns, is_transcript, transcript_turns
from sarm_control.data.shapes.turns import answer_turns, as_prompt, split_answer, turns_of

Fields = Mapping[str, Any]
"""A row's fields; none is null."""

_SIDES = ("chosen", "rejected")
_ANSWERS = ("response", "answer", "chosen", "rejected", "candidates", "completion")


def plain(fields: Fields, want: Collection[str]) -> dict[str, Any]:
    """Our own form."""
    del want
    return dict(fields)


def transcripts(fields: Fields, want: Collection[str]) -> dict[str, Any]:
    """Chosen and rejected are whole transcripts, or the prompt is one that waits for the answer."""
    del want
    prompt = fields.get("prompt")
    before = asked_turns(prompt, "prompt") if is_transcript(prompt) else None
    if not any(is_transcript(fields.get(side)) for side in _SIDES):
        answers = {name: _after_mark(fields[name]) for name in _ANSWERS if name in fields}
        if "completion" in answers:
            answers["response"] = answers.pop("completion")
        return {"prompt": as_prompt(before or [], "prompt"), **answers}
    turns = {side: transcript_turns(fields.get(side), side) for side in _SIDES}
    # where it is a transcript itself, `_pair` compares turn by turn
    if isinstance(prompt, str) and before is None:
        _check_asked(prompt, turns["chosen"])
    return _pair(turns, before)


def conversations_of_pairs(fields: Fields, want: Collection[str]) -> dict[str, Any]:
    """Chosen and rejected are conversations that begin with the same turns; a prompt text is one of them."""
    del want
    turns = {side: answer_turns(fields[side], side) for side in _SIDES if side in fields}
    for side in _SIDES:
        if side not in turns:
            raise Reason(f"no {side} field beside the messages: has keys [{', '.join(fields)}]")
    prompt = fields.get("prompt")
    if prompt is None:
        return _pair(turns, _asked_in_messages(fields))
    if isinstance(prompt, list):
        return _pair(turns, turns_of(prompt, "prompt"))
    if not isinstance(prompt, str):
        raise Reason(f"prompt is {type_name(prompt)}, wants a string or a list of messages")
    # answers alone, as one message each: the prompt is what they answer
    if all(len(one) == 1 for one in turns.values()):
        return _pair(turns, [Message(role="user", content=prompt)])
    _check_asked(prompt, turns["chosen"])
    return _pair(turns, None)


def sharegpt(fields: Fields, want: Collection[str]) -> dict[str, Any]:
    """`conversations` of human and gpt, ending with the answer, or chosen and rejected beside them."""
    del want
    turns = _with_system(fields, turns_of(fields["conversations"], "conversations"))
    if any(side in fields for side in _SIDES):
        return {"prompt": as_prompt(turns, "conversations")} | {
            side: _last_said(fields[side], side) for side in _SIDES if side in fields
        }
    if turns[-1]["role"] != "assistant":
        return {"prompt": as_prompt(turns, "conversations")}
    asked, answer = split_answer(turns, "conversations")
    return {"prompt": as_prompt(asked, "conversations"), "response": answer}


def completion(fields: Fields, want: Collection[str]) -> dict[str, Any]:
    """Prompt and completion: texts, or messages of both."""
    del want
    return {"prompt": fields["prompt"], "response": _last_said(fields["completion"], "completion")}


def alpaca(fields: Fields, want: Collection[str]) -> dict[str, Any]:
    """Instruction, its input below it, and output; or chosen and rejected in the output's place."""
    del want
    parts = [_string(fields[name], name) for name in ("instruction", "input") if name in fields]
    asked = "\n\n".join(part for part in parts if part.strip())
    if not asked:
        raise Reason("instruction is empty", "a prompt has at least one character that is not white space")
    turns = _with_system(fields, [*_history(fields), Message(role="user", content=asked)])
    prompt = {"prompt": as_prompt(turns, "instruction")}
    if "output" in fields:
        return {**prompt, "response": _string(fields["output"], "output")}
    return {**prompt, **{side: fields[side] for side in _SIDES if side in fields}}


def helpsteer3(fields: Fields, want: Collection[str]) -> dict[str, Any]:
    """Two responses to a context and which is better: below 0 the first, above 0 the second."""
    context, preference = fields["context"], fields.get("overall_preference")
    prompt = context if isinstance(context, str) else as_prompt(turns_of(context, "context"), "context")
    first, second = (_string(fields[name], name) for name in ("response1", "response2"))
    if isinstance(preference, bool) or not isinstance(preference, int | float):
        raise Reason(f"overall_preference is {type_name(preference)}, wants a number from -3 to 3")
    # a tie is no pair, and its two answers can still be scored or chosen from
    if preference == 0:
        if not {"candidates", "prompt"} & set(want):
            raise Reason(
                "overall_preference is 0: neither response is preferred",
                "set such rows aside with --skip-bad-rows",
            )
        return {"prompt": prompt, "candidates": [first, second]}
    better, worse = (first, second) if preference < 0 else (second, first)
    return {"prompt": prompt, "chosen": better, "rejected": worse}


def _pair(turns: Mapping[str, list[Message]], before: list[Message] | None) -> dict[str, Any]:
    """A pair of conversations: after `before`, or both with the same turns before their answers."""
    asked, answers = {}, {}
    for side in _SIDES:
        asked[side], answers[side] = split_answer(turns[side], side)
        if before is not None and not asked[side]:
            asked[side] = before
        elif before is not None and asked[side] != before:
            raise Reason(f"the turns of {side} before its answer are not the prompt's")
    # a reward model compares two answers to one prompt; margins between prompts mean nothing
    if asked["chosen"] != asked["rejected"]:
        raise Reason(
            "chosen and rejected are answers to other turns: they differ before their last",
            "a pair is two answers to one conversation; set such rows aside with --skip-bad-rows",
        )
    return {"prompt": as_prompt(asked["chosen"], "chosen"), **answers}


def _asked_in_messages(fields: Fields) -> list[Message] | None:
    """`messages` beside the answers are their prompt, unless they are a conversation that was answered."""
    if "messages" not in fields:
        return None
    turns = turns_of(fields["messages"], "messages")
    return None if turns[-1]["role"] == "assistant" else turns


def _check_asked(prompt: str, turns: list[Message]) -> None:
    """The prompt beside whole conversations says what one of their turns asks; white space may differ."""
    # any turn and not the last alone: some data sets give the first question of a conversation as its prompt
    said = {" ".join(turn["content"].split()) for turn in turns if turn["role"] != "assistant"}
    if " ".join(prompt.split()) not in said:
        raise Reason(
            "prompt is not what a turn of chosen asks",
            "where the conversations hold the whole prompt, leave the field prompt out",
        )


def _last_said(value: Any, name: str) -> Any:
    """A text, or a list of them, as it is; of one message or a list of one its content."""
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, dict | list):
        return value
    turns = answer_turns(value, name)
    before, answer = split_answer(turns, name)
    if before:
        raise Reason(f"{name} holds {len(turns)} messages, wants the assistant's alone")
    return answer


def _after_mark(value: Any) -> Any:
    """Answers after `Assistant:`, without the space that belongs to the mark."""
    if isinstance(value, list):
        return [_after_mark(item) for item in value]
    return value.removeprefix(" ") if isinstance(value, str) else value


def _with_system(fields: Fields, turns: list[Message]) -> list[Message]:
    system = _string(fields.get("system", ""), "system")
    return [Message(role="system", content=system), *turns] if system.strip() else turns


def _history(fields: Fields) -> list[Message]:
    history = fields.get("history", [])
    if not isinstance(history, list):
        raise Reason(f"history is {type_name(history)}, wants a list of [instruction, output] pairs")
    turns: list[Message] = []
    for i, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Reason(f"history[{i}] is not an [instruction, output] pair")
        asked, said = (_string(text, f"history[{i}][{j}]") for j, text in enumerate(pair))
        turns += [Message(role="user", content=asked), Message(role="assistant", content=said)]
    return turns


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Reason(f"{name} is {type_name(value)}, wants a string")
    return value
