"""The prompts that a run trains on: those of its data file without the excluded ones."""

from typing import NamedTuple

from sarm_control.data import Row, read_rows
from sarm_control.errors import DataError
from sarm_control.training.config.run_config import DataConfig


class TrainingRows(NamedTuple):
    """The rows whose prompts are trained on, and how many were excluded."""

    kept: list[Row]
    dropped: int


def training_rows(data: DataConfig, *, say_form: bool = False) -> TrainingRows:
    """The rows of `data.prompts` whose prompts are in no excluded file.

    Args:
        data: the section `data` of the run's settings.
        say_form: report on stderr the form of files that have another than ours.

    Raises:
        DataError: a row that cannot be used, or no row is left.
    """
    rows = read_rows(
        data.prompts, want={"prompt"}, options=data.row_options, say_form=say_form, limit=data.rows
    )
    excluded = [read_rows(path, want={"prompt"}, say_form=say_form) for path in data.exclude]
    # by key and not by text: a prompt in another case or with other white space is the same prompt
    held_out = {row.prompt_key for rows_of_one in excluded for row in rows_of_one}
    kept = [row for row in rows if row.prompt_key not in held_out]
    if not kept:
        raise DataError(
            f"{data.prompts}: all {len(rows)} prompts are in an excluded file",
            hint="give other prompts, or fewer files to exclude",
        )
    return TrainingRows(kept, len(rows) - len(kept))
