"""Candidates: the answers to choose among for every prompt, with their attributes.

Shapes: `P` prompts, `C` candidates of all of them, `m` candidates of one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.data import Row
from sarm_control.errors import DataError
from sarm_control.evaluation.answer_places import Floats, Integers, answer_table
from sarm_control.latents import ScoredRows

LENGTH, CHOSEN = "length", "chosen"
"""Built-in attributes. `length` is the number of tokens of the answer. `chosen`, for data of pairs only, is 1
for a chosen answer and 0 for a rejected one."""


@dataclass(frozen=True)
class CandidateSets:
    """The candidates of P prompts, one set after another.

    Args:
        answers: [C] the position of each candidate in the scores.
        starts: [P + 1]; set p is `starts[p]:starts[p + 1]` and has at least two candidates.
        attributes: name -> [C] numbers.
        rows: [P] the first row of each prompt.
        texts: [C] the answers.
        alone: number of prompts left out because they have a single candidate, which always wins.
    """

    answers: Integers
    starts: Integers
    attributes: Mapping[str, Floats]
    rows: tuple[Row, ...]
    texts: tuple[str, ...]
    alone: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Integers:
        """[P] number of candidates of each prompt."""
        return np.diff(self.starts)

    def spans(self) -> Iterator[slice]:
        """The slice of each prompt's candidates among all C."""
        return (slice(a, b) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True))


def candidate_sets(data: ScoredRows, attributes: Sequence[str] = ()) -> CandidateSets:
    """Pools the answers of equal prompts from rows of every kind.

    Args:
        data: rows and their scores.
        attributes: columns of the data with one number for each answer of a row, in the order chosen,
            rejected, candidates; a plain number in a row with one answer. True counts as 1.

    Raises:
        DataError: no prompt has two candidates, or an attribute is not such a column.
    """
    table = answer_table(data.rows, len(data.scored))
    # stable, so that candidates of a prompt keep the order of the data
    order = np.argsort(table.prompt, kind="stable")
    counts = np.bincount(table.prompt, minlength=table.prompts)
    kept = np.flatnonzero(counts > 1)
    _check_kept(len(kept), table.prompts)
    answers = order[np.isin(table.prompt[order], kept)]
    columns = {LENGTH: data.scored.lengths.astype(np.float64)}
    # of candidates without a label nobody knows whether they are chosen
    if np.isin(table.role, ("chosen", "rejected")).all():
        columns[CHOSEN] = (table.role == "chosen").astype(np.float64)
    columns |= {name: _column(data.rows, name) for name in attributes}
    texts = [text for row in data.rows for text in row.answers]
    # reversed, so that the first row of a prompt is the one that stays
    first = {int(prompt): int(row) for row, prompt in reversed(list(enumerate(table.row_prompts())))}
    return CandidateSets(
        answers,
        np.concatenate([[0], np.cumsum(counts[kept])]),
        {name: values[answers] for name, values in columns.items()},
        tuple(data.rows[first[int(prompt)]] for prompt in kept),
        tuple(texts[j] for j in answers),
        table.prompts - len(kept),
    )


def check_candidates(rows: Sequence[Row], attributes: Sequence[str] = ()) -> None:
    """Refuses rows that `candidate_sets` would refuse, before they are scored.

    Raises:
        DataError: likewise.
    """
    table = answer_table(rows, sum(len(row.answers) for row in rows))
    counts = np.bincount(table.prompt, minlength=table.prompts)
    _check_kept(int((counts > 1).sum()), table.prompts)
    for name in attributes:
        _column(rows, name)


def _check_kept(kept: int, prompts: int) -> None:
    if not kept:
        raise DataError(
            f"no prompt has two candidates: each of the {prompts} prompts has one answer",
            hint='write {"prompt", "candidates": [...]}; pairs, and several answers to one prompt, serve too',
        )


def _column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """[N] one number for each answer of all rows."""
    return np.array([value for row in rows for value in _values(row, name)], dtype=np.float64)


def _values(row: Row, name: str) -> list[float]:
    if name not in row.raw:
        raise DataError(
            f"{row.where}: no column {name} for --attribute: has keys [{', '.join(row.raw)}]",
            hint="every row needs it, with one number for each of its answers",
        )
    value, count = row.raw[name], len(row.answers)
    values: list[Any] = value if isinstance(value, list) else [value]
    if len(values) != count or not all(isinstance(number, bool | int | float) for number in values):
        raise DataError(
            f"{row.where}: {name} is not {count} numbers, one for each of the row's answers",
            hint="in the order chosen, rejected, candidates",
        )
    return [float(number) for number in values]
