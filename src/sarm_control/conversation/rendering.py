"""What a tokenizer's chat template writes for messages, and errors in words where it fails."""

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sarm_control.conversation.dates import asks_for_date, clock, fallback_date, read_date
from sarm_control.conversation.types import Message
from sarm_control.errors import ModelError, SarmError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_SOURCE = 1_000_000
_LONGEST_REASON = 300
_ANOTHER = "use a model whose chat template writes such conversations, or put another tokenizer beside it"


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
        self.source  # noqa: B018 - told at load

    @property
    def source(self) -> str:
        """The template that answers are written by."""
        found: Any = self._tokenizer.chat_template
        if isinstance(found, dict):
            found = found.get("default")
        if not isinstance(found, str):
            raise ModelError(
                "the tokenizer has several chat templates and none is named default",
                hint="keep one in tokenizer.chat_template",
            )
        if len(found) > _MOST_SOURCE:
            raise ModelError(
                f"the chat template has {len(found):,} characters, at most {_MOST_SOURCE:,} are read",
                hint="put a shorter chat template beside the model",
            )
        return found

    @property
    def date(self) -> datetime.date | None:
        """The day the template is told; None where it asks for none."""
        source = self.source
        if not asks_for_date(source):
            return None
        return self._asked or fallback_date(source)

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
        variables: dict[str, Any] = {
            **self._tokenizer.special_tokens_map,
            "messages": turns,
            "tools": None,
            "documents": None,
            "add_generation_prompt": generation,
        }
        source, day = self.source, self.date
        if day is not None:
            variables["strftime_now"] = clock(day)
        size = sum(len(turn["content"]) + len(turn["role"]) for turn in turns) + len(source)
        try:
            return rendered(source, size, variables)
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
        return ModelError(f"the chat template is no good: {reason}", hint=_ANOTHER)
    if isinstance(error, TemplateSyntaxError):
        return ModelError(f"the chat template is not valid: {reason} (line {error.lineno})", hint=_ANOTHER)
    if isinstance(error, TemplateError):
        return ModelError(f"the chat template refuses this conversation: {reason}", hint=_ANOTHER)
    kind = type(error).__name__
    return ModelError(f"the chat template fails on this conversation: {kind}: {reason}", hint=_ANOTHER)
