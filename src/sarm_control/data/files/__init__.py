"""Data files of any form into records, and rows into files.

In: JSON Lines, a JSON array, CSV, TSV, Parquet, Arrow; packed, piped, on the hub, or in memory. Out:
`Record` objects in order, each with its place, or a `BadRecord` with the reason. What a record's fields
mean is not known here.
"""

from sarm_control.data.files.csv_tables import Columns
from sarm_control.data.files.reading import Source, read_records, records_of
from sarm_control.data.files.records import AnyRecord, BadRecord, Record

__all__ = ["AnyRecord", "BadRecord", "Columns", "Record", "Source", "read_records", "records_of"]
