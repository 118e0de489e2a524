"""Where an answer stands in what a chat template writes.

A template is rendered twice for the same prompt, with answers that share neither their first letter nor
their last. What both renderings begin with stands before every answer, what both end with behind it. No
search can be misled by an answer that writes headers or ends of turns itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sarm_control.data import Message
from sarm_control.errors import ModelError

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
    """What a template writes before and behind an answer."""

    before: str
    after: str


def check_answers(words: Words, name: str) -> Frame:
    """What the template writes around the answer to a question, after a check that it writes the answer.

    Args:
        words: what the template writes for messages.
        name: of the model, for messages.

    Raises:
        ModelError: the template drops or rewrites answers, or refuses a question and an answer.
    """
    question = Message(role="user", content="probe")
    turns = [question, Message(role="assistant", content="probe"), question]
    for messages in (turns, [question]):
        found = _two_renderings(words, messages, name)
        for answer in _CHECKED:
            written = words([*messages, Message(role="assistant", content=answer)])
            if written != found.before + answer + found.after:
                raise _rewrites(name, answer, _between(written, found))
    return found


def frame_of(words: Words, messages: Sequence[Message], after: str) -> Frame:
    """What stands around an answer to `messages`, where `after` is what stands behind answers elsewhere.

    Raises:
        ModelError: the template refuses the conversation, or leaves its answer out.
    """
    answer = _PROBES[0]
    written = words([*messages, Message(role="assistant", content=answer)])
    if written.endswith(answer + after):
        return Frame(written[: len(written) - len(answer) - len(after)], after)
    return _two_renderings(words, messages, "this model")


def answer_start(written: str, response: str, frame: Frame) -> int:
    """Where the answer begins in what was written up to its end.

    Args:
        written: a conversation up to the answer's end, without what stands behind it.
        response: the answer as it was given.
        frame: of the conversation.
    """
    if response and not response[0].isspace() and written.endswith(response):
        return len(written) - len(response)
    return len(shared_start(written, frame.before))


def shared_start(left: str, right: str) -> str:
    """The longest text that both begin with."""
    if left.startswith(right):
        return right
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    return left[:low]


def left_out(written: str, response: str, start: int) -> str:
    """What of an answer was not written; empty where only white space differs.

    Args:
        written: a conversation up to the answer's end.
        response: the answer as it was given.
        start: where it begins in `written`.
    """
    if _bare(written).endswith(_bare(response)):
        return ""
    rest, whole = written[start:].strip(), response.strip()
    return whole.removesuffix(rest).strip() if rest and whole.endswith(rest) else whole


def _two_renderings(words: Words, messages: Sequence[Message], name: str) -> Frame:
    one, other = (words([*messages, Message(role="assistant", content=answer)]) for answer in _PROBES)
    if one == other:
        raise ModelError(
            f"the chat template of {name} writes the same whatever the answer is, so every answer would be "
            "paid the same",
            hint=_ANOTHER,
        )
    before = shared_start(one, other)
    after = shared_start(one[len(before) :][::-1], other[len(before) :][::-1])[::-1]
    found = Frame(before, after)
    for answer, written in zip(_PROBES, (one, other), strict=True):
        if written != before + answer + after:
            raise _rewrites(name, answer, _between(written, found))
    return found


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
    """Both texts from a little before the place where they part."""
    place = max(0, len(shared_start(left, right)) - 20)
    return left[place:], right[place:]


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")


def _bare(text: str) -> str:
    return "".join(text.split())
