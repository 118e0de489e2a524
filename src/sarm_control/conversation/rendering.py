"""What a tokenizer's chat template writes for messages, and errors in words where it fails."""

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.conversation.dates import asks_for_date, clock, fallback_date, read_date
from sarm_control.data import Message
from sarm_control.errors import ModelError, SarmError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_SOURCE = 1_000_000
_LONGEST_REASON = 300
_ANOTHER = "use a model whose chat template writes such conversations, or put another tokenizer beside it"


class _Program(NamedTuple):
    """A template, ready to be rendered.

    Args:
        given: what the tokenizer holds.
        source: the template of it that answers are written by.
        day: the day it is told; None where it asks for none.
        variables: what it can name, whatever the conversation.
    """

    given: Any
    source: str
    day: datetime.date | None
    variables: dict[str, Any]


class TemplateText:
    """A tokenizer's chat template, rendered under limits on a day that stays.

    Args:
        tokenizer: which has a chat template.
        date: the day it is told, see `sarm_control.conversation.dates.read_date`.

    Raises:
        ModelError: the template is not text, is too long, or none of several is the default.
        ConfigError: `date` is none.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", date: datetime.date | str | None) -> None:
        self._tokenizer = tokenizer
        self._asked = read_date(date)
        self._known = self._read()

    @property
    def date(self) -> datetime.date | None:
        """The day the template is told; None where it asks for none."""
        return self._current().day

    @property
    def own_date(self) -> datetime.date | None:
        """The day it falls back on where none is asked for; None where it asks for none."""
        source = self._current().source
        return fallback_date(source) if asks_for_date(source) else None

    def _current(self) -> "_Program":
        """The tokenizer's template as it is now; callers may put another one in its place."""
        if self._known.given is not self._tokenizer.chat_template:
            self._known = self._read()
        return self._known

    def _read(self) -> "_Program":
        given: Any = self._tokenizer.chat_template
        source = given.get("default") if isinstance(given, dict) else given
        if not isinstance(source, str):
            raise ModelError(
                "the tokenizer has several chat templates and none is named default",
                hint="keep one in tokenizer.chat_template",
            )
        if len(source) > _MOST_SOURCE:
            raise ModelError(
                f"the chat template has {len(source):,} characters, at most {_MOST_SOURCE:,} are read",
                hint="put a shorter chat template beside the model",
            )
        day = (self._asked or fallback_date(source)) if asks_for_date(source) else None
        told: dict[str, Any] = {} if day is None else {"strftime_now": clock(day)}
        variables = {**self._tokenizer.special_tokens_map, "tools": None, "documents": None, **told}
        return _Program(given, source, day, variables)

    def write(self, messages: Sequence[Message], *, generation: bool) -> str:
        """The conversation in the template's words.

        Args:
            messages: its turns.
            generation: with the header of an answer behind them.

        Raises:
            ModelError: the template refuses the conversation, fails, or does not come to an end.
        """
        from sarm_control.conversation.sandbox import rendered

        turns = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
        program = self._current()
        variables = {**program.variables, "messages": turns, "add_generation_prompt": generation}
        size = sum(len(turn["content"]) + len(turn["role"]) for turn in turns) + len(program.source)
        try:
            return rendered(program.source, size, variables)
        except SarmError:
            raise
        # a template is a program of somebody else's: it can raise anything that Python can
        except Exception as error:
            raise _refusal(error) from error


def _refusal(error: Exception) -> ModelError:
    from jinja2 import TemplateError, TemplateSyntaxError

    from sarm_control.conversation.sandbox import LimitError

    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    if isinstance(error, LimitError):
        return ModelError(f"the chat template asks for too much: {reason}", hint=_ANOTHER)
    if isinstance(error, TemplateSyntaxError):
        return ModelError(f"the chat template is not valid: {reason} (line {error.lineno})", hint=_ANOTHER)
    if isinstance(error, TemplateError):
        return ModelError(f"the chat template refuses this conversation: {reason}", hint=_ANOTHER)
    kind = type(error).__name__
    return ModelError(f"the chat template fails on this conversation: {kind}: {reason}", hint=_ANOTHER)
