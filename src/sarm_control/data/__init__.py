"""Files of any form into rows.

In: files of any form, or rows in memory, with pairs, answers, prompts or messages. Out: `Row` objects in
order, or an error that names file and line; and rows into files. Rows know nothing of models.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.data.checking import FileCheck, Lengths, RowLengths, check_rows
    from sarm_control.data.files.forms import files_table
    from sarm_control.data.files.places.folders import is_row_folder
    from sarm_control.data.files.reading import Source, make_copies, read_records, records_of
    from sarm_control.data.files.records import AnyRecord, BadRecord, Record
    from sarm_control.data.files.writing import output_form, write_rows
    from sarm_control.data.lines import START, Line, Place, Reason, json_object, named_place, read_lines
    from sarm_control.data.messages import Message, Prompt, as_messages, prompt_key, prompt_text
    from sarm_control.data.plain import plain_row
    from sarm_control.data.rows import (
        WITH_ANSWERS,
        BadRow,
        Kind,
        PlacedRow,
        Row,
        RowCheck,
        check_aside,
        count_empty_answers,
        count_respelled,
        form_said,
        no_rows,
        parse_row,
        read_rows,
        rows_of,
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
    "AUTOMATIC": "shapes",
    "AnyRecord": "files.records",
    "BadRecord": "files.records",
    "BadRow": "rows",
    "FORMS": "shapes",
    "FileCheck": "checking",
    "Form": "shapes",
    "Kind": "rows",
    "Lengths": "checking",
    "Line": "lines",
    "Message": "messages",
    "Place": "lines",
    "PlacedRow": "rows",
    "Prompt": "messages",
    "Reason": "lines",
    "Record": "files.records",
    "Repeated": "shapes",
    "Row": "rows",
    "RowCheck": "rows",
    "RowLengths": "checking",
    "RowOptions": "shapes",
    "START": "lines",
    "Source": "files.reading",
    "WITH_ANSWERS": "rows",
    "as_messages": "messages",
    "check_aside": "rows",
    "check_columns": "shapes",
    "check_rows": "checking",
    "count_empty_answers": "rows",
    "count_respelled": "rows",
    "files_table": "files.forms",
    "form_said": "rows",
    "forms_table": "shapes",
    "is_row_folder": "files.places.folders",
    "json_object": "lines",
    "make_copies": "files.reading",
    "named_place": "lines",
    "no_rows": "rows",
    "output_form": "files.writing",
    "parse_columns": "shapes",
    "parse_row": "rows",
    "plain_row": "plain",
    "prompt_key": "messages",
    "prompt_text": "messages",
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
    "AUTOMATIC",
    "FORMS",
    "START",
    "WITH_ANSWERS",
    "AnyRecord",
    "BadRecord",
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
    "Record",
    "Repeated",
    "Row",
    "RowCheck",
    "RowLengths",
    "RowOptions",
    "Source",
    "as_messages",
    "check_aside",
    "check_columns",
    "check_rows",
    "count_empty_answers",
    "count_respelled",
    "files_table",
    "form_said",
    "forms_table",
    "is_row_folder",
    "json_object",
    "make_copies",
    "named_place",
    "no_rows",
    "output_form",
    "parse_columns",
    "parse_row",
    "plain_row",
    "prompt_key",
    "prompt_text",
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
