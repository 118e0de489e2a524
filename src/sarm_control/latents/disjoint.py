"""Checks that demonstrations share no prompt with the data that a policy is evaluated on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sarm_control.data import AUTOMATIC, Row, RowOptions, Source, is_row_folder, rows_of, stream_rows
from sarm_control.errors import DataError
from sarm_control.latents.folder import LatentsFolder


def check_disjoint(
    rows: Sequence[Row] | Source, others: Sequence[Path], options: RowOptions = AUTOMATIC
) -> None:
    """Refuses rows whose prompts are in other files as well.

    Args:
        rows: of the demonstrations; or what `read_rows` takes, such as a list of dicts or a data frame.
        others: data files of any kind of row, or latents folders.
        options: how their rows are read, see `read_rows`.

    Raises:
        DataError: names the two places of the first shared prompt, and the number of shared prompts.
    """
    # the demonstrations' prompts are held, the other files stream past: an evaluation set of any size is
    # checked in the memory that the demonstrations take
    places: dict[str, str] = {}
    for row in rows_of(rows, want={"prompt"}):
        places.setdefault(row.prompt_key, row.where)
    for path in others:
        shared: dict[str, str] = {}
        for row in _rows(path, options):
            if row.prompt_key in places:
                # by key: a prompt that a file of pairs has in many rows is one shared prompt
                shared.setdefault(row.prompt_key, row.where)
        if shared:
            key, there = next(iter(shared.items()))
            raise DataError(
                f"{len(shared)} of {len(places)} prompts are in {path} too: "
                f"{places[key]} has the prompt of {there}",
                hint="leave these rows out: a policy that is pulled towards them has seen its evaluation",
            )


def _rows(path: Path, options: RowOptions) -> Iterable[Row]:
    if path.is_dir() and not is_row_folder(path):
        return (row for found in LatentsFolder(path).shards() for row in found.rows)
    return (row for _, row in stream_rows(path, want={"prompt"}, options=options))
