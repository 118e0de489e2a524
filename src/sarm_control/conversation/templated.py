"""Conversations that come as one text, already in the words of the chat template.

Engines send a prompt and its answer as what their policy saw: decoded token ids, with or without
begin-of-text, padding and end-of-turn. Scoring that text as if it were a user's words, or with a second
begin-of-text, gives a number that is wrong and looks right.
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
_FOREIGN = re.compile(
    "<\\|\\w+\\|>|<\uff5c[^\uff5c>]{1,40}\uff5c>|<(?:start|end)_of_turn>|\\[/?INST\\]|<</?SYS>>"
)
_LONGEST_SHOWN = 60


class _Frame(NamedTuple):
    """What a template writes around an answer.

    Args:
        asked: a question alone.
        header: between a question and its answer.
        suffix: what a policy's prompt has behind the header, such as the opening of its thoughts.
        start: where the answer's turn begins in a rendered question and answer.
    """

    asked: str
    header: str
    suffix: str
    start: int


class _Paced(NamedTuple):
    """Bytes, and how many of them there are up to each header."""

    whole: bytes
    ends: list[int]

    def last_end_of(self, prompt: bytes) -> int | None:
        """The last header up to which these bytes are the end of the prompt's."""
        ours, theirs = memoryview(self.whole), memoryview(prompt)
        for number in reversed(range(len(self.ends))):
            end = self.ends[number]
            if end <= len(theirs) and ours[:end] == theirs[len(theirs) - end :]:
                return number
        return None


class TemplatedText:
    """Reads conversations in the words of a chat template.

    What it makes of such a text is what `ChatTemplate.render` makes of the same prompt and answer: one
    begin-of-text, the template's own spaces around the answer, the end of turn last.

    Args:
        template: of the reward model.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template

    def render(self, text: str, prompt: str | None = None) -> Rendered:
        """The conversation that `text` is.

        Args:
            text: the prompt and the answer. The answer ended when its end-of-turn, or the tokenizer's
                end of text, follows it; else one is appended and `ended` is false.
            prompt: where it is known, the prompt alone: templated like the text, or plain words that the
                text begins with. Without it the answer begins behind the last header of an assistant.

        Raises:
            DataError: no answer can be found in the text, or it is templated for another model.
        """
        text = self._without_opening(text)
        if prompt is None:
            found = self._last_header(text)
            if found is None:
                raise self._not_templated(text)
            return self._rendered(text, found)
        prompt = self._without_opening(prompt)
        if self._last_header(prompt) is None:
            return self._plain(text, prompt)
        return self._rendered(text, self._header_of(text, prompt))

    def render_answer(self, prompt: Prompt, response: str) -> Rendered:
        """The conversation of a prompt, templated, plain or messages, and the answer that came beside it.

        Whatever the prompt is, the answer ended when an end-of-turn or end of text is its last token.

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
        answer = answer.removeprefix(spaces) if answer.startswith(spaces) else answer.lstrip()
        words, ended = self._without_stops(answer.removeprefix(frame.suffix))
        before = self._opening + text[: header.start()] + frame.header
        turn = self.template.render(_PROBE, words, ended=ended)
        return Rendered(before + turn.header[frame.start :], before + turn.whole[frame.start :], ended)

    def _plain(self, text: str, prompt: str) -> Rendered:
        """Words that no template was put around."""
        foreign = _FOREIGN.search(prompt)
        if foreign is not None:
            raise self._of_another(foreign[0])
        end = _end_of(prompt, text)
        if end is None:
            raise _not_its_prompt()
        words, ended = self._without_stops(text[end:])
        return self.template.render(prompt, words, ended=ended)

    def _header_of(self, text: str, prompt: str) -> re.Match[str]:
        """The header at the end of the prompt, found in the text; nothing the answer says can move it."""
        end = _end_of(prompt, text)
        if end is not None:
            found = self._last_header(text[:end])
        else:
            # a prompt too long for an engine's limit loses its beginning
            header = self._last_header(prompt)
            found = self._end_of_rest(text, prompt[: header.end()] if header else prompt)
        if found is None:
            raise _not_its_prompt()
        return found

    def _end_of_rest(self, text: str, prompt: str) -> re.Match[str] | None:
        """The last header in the text up to which it is the end of the prompt, which ends with one.

        The last: an earlier turn of what is left may end as the whole prompt does. In letters, or in tokens:
        what a tokenizer of words does not know comes back as another word. Callers may write headers by the
        thousand, so each text is read once, header by header, and what is compared are bytes.
        """
        asked = list(self._header_pattern.finditer(prompt))
        headers = list(islice(self._header_pattern.finditer(text), len(asked)))
        pieces, known = _cut_behind(text, headers), _cut_behind(prompt, asked)
        letters = _pace([_letters(piece) for piece in pieces])
        letters_known = _letters(prompt)
        found = letters.last_end_of(letters_known)
        tokens = self._token_bytes([*pieces, *known])
        other = _pace(tokens[: len(pieces)]).last_end_of(b"".join(tokens[len(pieces) :]))
        places = [place for place in (found, other) if place is not None]
        return headers[max(places)] if places else None

    def _token_bytes(self, texts: list[str]) -> list[bytes]:
        """The ids of each text, of the same size each."""
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
        """Without padding and begin-of-text, which the template's own opening replaces."""
        place = 0
        while True:
            place = _behind_spaces(text, place)
            token = next((token for token in self._openings if text.startswith(token, place)), None)
            if token is None:
                return text[place:]
            place += len(token)

    def _without_stops(self, answer: str) -> tuple[str, bool]:
        place, ended = len(answer), False
        while True:
            bare = place
            while bare and answer[bare - 1].isspace():
                bare -= 1
            stop = next((stop for stop in self._stops if answer.endswith(stop, 0, bare)), None)
            if stop is None:
                return answer[:place], ended
            place = bare - len(stop)
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
            # templates without a header for answers put them behind the mark that ends a question
            header = asked[asked.rindex(_PROBE) + len(_PROBE) :] + header
        if not header.strip():
            raise ModelError("this chat template writes nothing between a question and its answer")
        return _Frame(asked, header, suffix, start)

    @cached_property
    def _header_pattern(self) -> re.Pattern[str]:
        """The header, with other spaces than its own: tokenizers of words put them between tokens."""
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
    """What each header ends, itself included."""
    starts = [0, *(one.end() for one in headers)]
    return [text[start : one.end()] for start, one in zip(starts, headers, strict=False)]


def _letters(text: str) -> bytes:
    """All but the spaces."""
    return "".join(text.split()).encode(errors="surrogatepass")


def _pace(pieces: Sequence[bytes]) -> _Paced:
    return _Paced(b"".join(pieces), list(accumulate(map(len, pieces))))


def _behind_spaces(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _end_of(prompt: str, text: str) -> int | None:
    """Where `prompt` ends in `text`, which begins with it but for spaces; None when it does not."""
    if text.startswith(prompt):
        return len(prompt)
    place = 0
    for letter in "".join(prompt.split()):
        place = _behind_spaces(text, place)
        if place == len(text) or text[place] != letter:
            return None
        place += 1
    return place
