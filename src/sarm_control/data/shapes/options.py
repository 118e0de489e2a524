"""What a user can say about the rows of a file."""

from dataclasses import dataclass
from typing import Literal

Repeated = Literal["auto", "strip", "keep"]


@dataclass(frozen=True)
class RowOptions:
    """How rows are read where a file does not say it by itself.

    Args:
        columns: (our name, the file's name) of fields that have other names; see `parse_columns`.
        repeated: what happens to answers that begin with their prompt. `auto` takes it off when those of
            all rows do and refuses a file in which some do; `strip` takes it off wherever all answers of a
            row begin with it; `keep` leaves every answer as it is.
    """

    columns: tuple[tuple[str, str], ...] = ()
    repeated: Repeated = "auto"


AUTOMATIC = RowOptions()
