"""Chat templates: the one place where text becomes token ids.

Exactly one begin-of-text, the end-of-turn last, truncation from the left. Where an
answer begins and ends is found by rendering the template with other answers in its
place, so any tokenizer with a chat template works (Llama 3, ChatML, Qwen, Gemma,
templates of models that think) and pad may equal eos.
"""

import contextlib
import datetime
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.console import say
from sarm_control.conversation.rendering import TemplateText
from sarm_control.conversation.span import Frame, answer_start, check_answers, frame_of, left_out
from sarm_control.conversation.types import Encoded
from sarm_control.data import Message, Prompt, as_messages
from sarm_control.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_IN_ONE_CALL = 256
_LONGEST_SHOWN = 80
_LONGEST_REASON = 300
_WHOLE: Any = {"truncation": False, "padding": False}


class Rendered(NamedTuple):
    """A conversation in the words of a chat template.

    Args:
        header: what stands before the answer; `whole` begins with it.
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
        max_length: tokens a conversation may have; longer ones lose tokens from
            the left, the prompt's beginning first. None means no limit.
        date: the day that a template which asks for today's is told: a date, "today" or
            "2026-01-31". None is the day the template itself falls back on, or 26 July 2024.
        ends: ids that end an answer beside the end-of-turn and the tokenizer's own end of text.
        whole: keep all that the template writes behind an answer, such as ChatML's closing newline, instead
            of ending at the end-of-turn; templates that write no end-of-turn are then used too.
        append: text behind all that; only with `whole`.

    Raises:
        ModelError: the tokenizer has no chat template, or its template fails, writes
            something other than the answer it is given, or never closes an assistant
            turn with a special token.
        ConfigError: `date` is none.
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
        # Padding is always masked, so any id will do; the end of turn always exists.
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
            ended: false when the answer hit the length limit; the end-of-turn is
                appended all the same and the flag is kept.

        Raises:
            ModelError: the template refuses the conversation (unknown role, say).
        """
        return self.encode_rendered([self.render(prompt, response, ended=ended)])[0]

    def render(self, prompt: Prompt, response: str, *, ended: bool = True) -> Rendered:
        """The template's words for a conversation, see `encode`; `encode_rendered` makes ids of them.

        Raises:
            ModelError: the template refuses the conversation.
        """
        messages = as_messages(prompt)
        frame = self.around(messages)
        whole = self.words([*messages, Message(role="assistant", content=response)])
        if not response.strip() and not whole.startswith(frame.before):
            whole = frame.before + frame.after  # a template may have no turn for an empty answer
        end = len(whole) - len(frame.after) if whole.endswith(frame.after) else len(whole)
        start = answer_start(whole[:end], response, frame)
        self._warn_of_left_out(whole[:end], response, start)
        return Rendered(whole[:start], whole[:end] + self._closing(frame.after), ended)

    def around(self, messages: Sequence[Message]) -> Frame:
        """What the template writes before and behind an answer to `messages`.

        Raises:
            ModelError: the template refuses the conversation.
        """
        known = self._last_frame
        if known is not None and known[0] == messages:
            return known[1]
        found = frame_of(self.words, messages, self._frame.after)
        self._last_frame = ([*messages], found)
        return found

    @property
    def date(self) -> datetime.date | None:
        """The day the template is told; None where it asks for none."""
        return self._text.date

    @property
    def own_date(self) -> datetime.date | None:
        """The day it falls back on where none is asked for; None where it asks for none."""
        return self._text.own_date

    def encode_rendered(self, rendered: Sequence[Rendered]) -> list[Encoded]:
        """Token ids of N rendered conversations, many in one call of the tokenizer.

        Args:
            rendered: what `render` gave, or conversations that came in the template's words.
        """
        found: list[Encoded] = []
        for start in range(0, len(rendered), _IN_ONE_CALL):
            part = rendered[start : start + _IN_ONE_CALL]
            ids = self._tokenize([text for one in part for text in (one.header, one.whole)])
            ids = [self._with_one_bos(list(row)) for row in ids]
            pairs = zip(ids[::2], ids[1::2], part, strict=True)
            found.extend(self._encoded(header, whole, one) for header, whole, one in pairs)
        return found

    def _encoded(self, header: list[int], whole: list[int], rendered: Rendered) -> Encoded:
        if not self._whole:
            whole = self._cut_after_end_of_turn(whole, len(header))
        start = _common_prefix(header, whole[: len(whole) - self._closing_tokens])
        if start < len(header):
            start = max(start, len(whole) - self._tokens_from(rendered))
        return self._truncate(whole, start, rendered.ended)

    def _tokens_from(self, rendered: Rendered) -> int:
        """How many of a conversation's last tokens reach behind its header.

        For words that split otherwise next to an answer than alone; a token of both is the answer's.
        """
        if not getattr(self.tokenizer, "is_fast", False):
            return sys.maxsize
        found: Any = self.tokenizer(
            rendered.whole, add_special_tokens=False, return_offsets_mapping=True, **_WHOLE
        )
        if not self._whole and found["input_ids"][-1:] != [self.end_of_turn_id]:
            return sys.maxsize
        return sum(end > len(rendered.header) for _, end in found["offset_mapping"])

    def words(self, messages: Sequence[Message], *, generation: bool = False) -> str:
        """What the template writes for messages, with the header of an answer if `generation`.

        Raises:
            ModelError: the template refuses the conversation.
        """
        return self._text.write(messages, generation=generation)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids a policy continues from: the prompt and the header of the answer."""
        return self._ids(as_messages(prompt), generation=True)

    def decode_answer(self, ids: Sequence[int]) -> str:
        """The text of generated ids up to the first that ends an answer, without special tokens."""
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
                # without the place of each token in the text, which nobody here asks for
                return [one.ids for one in backend.encode_batch_fast(texts, add_special_tokens=False)]
            ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            return ids

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        """Templates that write a begin-of-text and prompts that bring one along must not add up."""
        if self.bos_id is None:
            return ids
        start = 0
        while len(ids) > start + 1 and ids[start] == ids[start + 1] == self.bos_id:
            start += 1
        missing = getattr(self, "_template_has_bos", True) is False and ids[:1] != [self.bos_id]
        return [self.bos_id, *ids] if missing else ids[start:]

    def _starts_with_bos(self) -> bool:
        """False only when the tokenizer puts a begin-of-text before plain text but the template does not."""
        plain: list[int] = list(self.tokenizer("a")["input_ids"])
        adds_bos = self.bos_id is not None and plain[:1] == [self.bos_id]
        probe = self._ids([Message(role="user", content="a")], generation=False)
        return not adds_bos or probe[:1] == [self.bos_id]

    def _find_end_of_turn(self) -> int:
        """The first special token the template writes after an assistant's words."""
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
        """What a template writes behind an answer, up to the end-of-turn (a newline follows in ChatML)."""
        if self._whole:
            return after + self._append
        token = str(self.tokenizer.convert_ids_to_tokens(self.end_of_turn_id))
        before, found, _ = after.partition(token)
        return before + found

    def _warn_of_left_out(self, written: str, response: str, start: int) -> None:
        """Says once what of an answer the template did not write."""
        if self._warned or written.endswith(response):
            return
        missing = left_out(written, response, start)
        if missing:
            self._warned = True
            shown = missing if len(missing) <= _LONGEST_SHOWN else missing[:_LONGEST_SHOWN] + "..."
            say(
                f"warning: the chat template leaves out {shown!r} of an answer (thoughts, for most); its "
                "reward is that of the rest. This is said once, for the first such answer"
            )

    def _cut_after_end_of_turn(self, ids: list[int], header: int) -> list[int]:
        """The ids up to the last end-of-turn; one is appended where none is found behind the header."""
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
        kept = ids[:kept_first] + ids[kept_first + excess :]
        return Encoded(kept, max(kept_first, prompt_length - excess), excess, ended, closing)


