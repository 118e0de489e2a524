"""Chat templates: the one place where text becomes token ids.

Exactly one begin-of-text, the end-of-turn last, truncation from the left. The
end-of-turn token is found by rendering the template, so any tokenizer with a
chat template works (Llama 3, ChatML, Qwen, Gemma) and pad may equal eos.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.conversation.types import Encoded, Message, Prompt, as_messages
from sarm_control.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE_ANSWER = "probe"
_IN_ONE_CALL = 256


class Rendered(NamedTuple):
    """A conversation in the words of a chat template.

    Args:
        header: the prompt, up to where the answer begins.
        whole: the prompt and the answer.
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

    Raises:
        ModelError: the tokenizer has no chat template, or its template never
            closes an assistant turn with a special token.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int | None = None) -> None:
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
        self.end_of_turn_id = self._find_end_of_turn()
        # Padding is always masked, so any id will do; the end of turn always exists.
        self.pad_id: int = self.end_of_turn_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._template_has_bos = self._starts_with_bos()

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
        header = self.words(messages, generation=True)
        whole = self.words([*messages, Message(role="assistant", content=response)], generation=False)
        return Rendered(header, whole, ended)

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
        whole = self._cut_after_end_of_turn(whole, len(header))
        return self._truncate(whole, _common_prefix(header, whole[:-1]), rendered.ended)

    def words(self, messages: Sequence[Message], *, generation: bool = False) -> str:
        """What the template writes for messages, with the header of an answer if `generation`.

        Raises:
            ModelError: the template refuses the conversation.
        """
        from jinja2 import TemplateError

        try:
            rendered: Any = self.tokenizer.apply_chat_template(
                [{"role": turn["role"], "content": turn["content"]} for turn in messages],
                tokenize=False,
                add_generation_prompt=generation,
            )
        except TemplateError as error:
            raise ModelError(f"the chat template refuses this conversation: {error}") from error
        return str(rendered)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids a policy continues from: the prompt and the header of the answer."""
        return self._ids(as_messages(prompt), generation=True)

    def decode_answer(self, ids: Sequence[int]) -> str:
        """The text of generated ids up to the first end-of-turn, without special tokens."""
        kept = list(ids)
        for stop in (self.end_of_turn_id, self.tokenizer.eos_token_id):
            if stop in kept:
                kept = kept[: kept.index(stop)]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))

    def _ids(self, messages: Sequence[Message], *, generation: bool) -> list[int]:
        (ids,) = self._tokenize([self.words(messages, generation=generation)])
        return self._with_one_bos(list(ids))

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
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
        question = Message(role="user", content=_PROBE_ANSWER)
        text = self.words([question, Message(role="assistant", content=_PROBE_ANSWER)], generation=False)
        suffix = text[text.rindex(_PROBE_ANSWER) + len(_PROBE_ANSWER) :]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for token in self.tokenizer(suffix, add_special_tokens=False)["input_ids"]:
            if token in special:
                return int(token)
        raise ModelError(
            f"the chat template of {self.tokenizer.name_or_path} writes no special token after an answer",
            hint="a SARM reads the state at the end-of-turn token, so the template must write one",
        )

    def _cut_after_end_of_turn(self, ids: list[int], header: int) -> list[int]:
        """Drops what a template writes after the last end-of-turn (a newline in ChatML)."""
        for position in range(len(ids) - 1, min(header, len(ids)) - 1, -1):
            if ids[position] == self.end_of_turn_id:
                return ids[: position + 1]
        return [*ids, self.end_of_turn_id]

    def _truncate(self, ids: list[int], prompt_length: int, ended: bool) -> Encoded:
        excess = 0 if self.max_length is None else max(0, len(ids) - self.max_length)
        if not excess:
            return Encoded(ids, prompt_length, 0, ended)
        kept_first = 1 if ids[0] == self.bos_id else 0
        kept = ids[:kept_first] + ids[kept_first + excess :]
        return Encoded(kept, max(kept_first, prompt_length - excess), excess, ended)


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
    # A damaged file makes the libraries raise whatever they like, plain `Exception` among it.
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"no tokenizer can be loaded from {id_or_folder}: {first_line}") from error
    return tokenizer


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
