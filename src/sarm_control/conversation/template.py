"""Chat templates: the one place where text becomes token ids.

A conversation has exactly one begin-of-text, ends with the end-of-turn, and is truncated from the left. The
beginning and end of an answer are found by rendering the template with other answers in its place. So any
tokenizer with a chat template works (Llama 3, ChatML, Qwen, Gemma, templates of reasoning models), and the
pad token may equal the end of text.
"""

import contextlib
import datetime
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.console import say
from sarm_control.conversation.rendering import TemplateText
from sarm_control.conversation.span import (
    Frame,
    answer_start,
    check_answers,
    frame_of,
    left_out,
    shared_start,
)
from sarm_control.conversation.types import Encoded
from sarm_control.data import Message, Prompt, as_messages
from sarm_control.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_IN_ONE_CALL = 256
_LONGEST_SHOWN = 80
_LONGEST_REASON = 300
_FILES_AGAIN = "put the tokenizer files of the model beside its weights again"
_WHOLE: Any = {"truncation": False, "padding": False}


class Rendered(NamedTuple):
    """A conversation as a chat template writes it.

    Args:
        header: the text before the answer; `whole` begins with it.
        whole: the prompt and the answer, up to its end-of-turn.
        ended: see `ChatTemplate.encode`.
    """

    header: str
    whole: str
    ended: bool