def distinct_ids(ids: Iterable[Any]) -> tuple[int, ...]:
    """The token ids among values that may be None, each once, in their order."""
    plain = (one for one in ids if isinstance(one, int) and not isinstance(one, bool) and one >= 0)
    return tuple(dict.fromkeys(plain))


def configured_ends(config: Any) -> tuple[int, ...]:
    """The ids that a model's config, or generation config, says end an answer: it may name one or several."""
    named = (
        config.get("eos_token_id") if isinstance(config, Mapping) else getattr(config, "eos_token_id", None)
    )
    return distinct_ids(named if isinstance(named, list | tuple) else [named])


def load_tokenizer(
    id_or_folder: str, *, revision: str | None = None, local_files_only: bool = False
) -> "PreTrainedTokenizerBase":
    """Loads a tokenizer without running code from the checkpoint.

    Raises:
        ModelError: there is none, or it cannot be read.
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
            hint="put the tokenizer files of the model beside its weights again",
        ) from error
    return tokenizer


@contextlib.contextmanager
def _reading_words() -> Iterator[None]:
    """A tokenizer's own faults, such as a word it has no token for, in words."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, ModelError) or not _is_fault(error):
            raise
        raise ModelError(
            f"the tokenizer fails on a conversation: {_first_line(error)}",
            hint="put the tokenizer files of the model beside its weights again",
        ) from error


def _is_fault(error: BaseException) -> bool:
    """Whether a tokenizer broke; those written in Rust may panic, which is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST_REASON] if lines else type(error).__name__


def _makes_plain_ids(backend: Any, tokenizer: Any) -> bool:
    """Whether nothing is left of a call that cut, padded or split special tokens; a plain one ends that."""
    left = (backend.truncation, backend.padding, backend.encode_special_tokens or None)
    return left == (None, None, None) and not tokenizer.split_special_tokens


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Tokens two sequences share at the start; less than the header where an answer merges into it."""
    shared = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        shared += 1
    return shared
