"""Chat templates, end-of-turn, truncation; the JSON Lines rows and their reader."""

from sarm_control.conversation.rows import Kind, Row, count_empty_answers, read_rows
from sarm_control.conversation.template import ChatTemplate, load_tokenizer
from sarm_control.conversation.types import Encoded, Message, Prompt, as_messages, prompt_key

__all__ = [
    "ChatTemplate",
    "Encoded",
    "Kind",
    "Message",
    "Prompt",
    "Row",
    "as_messages",
    "count_empty_answers",
    "load_tokenizer",
    "prompt_key",
    "read_rows",
]
