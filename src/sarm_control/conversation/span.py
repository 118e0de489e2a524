"""Finds the place of an answer in the text that a chat template writes.

A template is rendered twice for the same prompt, with answers that share neither their first nor their last
letter. The common beginning of both renderings is the text before every answer; the common end is the text
after it. So an answer that contains headers or end-of-turn tokens cannot mislead a search.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sarm_control.data import Message
from sarm_control.errors import ModelError

# they share neither first nor last letter: what both renderings have in common is the template's own
_PROBES = ("probe", "other")
_CHECKED = (
    *_PROBES,
    "Two  spaces, then\n\nlines;\t\"quotes\" & 'marks' < > {{ x }} {% y %} 12.5 \u00c4\u4e2d\U0001f600 end",
    "A long answer. " * 400 + "It ends here",
)
_LONGEST_SHOWN = 60
_ANOTHER = "use a tokenizer whose chat template writes answers as they are"

Words = Callable[[Sequence[Message]], str]


class Frame(NamedTuple):
    """The text of a template before and after an answer."""

    before: str
    after: str


def check_answers(words: Words, name: str) -> Frame:
    """The text around the answer to a question, after a check that the template writes answers unchanged.

    Args:
        words: renders messages by the template.
        name: of the model, for error messages.

    Raises:
        ModelError: the template drops or rewrites answers, or refuses a question and an answer.
    """
    question = Message(role="user", content="probe")
    # behind earlier turns a template may write an answer otherwise
    turns = [question, Message(role="assistant", content="probe"), question]
    for messages in (turns, [question]):
        frame = _two_renderings(words, messages, name)
        for answer in _CHECKED:
            written = words([*messages, Message(role="assistant", content=answer)])
            if written != frame.before + answer + frame.after:
                raise _rewrites(name, answer, _between(written, frame))
    return frame


def frame_of(words: Words, messages: Sequence[Message], after: str) -> Frame:
    """The text around an answer to `messages`; `after` is the text that follows answers to other messages.

    Raises:
        ModelError: the template refuses the conversation, or leaves its answer out.
    """
    answer = _PROBES[0]
    written = words([*messages, Message(role="assistant", content=answer)])
    # one rendering is enough where the text after the answer is the known one
    if written.endswith(answer + after):
        return Frame(written[: len(written) - len(answer) - len(after)], after)
    return _two_renderings(words, messages, "this model")


def answer_start(written: str, response: str, frame: Frame) -> int:
    """The position in `written` where the answer begins.

    Args:
        written: a conversation up to the end of the answer, without the text after it.
        response: the answer as it was given.
        frame: of the conversation.
    """
    if response and not response[0].isspace() and written.endswith(response):
        return len(written) - len(response)
    return len(shared_start(written, frame.before))


def shared_start(left: str, right: str) -> str:
    """The longest common beginning of two texts."""
    if left.startswith(right):
        return right
    # a binary search compares slices in C; a loop over characters is slow for long conversations
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    return left[:low]


def left_out(written: str, response: str, start: int) -> str:
    """The part of an answer that the template left out; empty where only white space differs.

    Args:
        written: a conversation up to the end of the answer.
        response: the answer as it was given.
        start: the position in `written` where it begins.
    """
    if _bare(written).endswith(_bare(response)):
        return ""
    rest, whole = written[start:].strip(), response.strip()
    return whole.removesuffix(rest).strip() if rest and whole.endswith(rest) else whole


def _two_renderings(words: Words, messages: Sequence[Message], name: str) -> Frame:
    one, other = (words([*messages, Message(role="assistant", content=answer)]) for answer in _PROBES)
    if one == other:
        raise ModelError(
            f"the chat template of {name} writes the same text for every answer, so every answer would get "
            "the same reward",
            hint=_ANOTHER,
        )
    before = shared_start(one, other)
    # the common end, as the common beginning of what is read backwards
    after = shared_start(one[len(before) :][::-1], other[len(before) :][::-1])[::-1]
    frame = Frame(before, after)
    for answer, written in zip(_PROBES, (one, other), strict=True):
        if written != before + answer + after:
            raise _rewrites(name, answer, _between(written, frame))
    return frame


def _between(written: str, frame: Frame) -> str:
    text = written.removeprefix(frame.before)
    return text.removesuffix(frame.after)


def _rewrites(name: str, answer: str, written: str) -> ModelError:
    asked, got = (_shown(text) for text in _first_difference(answer, written))
    return ModelError(
        f"the chat template of {name} rewrites answers: {asked} becomes {got}",
        hint=_ANOTHER,
    )


def _first_difference(left: str, right: str) -> tuple[str, str]:
    """Both texts, from 20 characters before the first difference."""
    place = max(0, len(shared_start(left, right)) - 20)
    return left[place:], right[place:]


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")


def _bare(text: str) -> str:
    return "".join(text.split())
