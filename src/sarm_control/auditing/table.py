"""The attributes and rewards of all answers, prompt by prompt.

Shapes: `N` answers, `P` prompts, `A` attributes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.attributes.attribute import Attribute
from sarm_control.data import Prompt, Row, as_messages
from sarm_control.errors import DataError, MissingExtraError, SarmError
from sarm_control.evaluation import answer_table
from sarm_control.files import atomic_file
from sarm_control.latents import ScoredRows
from sarm_control.notebooks import data_frame

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AttributeTable:
    """Every answer's attributes and reward.

    Args:
        attributes: A of them.
        values: [N, A] as the attributes measure them.
        rewards: [N] reward units.
        prompt: [N] the prompt of each answer, 0..P-1; the unit of every statistic.
        role: [N] "response", "chosen", "rejected" or "candidate".
        prompts: [P] the last user turn of each.
        answers: [N] the texts.
    """

    attributes: tuple[Attribute, ...]
    values: Floats
    rewards: Floats
    prompt: NDArray[np.int64]
    role: NDArray[np.str_]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def reward_sd(self) -> float:
        """SD of all rewards, the unit of every price."""
        return float(self.rewards.std(ddof=1)) if len(self.rewards) > 1 else 0.0

    @property
    def has(self) -> NDArray[np.bool_]:
        """[N, A] whether an answer has any of an attribute; of a size, more than the median answer."""
        sizes = np.array([one.unit == "doubling" for one in self.attributes])
        # every answer has a length, so "has any" would tell no two apart
        limits = np.where(sizes, np.median(self.values, axis=0), 0.0)
        return np.asarray(self.values > limits)

    @property
    def regressors(self) -> Floats:
        """[N, A] in the units of `Attribute.unit`: 0 or 1, `log2(1 + count)`, `log2(max(size, 1))`."""
        columns = [in_units(one, self.values[:, i]) for i, one in enumerate(self.attributes)]
        return np.stack(columns, axis=1) if columns else np.empty_like(self.values)

    def of_prompts(self, kept: NDArray[np.bool_]) -> "AttributeTable":
        """The answers to the chosen prompts [P] alone, whose numbers close up."""
        rows = np.flatnonzero(kept[self.prompt])
        place = np.cumsum(kept) - 1
        return AttributeTable(
            self.attributes,
            self.values[rows],
            self.rewards[rows],
            place[self.prompt[rows]],
            self.role[rows],
            tuple(text for text, keep in zip(self.prompts, kept, strict=True) if keep),
            tuple(self.answers[n] for n in rows),
        )

    def to_arrow(self) -> Any:
        """A `pyarrow.Table` with a row for each answer: its prompt, text, role, reward and attributes."""
        import pyarrow as pa

        columns = {
            "prompt": pa.array([self.prompts[number] for number in self.prompt]),
            "answer": pa.array(self.answers),
            "role": pa.array(self.role.tolist()),
            "reward": pa.array(self.rewards),
            **{one.name: pa.array(self.values[:, i]) for i, one in enumerate(self.attributes)},
        }
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """The same as a pandas frame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(self.to_arrow().to_pylist())

    def write_parquet(self, path: Path) -> None:
        """Writes the same; atomically."""
        import pyarrow.parquet as pq

        with atomic_file(path) as temporary:
            pq.write_table(self.to_arrow(), temporary)


def attribute_table(data: ScoredRows, attributes: Sequence[Attribute]) -> AttributeTable:
    """Measures all attributes of all answers.

    Args:
        data: rows and the scores of their answers.
        attributes: what to measure.

    Raises:
        DataError: an attribute's function failed on an answer, or gave a number that is negative or not
            finite; the row is named.
    """
    places = answer_table(data.rows, len(data.scored))
    answers = tuple(text for row in data.rows for text in row.answers)
    asked = [_last_turn(row.prompt) for row in data.rows for _ in row.answers]
    where = [row.where for row in data.rows for _ in row.answers]
    values = measured([one for one in attributes if one.column is None], asked, answers, where)
    # in ascending order: each column is put in where its attribute stands
    for place, one in enumerate(attributes):
        if one.column is not None:
            column = [value for row in data.rows for value in _in_column(one, row)]
            values = np.insert(values, place, column, axis=1)
    # reversed, so that a prompt keeps its first answer
    first = {int(number): n for n, number in reversed(list(enumerate(places.prompt)))}
    return AttributeTable(
        tuple(attributes),
        values,
        data.scored.rewards.astype(np.float64),
        places.prompt,
        places.role,
        tuple(asked[first[number]] for number in range(places.prompts)),
        answers,
    )


