"""Files of any form into rows.

In: JSON Lines with pairs, answers, prompts or messages. Out: `Row` objects in order, or an error that
names file and line. Rows know nothing of models.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.data.lines import START, Line, Place, Reason, json_object, read_lines
    from sarm_control.data.messages import Message, Prompt, as_messages, prompt_key
    from sarm_control.data.rows import (
        BadRow,
        Kind,
        PlacedRow,
        Row,
        check_aside,
        count_empty_answers,
        no_rows,
        parse_row,
        read_rows,
        set_aside,
        stream_rows,
    )

_HOME_OF = {
    "BadRow": "rows",
    "Kind": "rows",
    "Line": "lines",
    "Message": "messages",
    "Place": "lines",
    "PlacedRow": "rows",
    "Prompt": "messages",
    "Reason": "lines",
    "Row": "rows",
    "START": "lines",
    "as_messages": "messages",
    "check_aside": "rows",
    "count_empty_answers": "rows",
    "json_object": "lines",
    "no_rows": "rows",
    "parse_row": "rows",
    "prompt_key": "messages",
    "read_lines": "lines",
    "read_rows": "rows",
    "set_aside": "rows",
    "stream_rows": "rows",
}

__all__ = [
    "START",
    "BadRow",
    "Kind",
    "Line",
    "Message",
    "Place",
    "PlacedRow",
    "Prompt",
    "Reason",
    "Row",
    "as_messages",
    "check_aside",
    "count_empty_answers",
    "json_object",
    "no_rows",
    "parse_row",
    "prompt_key",
    "read_lines",
    "read_rows",
    "set_aside",
    "stream_rows",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
