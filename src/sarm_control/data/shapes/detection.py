"""Which form a row has, by the names and types of its fields."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sarm_control.data.lines import Reason
from sarm_control.data.shapes import readers
from sarm_control.data.shapes.readers import Fields
from sarm_control.data.shapes.transcripts import is_transcript

_SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Shape:
    """One way to write rows.

    Args:
        name: as messages call it.
        uses: the fields that it is made of.
        matches: whether a row's fields, without null, are of it.
        read: the plain fields that say the same; takes the kinds of row that are wanted, too.
    """

    name: str
    uses: tuple[str, ...]
    matches: Callable[[Fields], bool]
    read: Callable[[Fields, Collection[str]], dict[str, Any]]


def shape_of(fields: Fields) -> Shape:
    """The form of a row; our own when it is no other.

    Our own names win: further fields beside a whole plain row mean nothing.

    Raises:
        Reason: it could be of several.
    """
    fields = aliased(fields)
    if _is_whole(fields):
        return PLAIN
    # their order means nothing: a row of two forms is refused and not guessed
    found = [shape for shape in OTHERS if shape.matches(fields)]
    if len(found) > 1:
        names = " or ".join(shape.name for shape in found)
        raise Reason(
            f"could be {names}: has keys [{', '.join(fields)}]",
            "say which fields count, such as --columns messages=conversations",
        )
    return found[0] if found else PLAIN


def aliased(fields: Fields) -> Fields:
    """The same with `question` under the name `prompt`, where that is not there."""
    if "question" in fields and "prompt" not in fields:
        return {"prompt": fields["question"], **fields}
    return fields


def is_plain(fields: Fields) -> bool:
    """Whether the fields are the beginning of a plain row, so that it is one, perhaps a bad one."""
    return any(name in fields for name in ("prompt", "question", "messages"))


def _is_whole(fields: Fields) -> bool:
    """A prompt and answers under our own names, and nothing in them that is a conversation."""
    asked = is_plain(fields) and not is_transcript(fields.get("prompt"))
    sides = all(side in fields for side in _SIDES) and not _conversations(fields) and not _transcripts(fields)
    answered = any(name in fields for name in ("response", "answer", "candidates"))
    return asked and (sides or (answered and not _conversations(fields)) or _is_only_messages(fields))


def _is_only_messages(fields: Fields) -> bool:
    return "messages" in fields and not any(side in fields for side in _SIDES)


def _conversations(fields: Fields) -> bool:
    return any(isinstance(_first(fields.get(side)), dict) for side in _SIDES)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _transcripts(fields: Fields) -> bool:
    return any(is_transcript(fields.get(side)) for side in _SIDES)


def _is_transcripts(fields: Fields) -> bool:
    prompt = fields.get("prompt")
    if (prompt is not None and not isinstance(prompt, str)) or _conversations(fields):
        return False
    return is_transcript(prompt) or _transcripts(fields)


def _pairs_of_messages(fields: Fields, prompt: type | None) -> bool:
    given = fields.get("prompt")
    same = given is None if prompt is None else isinstance(given, prompt)
    return same and "conversations" not in fields and _conversations(fields)


def _is_completion(fields: Fields) -> bool:
    others = ("response", "answer", "candidates", *_SIDES)
    if "prompt" not in fields or "completion" not in fields or is_transcript(fields["prompt"]):
        return False
    return not any(name in fields for name in others)


def _is_alpaca(fields: Fields) -> bool:
    answered = "output" in fields or all(side in fields for side in _SIDES)
    return "instruction" in fields and answered and not is_plain(fields)


def _is_helpsteer3(fields: Fields) -> bool:
    return all(name in fields for name in ("context", "response1", "response2")) and not is_plain(fields)


PLAIN = Shape("plain rows", (), lambda _: True, readers.plain)
OTHERS = (
    Shape(
        "UltraFeedback messages",
        ("prompt", *_SIDES, "messages"),
        lambda fields: _pairs_of_messages(fields, str),
        readers.conversations_of_pairs,
    ),
    Shape(
        "pairs of conversations",
        (*_SIDES, "messages"),
        lambda fields: _pairs_of_messages(fields, None),
        readers.conversations_of_pairs,
    ),
    Shape(
        "TRL messages with a prompt",
        ("prompt", *_SIDES, "messages"),
        lambda fields: _pairs_of_messages(fields, list),
        readers.conversations_of_pairs,
    ),
    Shape("HH-RLHF transcripts", ("prompt", *_SIDES), _is_transcripts, readers.transcripts),
    Shape(
        "ShareGPT conversations",
        ("conversations", "system", *_SIDES),
        lambda fields: "conversations" in fields and not is_plain(fields),
        readers.sharegpt,
    ),
    Shape("prompt and completion", ("prompt", "completion"), _is_completion, readers.completion),
    Shape(
        "Alpaca",
        ("instruction", "input", "output", "system", "history", *_SIDES),
        _is_alpaca,
        readers.alpaca,
    ),
    Shape(
        "HelpSteer3",
        ("context", "response1", "response2", "overall_preference"),
        _is_helpsteer3,
        readers.helpsteer3,
    ),
)
