"""The row, the prompt and the role of every scored answer.

Shapes: `N` answers, `R` rows, `P` distinct prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.data import Row
from sarm_control.errors import DataError
from sarm_control.latents import roles

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class AnswerTable:
    """The places of N answers, in the order in which they are scored.

    Args:
        row: [N] the row of each answer, 0..R-1.
        prompt: [N] its prompt, 0..P-1; equal texts are one prompt, which is the unit of every statistic.
        role: [N] "response", "chosen", "rejected" or "candidate".
        prompts: P.
    """

    row: Integers
    prompt: Integers
    role: NDArray[np.str_]
    prompts: int

    def __len__(self) -> int:
        return len(self.row)

    def by_row(self, values: NDArray[Any], role: str) -> list[NDArray[Any]]:
        """R arrays: the values of each row's answers of one role."""
        chosen = self.role == role
        # a row without answers of the role gets an empty array, so that places stay rows
        counts = np.bincount(self.row[chosen], minlength=int(self.row[-1]) + 1 if len(self) else 0)
        return np.split(values[chosen], np.cumsum(counts)[:-1])

    def prompt_means(self, values: ArrayLike, where: NDArray[np.bool_] | None = None) -> Floats:
        """[P] mean of each prompt's answers, or of those in `where`; NaN for a prompt without one."""
        kept = np.ones(len(self), dtype=bool) if where is None else where
        numbers = np.asarray(values, dtype=np.float64)[kept]
        counts = np.bincount(self.prompt[kept], minlength=self.prompts)
        sums = np.bincount(self.prompt[kept], weights=numbers, minlength=self.prompts)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def row_prompts(self) -> Integers:
        """[R] the prompt of each row."""
        _, first = np.unique(self.row, return_index=True)
        return self.prompt[first]


def answer_table(rows: Sequence[Row], answers: int) -> AnswerTable:
    """The places of the answers of `rows`.

    Args:
        rows: rows with answers.
        answers: the number of their scores.

    Raises:
        DataError: the number of scores is not the number of answers.
    """
    names = [roles(row) for row in rows]
    counts = [len(row_roles) for row_roles in names]
    if sum(counts) != answers:
        raise DataError(f"{answers} scores were given for {sum(counts)} answers")
    # equal prompt texts in different rows are one prompt, so their answers count as one unit
    place: dict[str, int] = {}
    prompts = [place.setdefault(row.prompt_key, len(place)) for row in rows]
    return AnswerTable(
        np.repeat(np.arange(len(rows)), counts),
        np.repeat(np.array(prompts, dtype=np.int64), counts),
        np.array([role for row_roles in names for role in row_roles], dtype=np.str_),
        len(place),
    )
