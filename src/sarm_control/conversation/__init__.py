"""Conversations as token ids.

In: a prompt and an answer. Out: token ids with one begin-of-text and one end-of-turn, and what was cut.
Holds chat templates, the place of the answer in their text, and truncation.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.conversation.dates import TODAY, read_date, stored_date
    from sarm_control.conversation.rendering import TemplateText
    from sarm_control.conversation.template import (
        ChatTemplate,
        Rendered,
        configured_ends,
        distinct_ids,
        load_tokenizer,
    )
    from sarm_control.conversation.templated import TemplatedText
    from sarm_control.conversation.types import Encoded

_HOME_OF = {
    "ChatTemplate": "template",
    "Encoded": "types",
    "Rendered": "template",
    "TODAY": "dates",
    "TemplateText": "rendering",
    "TemplatedText": "templated",
    "configured_ends": "template",
    "distinct_ids": "template",
    "load_tokenizer": "template",
    "read_date": "dates",
    "stored_date": "dates",
}

__all__ = [
    "TODAY",
    "ChatTemplate",
    "Encoded",
    "Rendered",
    "TemplateText",
    "TemplatedText",
    "configured_ends",
    "distinct_ids",
    "load_tokenizer",
    "read_date",
    "stored_date",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
