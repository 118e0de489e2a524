"""The prompts that a run trains on: those of its data file without the excluded ones."""

from typing import NamedTuple

from sarm_control.data import Row, read_rows
from sarm_control.errors import DataError
from sarm_control.training.config.run_config import DataConfig


class TrainingRows(NamedTuple):
    """The rows whose prompts are trained on, and how many were excluded."""

    kept: list[Row]
    dropped: int


def training_rows(data: DataConfig) -> TrainingRows:
    """The rows of `data.prompts` whose prompts are in no excluded file.

    Raises:
        DataError: a row that cannot be used, or no row is left.
    """
    rows = read_rows(data.prompts, want={"prompt"})
    excluded = {row.prompt_key for path in data.exclude for row in read_rows(path, want={"prompt"})}
    kept = [row for row in rows if row.prompt_key not in excluded]
    if not kept:
        raise DataError(
            f"{data.prompts}: all {len(rows)} prompts are in an excluded file",
            hint="give other prompts, or fewer files to exclude",
        )
    return TrainingRows(kept, len(rows) - len(kept))
