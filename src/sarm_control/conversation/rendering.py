"""Renders messages by a tokenizer's chat template, and explains its failures in words."""

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
    """A template that is ready to be rendered.

    Args:
        given: the chat template attribute of the tokenizer: a text, or several by name.
        source: the text of the template that is used.
        day: the day that the template sees; None where it does not use the date.
        variables: the variables that are the same for every conversation.
    """

    given: Any
    source: str
    day: datetime.date | None
    variables: dict[str, Any]


class TemplateText:
    """A tokenizer's chat template, rendered under limits and with a fixed date.

    Args:
        tokenizer: a tokenizer with a chat template.
        date: the day that the template sees, see `sarm_control.conversation.dates.read_date`.

    Raises:
        ModelError: the template is not text, is too long, or none of several is the default.
        ConfigError: `date` is not a date.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", date: datetime.date | str | None) -> None:
        self._tokenizer = tokenizer
        self._asked = read_date(date)
        self._known = self._read()

    @property
    def date(self) -> datetime.date | None:
        """The day that the template sees; None where it does not use the date."""
        return self._current().day

    @property
    def own_date(self) -> datetime.date | None:
        """The template's fallback day; None where it does not use the date."""
        source = self._current().source
        return fallback_date(source) if asks_for_date(source) else None

    def _current(self) -> "_Program":
        """The tokenizer's current template; callers may replace the attribute."""
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
        dated: dict[str, Any] = {} if day is None else {"strftime_now": clock(day)}
        # None and not left out, as transformers has it: for Jinja an undefined name is not none
        variables = {**self._tokenizer.special_tokens_map, "tools": None, "documents": None, **dated}
        return _Program(given, source, day, variables)

    def write(self, messages: Sequence[Message], *, generation: bool) -> str:
        """The conversation as the template writes it.

        Args:
            messages: its turns.
            generation: add the header of an answer at the end.

        Raises:
            ModelError: the template refuses the conversation, fails, or exceeds its limits.
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
        # a template is somebody else's program and can raise any Python exception
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
