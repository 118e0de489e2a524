"""Conversations that arrive as one text, to which the chat template was already applied.

RLHF engines send a prompt and its answer as their policy saw them: decoded token ids, with or without
begin-of-text, padding and end-of-turn. A score of that text as if it were a user's message, or with a second
begin-of-text, would be wrong and look right.
"""

import re
from array import array
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, islice
from typing import NamedTuple

from sarm_control.conversation.span import shared_start
from sarm_control.conversation.template import ChatTemplate, Rendered
from sarm_control.data import Message, Prompt, as_messages
from sarm_control.errors import DataError, ModelError

_PROBE = "probe"
_QUESTION = Message(role="user", content=_PROBE)
# marks of other models' templates, with the wide bars of DeepSeek and the brackets of Llama 2
_FOREIGN = re.compile(
    "<\\|\\w+\\|>|<\uff5c[^\uff5c>]{1,40}\uff5c>|<(?:start|end)_of_turn>|\\[/?INST\\]|<</?SYS>>"
)
_LONGEST_SHOWN = 60


class _Frame(NamedTuple):
    """The text of a template around an answer.

    Args:
        asked: the text of a question alone.
        header: the text between a question and its answer.
        suffix: the text that follows the header in a policy's prompt, such as the opening tag of reasoning.
        start: the position where the answer's turn begins in a rendered question and answer.
    """

    asked: str
    header: str
    suffix: str
    start: int


class _Paced(NamedTuple):
    """The bytes of a text, and how many of them there are up to the end of each header."""

    whole: bytes
    ends: list[int]

    def last_end_of(self, prompt: bytes) -> int | None:
        """The number of the last header such that the bytes up to it are the end of `prompt`; else None."""
        ours, theirs = memoryview(self.whole), memoryview(prompt)
        for number in reversed(range(len(self.ends))):
            end = self.ends[number]
            if end <= len(theirs) and ours[:end] == theirs[len(theirs) - end :]:
                return number
        return None


