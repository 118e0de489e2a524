"""Files of any form into rows.

In: JSON Lines with pairs, answers, prompts or messages. Out: `Row` objects in order, or an error that
names file and line. Rows know nothing of models.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.data.checking import FileCheck, Lengths, RowLengths, check_rows
    from sarm_control.data.lines import START, Line, Place, Reason, json_object, read_lines
    from sarm_control.data.messages import Message, Prompt, as_messages, prompt_key, prompt_text
    from sarm_control.data.plain import plain_row
    from sarm_control.data.rows import (
        BadRow,
        Kind,
        PlacedRow,
        Row,
        check_aside,
        count_empty_answers,
        count_respelled,
        form_said,
        no_rows,
        parse_row,
        read_rows,
        set_aside,
        stream_rows,
    )
    from sarm_control.data.shapes import (
        AUTOMATIC,
        FORMS,
        Form,
        Repeated,
        RowOptions,
        check_columns,
        forms_table,
        parse_columns,
    )

_HOME_OF = {
    "RowLengths": "checking",
    "form_said": "rows",
    "plain_row": "plain",
    "check_rows": "checking",
    "Lengths": "checking",
    "FileCheck": "checking",
    "count_respelled": "rows",
    "prompt_text": "messages",
    "parse_columns": "shapes",
    "forms_table": "shapes",
    "check_columns": "shapes",
    "RowOptions": "shapes",
    "Repeated": "shapes",
    "Form": "shapes",
    "FORMS": "shapes",
    "AUTOMATIC": "shapes",
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
    "AUTOMATIC",
    "FORMS",
    "START",
    "BadRow",
    "FileCheck",
    "Form",
    "Kind",
    "Lengths",
    "Line",
    "Message",
    "Place",
    "PlacedRow",
    "Prompt",
    "Reason",
    "Repeated",
    "Row",
    "RowLengths",
    "RowOptions",
    "as_messages",
    "check_aside",
    "check_columns",
    "check_rows",
    "count_empty_answers",
    "count_respelled",
    "form_said",
    "forms_table",
    "json_object",
    "no_rows",
    "parse_columns",
    "parse_row",
    "plain_row",
    "prompt_key",
    "prompt_text",
    "read_lines",
    "read_rows",
    "set_aside",
    "stream_rows",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
