"""Files of any form into rows.

In: files of any form, or rows in memory, with pairs, answers, prompts or messages. Out: `Row` objects in
order, or an error that names file and line; and rows into files. Rows know nothing of models.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.data.files.arrow_tables import is_saved_folder
    from sarm_control.data.files.reading import Source, make_copies, read_records, records_of
    from sarm_control.data.files.records import AnyRecord, BadRecord, Record
    from sarm_control.data.files.writing import output_form, write_rows
    from sarm_control.data.lines import START, Line, Place, Reason, json_object, read_lines
    from sarm_control.data.messages import Message, Prompt, as_messages, prompt_key
    from sarm_control.data.rows import (
        WITH_ANSWERS,
        BadRow,
        Kind,
        PlacedRow,
        Row,
        check_aside,
        count_empty_answers,
        no_rows,
        parse_row,
        read_rows,
        rows_of,
        set_aside,
        stream_rows,
    )

_HOME_OF = {
    "AnyRecord": "files.records",
    "BadRecord": "files.records",
    "BadRow": "rows",
    "Kind": "rows",
    "Line": "lines",
    "Message": "messages",
    "Place": "lines",
    "PlacedRow": "rows",
    "Prompt": "messages",
    "Reason": "lines",
    "Record": "files.records",
    "Row": "rows",
    "START": "lines",
    "Source": "files.reading",
    "WITH_ANSWERS": "rows",
    "as_messages": "messages",
    "check_aside": "rows",
    "count_empty_answers": "rows",
    "is_saved_folder": "files.arrow_tables",
    "json_object": "lines",
    "make_copies": "files.reading",
    "no_rows": "rows",
    "output_form": "files.writing",
    "parse_row": "rows",
    "prompt_key": "messages",
    "read_lines": "lines",
    "read_records": "files.reading",
    "read_rows": "rows",
    "records_of": "files.reading",
    "rows_of": "rows",
    "set_aside": "rows",
    "stream_rows": "rows",
    "write_rows": "files.writing",
}

__all__ = [
    "START",
    "WITH_ANSWERS",
    "AnyRecord",
    "BadRecord",
    "BadRow",
    "Kind",
    "Line",
    "Message",
    "Place",
    "PlacedRow",
    "Prompt",
    "Reason",
    "Record",
    "Row",
    "Source",
    "as_messages",
    "check_aside",
    "count_empty_answers",
    "is_saved_folder",
    "json_object",
    "make_copies",
    "no_rows",
    "output_form",
    "parse_row",
    "prompt_key",
    "read_lines",
    "read_records",
    "read_rows",
    "records_of",
    "rows_of",
    "set_aside",
    "stream_rows",
    "write_rows",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