def in_units(one: Attribute, values: Floats) -> Floats:
    """[N] values of an attribute in the units of `Attribute.unit`."""
    if one.unit == "item":
        return np.log2(1.0 + values)
    if one.unit == "doubling":
        return np.log2(np.maximum(values, 1.0))
    return values


def measured(
    attributes: Sequence[Attribute], prompts: Sequence[str], answers: Sequence[str], where: Sequence[str] = ()
) -> Floats:
    """[N, A] the attributes of each answer.

    Args:
        attributes: which; none of them a column.
        prompts: the last user turns.
        answers: the texts.
        where: each answer's place in its file, for messages.

    Raises:
        DataError: a function failed, or gave what is no attribute.
    """
    places = where or [f"changed answer {n + 1}" for n in range(len(answers))]
    values = np.empty((len(answers), len(attributes)))
    # answer by answer: what is parsed of one is remembered until the next
    for n, row in enumerate(zip(prompts, answers, places, strict=True)):
        values[n] = [_measured(one, *row) for one in attributes]
    return values


def _measured(one: Attribute, prompt: str, answer: str, where: str) -> float:
    try:
        value = float(one.measure(prompt, answer))
    except MissingExtraError:
        raise
    except SarmError as error:
        raise DataError(f"{where}: the attribute {one.name} failed: {error}", hint=error.hint) from error
    except Exception as error:  # a user's function may raise anything
        raise DataError(
            f"{where}: the attribute {one.name} failed: {type(error).__name__}: {error}",
            hint="its function has to take every prompt and answer of the data",
        ) from error
    return _checked(one, value, where)


def _in_column(one: Attribute, row: Row) -> list[float]:
    """One number for each answer of the row."""
    if one.column not in row.raw:
        raise DataError(
            f"{row.where}: no column {one.column} for the attribute {one.name}: has {', '.join(row.raw)}",
            hint="every row needs it, with one number for each of its answers",
        )
    value = row.raw[one.column]
    values = value if isinstance(value, list) else [value]
    if len(values) != len(row.answers) or not all(isinstance(item, bool | int | float) for item in values):
        raise DataError(
            f"{row.where}: {one.column} is not {len(row.answers)} numbers, one for each of the row's answers",
            hint="in the order chosen, rejected, candidates",
        )
    return [_checked(one, float(item), row.where) for item in values]


def _checked(one: Attribute, value: float, where: str) -> float:
    if not (np.isfinite(value) and value >= 0):
        raise DataError(
            f"{where}: the attribute {one.name} gave {value}",
            hint="an attribute is a finite number, 0 or more",
        )
    if one.unit == "answer" and value not in (0.0, 1.0):
        raise DataError(
            f"{where}: the attribute {one.name} gave {value}, and its unit is answer: 0 or 1",
            hint="say `unit: item` for a count, `unit: doubling` for a size",
        )
    return value


def _last_turn(prompt: Prompt) -> str:
    """The last user turn: what the answer answers."""
    return next((turn["content"] for turn in reversed(as_messages(prompt)) if turn["role"] == "user"), "")


def within_prompts(values: Floats, prompt: NDArray[np.int64]) -> Floats:
    """[N] or [N, M] deviations from the means of the prompts, which are any labels [N]."""
    _, place, counts = np.unique(prompt, return_inverse=True, return_counts=True)
    flat = values.reshape(len(values), -1)
    sums = np.zeros((len(counts), flat.shape[1]))
    np.add.at(sums, place, flat)
    return np.asarray((flat - (sums / counts[:, None])[place]).reshape(values.shape))
