"""One record of a data file of any form: its place, and its fields as JSON values."""

import json
from typing import Any, NamedTuple

from sarm_control.data.lines import Place, Reason


class Record(NamedTuple):
    """One record.

    Args:
        place: where it stands; reading can go on from there.
        fields: its fields in their order, of JSON values: text, numbers, true, false, None, lists, dicts.
        raw: the bytes it was read from, where it has its own.
    """

    place: Place
    fields: dict[str, Any]
    raw: bytes | None = None

    @property
    def text(self) -> str:
        """The record as text, for the file of rows that are set aside."""
        if self.raw is not None:
            return self.raw.decode("utf-8", "backslashreplace")
        return json.dumps(self.fields, ensure_ascii=False)


class BadRecord(NamedTuple):
    """A record that is damaged.

    Args:
        place: where it stands.
        reason: why it cannot be used.
        text: what stands there.
    """

    place: Place
    reason: Reason
    text: str


AnyRecord = Record | BadRecord