class TemplatedText:
    """Reads conversations that are already written by a chat template.

    The result equals that of `ChatTemplate.render` for the same prompt and answer: one begin-of-text, the
    template's own spaces around the answer, the end-of-turn last.

    Args:
        template: of the reward model.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template

    def render(self, text: str, prompt: str | None = None) -> Rendered:
        """The conversation in `text`.

        Args:
            text: the prompt and the answer. The answer ended when its end-of-turn, or the tokenizer's
                end of text, follows it; else one is appended and `ended` is false.
            prompt: the prompt alone, where it is known: templated like the text, or plain text with which
                `text` begins. Without it the answer begins after the last assistant header.

        Raises:
            DataError: no answer can be found in the text, or it is templated for another model.
        """
        text = self._without_opening(text)
        if prompt is None:
            header = self._last_header(text)
            if header is None:
                raise self._not_templated(text)
            return self._rendered(text, header)
        prompt = self._without_opening(prompt)
        if self._last_header(prompt) is None:
            return self._plain(text, prompt)
        return self._rendered(text, self._header_of(text, prompt))

    def render_answer(self, prompt: Prompt, response: str) -> Rendered:
        """The conversation of a prompt and a separate answer; the prompt is templated, plain, or messages.

        In each case the answer ended when its last token is an end-of-turn or end of text.

        Raises:
            DataError: the prompt is templated for another model.
        """
        text = (
            prompt if isinstance(prompt, str) else self.template.words(as_messages(prompt), generation=True)
        )
        opened = self._without_opening(text)
        if self._last_header(opened) is None:
            return self._plain(opened + response, opened)
        return self._rendered(opened + response, self._header_of(opened + response, opened))

    def _rendered(self, text: str, header: re.Match[str]) -> Rendered:
        answer = text[header.end() :]
        frame = self._frame
        spaces = frame.header[len(frame.header.rstrip()) :]
        # only the template's own spaces are removed; where a tokenizer changed them, all leading spaces
        answer = answer.removeprefix(spaces) if answer.startswith(spaces) else answer.lstrip()
        words, ended = self._without_stops(answer.removeprefix(frame.suffix))
        before = self._opening + text[: header.start()] + frame.header
        turn = self.template.render(_PROBE, words, ended=ended)
        return Rendered(before + turn.header[frame.start :], before + turn.whole[frame.start :], ended)

    def _plain(self, text: str, prompt: str) -> Rendered:
        """The conversation of a text to which no template was applied."""
        foreign = _FOREIGN.search(prompt)
        if foreign is not None:
            raise self._of_another(foreign[0])
        end = _end_of(prompt, text)
        if end is None:
            raise _not_its_prompt()
        words, ended = self._without_stops(text[end:])
        return self.template.render(prompt, words, ended=ended)

    def _header_of(self, text: str, prompt: str) -> re.Match[str]:
        """The header at the end of the prompt, as found in the text.

        Only the part up to the end of the prompt is searched, so headers in the answer cannot mislead it.
        """
        end = _end_of(prompt, text)
        if end is not None:
            header = self._last_header(text[:end])
        else:
            # an engine cuts the beginning of a prompt that is too long for its limit
            last = self._last_header(prompt)
            header = self._end_of_rest(text, prompt[: last.end()] if last else prompt)
        if header is None:
            raise _not_its_prompt()
        return header

    def _end_of_rest(self, text: str, prompt: str) -> re.Match[str] | None:
        """The last header of the text such that the text up to it is the end of the prompt.

        The prompt ends with a header. The last one is taken, because an earlier turn of the rest may end like
        the whole prompt. Texts are compared by their letters, and also by their tokens, because a tokenizer
        of words decodes an unknown word to another one. Callers may send thousands of headers, so each text
        is read once, header by header, and bytes are compared.
        """
        asked = list(self._header_pattern.finditer(prompt))
        headers = list(islice(self._header_pattern.finditer(text), len(asked)))
        pieces, known = _cut_behind(text, headers), _cut_behind(prompt, asked)
        letters = _pace([_letters(piece) for piece in pieces])
        letters_known = _letters(prompt)
        by_letters = letters.last_end_of(letters_known)
        tokens = self._token_bytes([*pieces, *known])
        by_tokens = _pace(tokens[: len(pieces)]).last_end_of(b"".join(tokens[len(pieces) :]))
        places = [place for place in (by_letters, by_tokens) if place is not None]
        return headers[max(places)] if places else None

    def _token_bytes(self, texts: list[str]) -> list[bytes]:
        """The token ids of each text as bytes, eight per id."""
        if not texts:
            return []
        rows = self.template.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [array("q", row).tobytes() for row in rows]

    def _last_header(self, text: str) -> re.Match[str] | None:
        last = None
        for last in self._header_pattern.finditer(text):  # noqa: B007 - the last one is wanted
            pass
        return last

    def _without_opening(self, text: str) -> str:
        """The text without leading padding and begin-of-text; the template's own opening replaces them."""
        place = 0
        while True:
            place = _behind_spaces(text, place)
            token = next((token for token in self._openings if text.startswith(token, place)), None)
            if token is None:
                return text[place:]
            place += len(token)

    def _without_stops(self, answer: str) -> tuple[str, bool]:
        """The answer without the tokens that end it and padding, and whether one ended it."""
        place, ended = len(answer), False
        while True:
            bare = place
            while bare and answer[bare - 1].isspace():
                bare -= 1
            stop = next((stop for stop in self._stops if answer.endswith(stop, 0, bare)), None)
            if stop is None:
                return answer[:place], ended
            place = bare - len(stop)
            # padding behind an answer does not say that it ended
            ended = ended or stop != self._padding

    @cached_property
    def _frame(self) -> "_Frame":
        asked = self.template.words([_QUESTION])
        generation = self.template.words([_QUESTION], generation=True).removeprefix(asked)
        before = self.template.around([_QUESTION]).before
        if not before.startswith(asked):
            raise ModelError("this chat template writes a question in another way when it has an answer")
        written = before[len(asked) :]
        header = shared_start(written, generation) if generation else written
        start, suffix = len(asked) + len(header), generation[len(header) :]
        if not header.strip():
            # a template without a header for answers writes them after the mark that ends a question
            header = asked[asked.rindex(_PROBE) + len(_PROBE) :] + header
        if not header.strip():
            raise ModelError("this chat template writes nothing between a question and its answer")
        return _Frame(asked, header, suffix, start)

    @cached_property
    def _header_pattern(self) -> re.Pattern[str]:
        """The header with any spaces between its parts: tokenizers of words decode with more spaces."""
        parts = re.findall(r"<[^<>\s]*>|\w+|[^\w\s]", self._frame.header)
        return re.compile(r"\s*".join(re.escape(part) for part in parts))

    @cached_property
    def _opening(self) -> str:
        bos = self.template.tokenizer.bos_token
        return str(bos) if bos and self._frame.asked.startswith(bos) else ""

    @cached_property
    def _openings(self) -> tuple[str, ...]:
        tokenizer = self.template.tokenizer
        return tuple(token for token in (tokenizer.bos_token, tokenizer.pad_token) if token)

    @cached_property
    def _padding(self) -> str | None:
        pad = self.template.tokenizer.pad_token
        # where the token that ends a turn also pads, it is an end
        return None if pad is None or pad in self._ends else str(pad)

    @cached_property
    def _ends(self) -> tuple[str, ...]:
        tokenizer = self.template.tokenizer
        special = {self.template.end_of_turn_id, *tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        ids = [i for i in self.template.end_ids if i in special]
        return tuple(dict.fromkeys(str(tokenizer.convert_ids_to_tokens(i)) for i in ids))

    @cached_property
    def _stops(self) -> tuple[str, ...]:
        return self._ends if self._padding is None else (*self._ends, self._padding)

    def _not_templated(self, text: str) -> DataError:
        foreign = _FOREIGN.search(text)
        own = set(self.template.tokenizer.all_special_tokens)
        if foreign is not None and foreign[0] not in own:
            return self._of_another(foreign[0])
        return DataError(
            "the text is not a conversation in this reward model's chat template: it has no "
            f"{' '.join(self._frame.header.split())[:_LONGEST_SHOWN]!r}",
            hint="apply the reward model's chat template to it, or post prompt and response to /v1/score",
        )

    def _of_another(self, token: str) -> DataError:
        return DataError(
            f"the prompt holds {token!r} but is not in this reward model's chat template",
            hint="send prompts templated for the reward model, or plain prompts",
        )


def _not_its_prompt() -> DataError:
    return DataError(
        "the text does not begin with its prompt, so the answer cannot be cut out of it",
        hint="send the prompt that the answer was given to",
    )


def _cut_behind(text: str, headers: Sequence[re.Match[str]]) -> list[str]:
    """The pieces of the text that end with each header, the header included."""
    starts = [0, *(header.end() for header in headers)]
    return [text[start : header.end()] for start, header in zip(starts, headers, strict=False)]


def _letters(text: str) -> bytes:
    """The text without spaces, as bytes."""
    return "".join(text.split()).encode(errors="surrogatepass")


def _pace(pieces: Sequence[bytes]) -> _Paced:
    return _Paced(b"".join(pieces), list(accumulate(map(len, pieces))))


def _behind_spaces(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _end_of(prompt: str, text: str) -> int | None:
    """The position where `prompt` ends in `text`, spaces ignored; None when `text` does not begin with it."""
    if text.startswith(prompt):
        return len(prompt)
    place = 0
    for letter in "".join(prompt.split()):
        place = _behind_spaces(text, place)
        if place == len(text) or text[place] != letter:
            return None
        place += 1
    return place