class ChatTemplate:
    """Turns conversations into token ids and answers back into text.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        max_length: the largest number of tokens of a conversation; longer ones lose tokens from the left,
            the beginning of the prompt first. None means no limit.
        date: the day that a template with a date sees: a date, "today" or "2026-01-31". None is the fallback
            day of the template, or 26 July 2024.
        ends: ids that end an answer, in addition to the end-of-turn and the tokenizer's end of text.
        whole: keep all that the template writes after an answer, such as ChatML's closing newline, instead
            of ending at the end-of-turn; templates that write no end-of-turn are then used too.
        append: text after all that; only with `whole`.

    Raises:
        ModelError: the tokenizer has no chat template, or its template fails, changes answers, or does not
            end an assistant turn with a special token.
        ConfigError: `date` is not a date.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_length: int | None = None,
        date: datetime.date | str | None = None,
        ends: Sequence[int] = (),
        whole: bool = False,
        append: str = "",
    ) -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template",
                hint="use an instruction-tuned model, or save a tokenizer.chat_template beside the weights",
            )
        # begin-of-text, header, one token and end-of-turn: with fewer nothing of an answer is left
        if max_length is not None and max_length < 4:
            raise ModelError(f"max_length is {max_length}, a conversation needs at least 4 tokens")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.bos_id: int | None = tokenizer.bos_token_id
        self._text = TemplateText(tokenizer, date)
        self._frame = check_answers(self.words, tokenizer.name_or_path or "this model")
        self._last_frame: tuple[list[Message], Frame] | None = None
        self._warned = False
        self._whole, self._append = whole, append
        with _reading_words():
            self.end_of_turn_id = self._find_end_of_turn()
        self.end_ids: tuple[int, ...] = distinct_ids([self.end_of_turn_id, tokenizer.eos_token_id, *ends])
        # padding is always masked, so any id is correct; the end-of-turn always exists
        self.pad_id: int = self.end_of_turn_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        with _reading_words():
            self._template_has_bos = self._starts_with_bos()
            closing = self._closing(self._frame.after) if whole else ""
            self._closing_tokens = len(self._tokenize([closing])[0]) if whole else 1

    def encode(self, prompt: Prompt, response: str, *, ended: bool = True) -> Encoded:
        """Token ids of a whole conversation, ending at the end-of-turn of the answer.

        Args:
            prompt: a string (one user turn) or messages.
            response: the answer's text; may be empty.
            ended: false when the answer hit the length limit; the end-of-turn is appended nevertheless, and
                the flag is kept.

        Raises:
            ModelError: the template refuses the conversation (because of an unknown role, for example).
        """
        return self.encode_rendered([self.render(prompt, response, ended=ended)])[0]

    def render(self, prompt: Prompt, response: str, *, ended: bool = True) -> Rendered:
        """The text that the template writes for a conversation; `encode_rendered` turns it into ids.

        Raises:
            ModelError: the template refuses the conversation.
        """
        messages = as_messages(prompt)
        frame = self.around(messages)
        whole = self.words([*messages, Message(role="assistant", content=response)])
        if not response.strip() and not whole.startswith(frame.before):
            # a template may write no turn at all for an empty answer
            whole = frame.before + frame.after
        end = len(whole) - len(frame.after) if whole.endswith(frame.after) else len(whole)
        start = answer_start(whole[:end], response, frame)
        self._warn_of_left_out(whole[:end], response, start)
        return Rendered(whole[:start], whole[:end] + self._closing(frame.after), ended)

    def check(self, prompt: Prompt, answers: Sequence[str] = ()) -> None:
        """Renders a conversation with each answer, and with one of its own, and keeps nothing.

        Args:
            prompt: a string (one user turn) or messages.
            answers: its answers.

        Raises:
            ModelError: the template refuses the conversation, whatever its answer or with one of them.
        """
        messages = as_messages(prompt)
        self.around(messages)
        for answer in dict.fromkeys(answers):
            self.words([*messages, Message(role="assistant", content=answer)])

    def around(self, messages: Sequence[Message]) -> Frame:
        """The text of the template before and after an answer to `messages`.

        Raises:
            ModelError: the template refuses the conversation.
        """
        # the candidates of one prompt come one after the other
        known = self._last_frame
        if known is not None and known[0] == messages:
            return known[1]
        frame = frame_of(self.words, messages, self._frame.after)
        self._last_frame = ([*messages], frame)
        return frame

    @property
    def date(self) -> datetime.date | None:
        """The day that the template sees; None where it does not use the date."""
        return self._text.date

    @property
    def own_date(self) -> datetime.date | None:
        """The template's fallback day; None where it does not use the date."""
        return self._text.own_date

    def encode_rendered(self, rendered: Sequence[Rendered]) -> list[Encoded]:
        """Token ids of N rendered conversations, many in one call of the tokenizer.

        Args:
            rendered: the results of `render`, or conversations that arrived as templated text.
        """
        encoded: list[Encoded] = []
        for start in range(0, len(rendered), _IN_ONE_CALL):
            part = rendered[start : start + _IN_ONE_CALL]
            # two texts a conversation: the tokens of the header say how many of the whole are the
            # prompt's
            ids = self._tokenize([text for row in part for text in (row.header, row.whole)])
            ids = [self._with_one_bos(list(row)) for row in ids]
            pairs = zip(ids[::2], ids[1::2], part, strict=True)
            encoded.extend(self._encoded(header, whole, row) for header, whole, row in pairs)
        return encoded

    def _encoded(self, header: list[int], whole: list[int], rendered: Rendered) -> Encoded:
        if not self._whole:
            whole = self._cut_after_end_of_turn(whole, len(header))
        start = _common_prefix(header, whole[: len(whole) - self._closing_tokens])
        # the end of the header is tokenized otherwise next to the answer: offsets say where the answer begins
        if start < len(header):
            start = max(start, len(whole) - self._tokens_from(rendered))
        return self._truncate(whole, start, rendered.ended)

    def _tokens_from(self, rendered: Rendered) -> int:
        """The number of tokens of a conversation that reach beyond its header.

        A token that covers the end of the header and the beginning of the answer counts as the answer's.
        """
        # a slow tokenizer knows no offsets: what both token lists have in common is then the best
        # answer
        if not getattr(self.tokenizer, "is_fast", False):
            return sys.maxsize
        tokens: Any = self.tokenizer(
            rendered.whole, add_special_tokens=False, return_offsets_mapping=True, **_WHOLE
        )
        if not self._whole and tokens["input_ids"][-1:] != [self.end_of_turn_id]:
            return sys.maxsize
        return sum(end > len(rendered.header) for _, end in tokens["offset_mapping"])

    def words(self, messages: Sequence[Message], *, generation: bool = False) -> str:
        """The text that the template writes for messages, with the header of an answer if `generation`.

        Raises:
            ModelError: the template refuses the conversation.
        """
        return self._text.write(messages, generation=generation)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids that a policy continues: the prompt and the header of the answer."""
        return self._ids(as_messages(prompt), generation=True)

    def header_length(self, prompt: Prompt) -> int:
        """Tokens of the answer's header, with which `encode_prompt` ends."""
        messages = as_messages(prompt)
        asked = self.words(messages, generation=True)
        (ids,) = self._tokenize([asked[len(shared_start(asked, self.words(messages))) :]])
        return len(ids)

    def drop_left(self, ids: Sequence[int], excess: int) -> list[int]:
        """The ids without the first `excess` of them; a begin-of-text stays and is not counted."""
        kept_first = 1 if ids[0] == self.bos_id else 0
        return [*ids[:kept_first], *ids[kept_first + excess :]]

    def decode_answer(self, ids: Sequence[int]) -> str:
        """The text of generated ids before the first one that ends an answer, without special tokens."""
        ends = set(self.end_ids)
        kept = list(itertools.takewhile(lambda token: token not in ends, ids))
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))

    def _ids(self, messages: Sequence[Message], *, generation: bool) -> list[int]:
        (ids,) = self._tokenize([self.words(messages, generation=generation)])
        return self._with_one_bos(list(ids))

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        with _reading_words():
            if backend is not None and _makes_plain_ids(backend, self.tokenizer):
                # the fast call does not compute the offsets of tokens, which are not needed here
                return [row.ids for row in backend.encode_batch_fast(texts, add_special_tokens=False)]
            ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            return ids

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        """The ids with exactly one begin-of-text; the template and the prompt may both have written one."""
        if self.bos_id is None:
            return ids
        start = 0
        while len(ids) > start + 1 and ids[start] == ids[start + 1] == self.bos_id:
            start += 1
        # not there yet while `_starts_with_bos` finds out what it is
        missing = getattr(self, "_template_has_bos", True) is False and ids[:1] != [self.bos_id]
        return [self.bos_id, *ids] if missing else ids[start:]

    def _starts_with_bos(self) -> bool:
        """False only when the tokenizer puts a begin-of-text before plain text and the template does not."""
        plain: list[int] = list(self.tokenizer("a")["input_ids"])
        adds_bos = self.bos_id is not None and plain[:1] == [self.bos_id]
        probe = self._ids([Message(role="user", content="a")], generation=False)
        return not adds_bos or probe[:1] == [self.bos_id]

    def _find_end_of_turn(self) -> int:
        """The first special token that the template writes after an answer."""
        # both: some tokenizers list the mark that ends a turn among the added tokens
        # and not among the special ones
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for token in self.tokenizer(self._frame.after, add_special_tokens=False)["input_ids"]:
            if token in special:
                return int(token)
        if self._whole and self.tokenizer.eos_token_id is not None:
            return int(self.tokenizer.eos_token_id)
        raise ModelError(
            f"the chat template of {self.tokenizer.name_or_path} writes no special token after an answer",
            hint="a SARM reads the state at the end-of-turn token, so the template must write one",
        )

    def _closing(self, after: str) -> str:
        """The text after an answer, up to the end-of-turn (in ChatML a newline follows it)."""
        if self._whole:
            return after + self._append
        token = str(self.tokenizer.convert_ids_to_tokens(self.end_of_turn_id))
        before, end_of_turn, _ = after.partition(token)
        return before + end_of_turn

    def _warn_of_left_out(self, written: str, response: str, start: int) -> None:
        """Warns once of a part of an answer that the template left out."""
        if self._warned or written.endswith(response):
            return
        missing = left_out(written, response, start)
        if missing:
            self._warned = True
            shown = missing if len(missing) <= _LONGEST_SHOWN else missing[:_LONGEST_SHOWN] + "..."
            say(
                f"warning: the chat template leaves out {shown!r} of an answer (usually its reasoning); its "
                "reward is that of the rest. This warning is given once, for the first such answer"
            )

    def _cut_after_end_of_turn(self, ids: list[int], header: int) -> list[int]:
        """The ids up to the last end-of-turn; one is appended where none follows the header."""
        if ids[-1] == self.end_of_turn_id:
            return ids
        for position in range(len(ids) - 1, min(header, len(ids)) - 1, -1):
            if ids[position] == self.end_of_turn_id:
                return ids[: position + 1]
        return [*ids, self.end_of_turn_id]

    def _truncate(self, ids: list[int], prompt_length: int, ended: bool) -> Encoded:
        excess = 0 if self.max_length is None else max(0, len(ids) - self.max_length)
        closing = self._closing_tokens
        if not excess:
            return Encoded(ids, prompt_length, 0, ended, closing)
        kept_first = 1 if ids[0] == self.bos_id else 0
        kept = self.drop_left(ids, excess)
        return Encoded(kept, max(kept_first, prompt_length - excess), excess, ended, closing)


