"""What a user can say about the rows of data files: the same options wherever they are read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from sarm_control.cli._help import INPUT, RARE_INPUT

if TYPE_CHECKING:
    from sarm_control.data import RowOptions


@Parameter(name="*")
@dataclass(frozen=True)
class RowFlags:
    """How rows are read where a file does not say it by itself."""

    columns: Annotated[
        str | None,
        Parameter(group=INPUT, help="Fields that have other names in the data: prompt=question,chosen=best."),
    ] = None
    repeated_prompts: Annotated[
        Literal["auto", "strip", "keep"],
        Parameter(
            group=RARE_INPUT,
            help="Answers that begin with their prompt: auto takes it off when those of all rows do and "
            "refuses a file where some do; strip takes it off wherever they do; keep nowhere.",
        ),
    ] = "auto"
    first_rows: Annotated[
        int | None,
        Parameter(
            group=RARE_INPUT,
            name="--rows",
            validator=validators.Number(gte=1),
            help="Read the first rows of each data file alone; of a data set on the hub no more are "
            "downloaded.",
        ),
    ] = None

    @property
    def options(self) -> "RowOptions":
        """These as the library takes them.

        Raises:
            ConfigError: columns nobody can read.
        """
        from sarm_control.data import RowOptions, parse_columns

        columns = () if self.columns is None else parse_columns(self.columns)
        return RowOptions(columns, self.repeated_prompts)

    @property
    def recorded(self) -> dict[str, Any]:
        """These for manifests; empty where nothing was said."""
        given = {
            "columns": self.columns,
            "repeated_prompts": self.repeated_prompts,
            "first_rows": self.first_rows,
        }
        return {name: value for name, value in given.items() if value not in (None, "auto")}


AS_THEY_ARE = RowFlags()
