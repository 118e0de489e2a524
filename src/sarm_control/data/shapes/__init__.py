"""The forms in which people keep their rows, each read as one of our own.

In: the fields of one row. Out: the fields of the plain row that says the same, or the reason why there is
none. Nothing here opens a file.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.data.shapes.columns import check_columns, parse_columns
    from sarm_control.data.shapes.file_shape import FileShape, Repeats, other_fields, plain_fields
    from sarm_control.data.shapes.nearest import nearest_form
    from sarm_control.data.shapes.options import AUTOMATIC, Repeated, RowOptions
    from sarm_control.data.shapes.repeats import begins_with_prompt, tells, without_prompt
    from sarm_control.data.shapes.table import FORMS, Form, forms_table
    from sarm_control.data.shapes.turns import turns_of

_HOME_OF = {
    "AUTOMATIC": "options",
    "FORMS": "table",
    "FileShape": "file_shape",
    "Form": "table",
    "Repeated": "options",
    "Repeats": "file_shape",
    "RowOptions": "options",
    "begins_with_prompt": "repeats",
    "check_columns": "columns",
    "forms_table": "table",
    "nearest_form": "nearest",
    "other_fields": "file_shape",
    "parse_columns": "columns",
    "plain_fields": "file_shape",
    "tells": "repeats",
    "turns_of": "turns",
    "without_prompt": "repeats",
}

__all__ = [
    "AUTOMATIC",
    "FORMS",
    "FileShape",
    "Form",
    "Repeated",
    "Repeats",
    "RowOptions",
    "begins_with_prompt",
    "check_columns",
    "forms_table",
    "nearest_form",
    "other_fields",
    "parse_columns",
    "plain_fields",
    "tells",
    "turns_of",
    "without_prompt",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
