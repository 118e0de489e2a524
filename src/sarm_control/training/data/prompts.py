"""The prompts of a run: those of its data file without those held out."""

from typing import NamedTuple

from sarm_control.data import Row, read_rows
from sarm_control.errors import DataError
from sarm_control.training.config.run_config import RunConfig


class TrainingRows(NamedTuple):
    """The rows whose prompts are trained on, and how many were left out as excluded."""

    kept: list[Row]
    dropped: int


def training_rows(config: RunConfig, *, say_form: bool = False) -> TrainingRows:
    """The rows of `data.prompts` whose prompts are in no excluded file.

    Args:
        config: the run's settings.
        say_form: say on stderr what forms files of others have.

    Raises:
        DataError: a row that cannot be used, or no row is left.
    """
    data = config.data
    rows = read_rows(data.prompts, want={"prompt"}, options=data.row_options, say_form=say_form)
    excluded = [read_rows(path, want={"prompt"}, say_form=say_form) for path in data.exclude]
    held_out = {row.prompt_key for rows_of_one in excluded for row in rows_of_one}
    kept = [row for row in rows if row.prompt_key not in held_out]
    if not kept:
        raise DataError(
            f"{config.data.prompts}: all {len(rows)} prompts are in an excluded file",
            hint="give other prompts, or fewer files to exclude",
        )
    return TrainingRows(kept, len(rows) - len(kept))