def distinct_ids(ids: Iterable[Any]) -> tuple[int, ...]:
    """The token ids among values that may be None, each once, in their order."""
    plain = (value for value in ids if isinstance(value, int) and not isinstance(value, bool) and value >= 0)
    return tuple(dict.fromkeys(plain))


def configured_ends(config: Any) -> tuple[int, ...]:
    """The ids that end an answer by a model's config or generation config, which names one or several."""
    named = (
        config.get("eos_token_id") if isinstance(config, Mapping) else getattr(config, "eos_token_id", None)
    )
    return distinct_ids(named if isinstance(named, list | tuple) else [named])


def load_tokenizer(
    id_or_folder: str, *, revision: str | None = None, local_files_only: bool = False
) -> "PreTrainedTokenizerBase":
    """Loads a tokenizer without running code from the checkpoint.

    Raises:
        ModelError: there is no tokenizer, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            id_or_folder, revision=revision, local_files_only=local_files_only, trust_remote_code=False
        )
    except BaseException as error:
        if not _is_fault(error):
            raise
        raise ModelError(
            f"no tokenizer can be loaded from {id_or_folder}: {_first_line(error)}",
            hint=_FILES_AGAIN,
        ) from error
    # transformers 5.0 makes a tokenizer of special tokens alone where the files are missing
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"no tokenizer can be loaded from {id_or_folder}: its vocabulary is empty", hint=_FILES_AGAIN
        )
    return tokenizer


@contextlib.contextmanager
def _reading_words() -> Iterator[None]:
    """Turns an exception of the tokenizer, such as a missing token for a word, into a `ModelError`."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, ModelError) or not _is_fault(error):
            raise
        raise ModelError(
            f"the tokenizer fails on a conversation: {_first_line(error)}",
            hint=_FILES_AGAIN,
        ) from error


def _is_fault(error: BaseException) -> bool:
    """Whether the tokenizer failed; one written in Rust may panic, and a panic is not an `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST_REASON] if lines else type(error).__name__


def _makes_plain_ids(backend: Any, tokenizer: Any) -> bool:
    """Whether the fast backend neither truncates, pads nor splits special tokens.

    These settings stay in the backend after a call that used them; a plain call of the tokenizer resets them.
    """
    left = (backend.truncation, backend.padding, backend.encode_special_tokens or None)
    return left == (None, None, None) and not tokenizer.split_special_tokens


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """The length of the common beginning; shorter than the header where the answer's tokens merge with it."""
    shared = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        shared += 1
    return shared
