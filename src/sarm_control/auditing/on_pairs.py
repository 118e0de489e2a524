"""How often a reward prefers the chosen answer: by kind of prompt and by style, and what length decides.

Accuracy is the share of chosen-rejected pairs in which the chosen answer has the higher reward; a prompt
counts once. Data in the form of RM-Bench (arXiv 2410.16184) also have it by style: easy, normal and hard.

Shapes: `N` answers, `P` prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.mending.guard import pair_credit
from sarm_control.auditing.table import AttributeTable, Floats, within_prompts
from sarm_control.data import Row
from sarm_control.errors import DataError
from sarm_control.evaluation import answer_table, rm_bench
from sarm_control.latents import ScoredRows
from sarm_control.statistics import Interval, share_interval

KINDS = ("domain", "subset", "category", "kind", "task", "source")
"""Columns that say what kind of prompt a row has; the first that most rows have is used."""
MOST_KINDS = 30
REFUSAL = "refusal"
"""The attribute by which a refusal is known."""


@dataclass(frozen=True)
class Accuracy:
    """A reward on pairs.

    Args:
        pairs: share of pairs that are preferred rightly, over prompts.
        column: the column that kinds are of; None without one.
        kinds: the same for each kind of prompt.
        styles: of data in the form of RM-Bench: `easy`, `normal`, `hard`; empty for others.
        longer: share of pairs of answers to a prompt, of different length, in which the longer one has the
            higher reward.
        length_correlation: of the reward with log2 tokens, within prompts; NaN where nothing varies.
        refused: of prompts whose chosen answers do not refuse and a rejected one does, the share of such
            pairs in which the refusal has the higher reward; None where there are none.
    """

    pairs: Interval
    column: str | None
    kinds: dict[str, Interval]
    styles: dict[str, Interval]
    longer: Interval
    length_correlation: float
    refused: Interval | None

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; null where there is no number."""
        known = np.isfinite(self.length_correlation)
        return {
            "pairs": self.pairs.as_json(),
            "column": self.column,
            "kinds": {name: one.as_json() for name, one in self.kinds.items()},
            "styles": {name: one.as_json() for name, one in self.styles.items()},
            "longer_preferred": self.longer.as_json(),
            "length_correlation": float(self.length_correlation) if known else None,
            "refused_when_it_should_answer": None if self.refused is None else self.refused.as_json(),
        }


def accuracy(data: ScoredRows, table: AttributeTable, rewards: Floats | None = None) -> Accuracy:
    """The accuracy of a reward on the pairs among the rows.

    Args:
        data: rows and the scores of their answers; rows without chosen and rejected answers play no part.
        table: the attributes of the same answers.
        rewards: [N] other rewards of the same answers, such as mended ones; the scores' own where None.

    Raises:
        DataError: there are no pairs.
    """
    if not any(row.chosen and row.rejected for row in data.rows):
        raise DataError("no row has chosen and rejected answers", hint="give pairs")
    by = table.rewards if rewards is None else rewards
    found = pair_credit(data, by)
    column, kind_of = _kinds(data, len(by))
    kinds = {}
    if column is not None:
        labels = np.array([kind_of.get(int(number), "none") for number in found.prompt])
        kinds = {kind: share_interval(found.credit[labels == kind]) for kind in sorted(set(labels.tolist()))}
    longer, correlation = _length(data, table, by)
    return Accuracy(
        share_interval(found.credit),
        column,
        kinds,
        _styles(data, by),
        longer,
        correlation,
        _refused(table, by),
    )


def _kinds(data: ScoredRows, answers: int) -> tuple[str | None, dict[int, str]]:
    """The column of kinds, and the kind of each prompt by its number."""
    numbers = answer_table(data.rows, answers).row_prompts()
    for column in KINDS:
        named = {
            int(number): row.raw[column]
            for number, row in zip(numbers, data.rows, strict=True)
            if isinstance(row.raw.get(column), str) and row.raw[column]
        }
        # a column of one value tells nothing apart, and one of very many holds texts or numbers of rows
        if 2 * len(named) > len(set(numbers.tolist())) and 1 < len(set(named.values())) <= MOST_KINDS:
            return column, named
    return None, {}


def _styles(data: ScoredRows, rewards: Floats) -> dict[str, Interval]:
    rows, own = _pairs_alone(data.rows, rewards)
    try:
        bench = rm_bench(rows)
    except DataError:
        # data of another form have no styles
        return {}
    credit = bench.credit(own)
    return {
        name: share_interval(credit[:, place])
        for place, name in enumerate(bench.figures)
        if name in ("easy", "normal", "hard")
    }


def _pairs_alone(rows: Sequence[Row], rewards: Floats) -> tuple[list[Row], Floats]:
    # `rm_bench` refuses all rows for one that is no pair
    kept = np.repeat([row.kind == "pair" for row in rows], [len(row.answers) for row in rows])
    return [row for row in rows if row.kind == "pair"], rewards[kept]


def _length(data: ScoredRows, table: AttributeTable, rewards: Floats) -> tuple[Interval, float]:
    lengths = np.log2(np.maximum(data.scored.lengths, 1).astype(np.float64))
    shares = []
    for rows in _by_prompt(table.prompt):
        longer = np.sign(lengths[rows][:, None] - lengths[rows][None, :])
        higher = np.sign(rewards[rows][:, None] - rewards[rows][None, :])
        if (longer > 0).any():
            # a tie of rewards counts half
            # signs -1, 0, 1 become 0, a half, 1
            shares.append(float((higher[longer > 0] + 1).mean() / 2))
    x, y = (within_prompts(values, table.prompt) for values in (lengths, rewards))
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return share_interval(shares), float(x @ y) / spread if spread > 0 else float("nan")


def _by_prompt(prompt: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    order = np.argsort(prompt, kind="stable")
    return list(np.split(order, np.flatnonzero(np.diff(prompt[order])) + 1))


def _refused(table: AttributeTable, rewards: Floats) -> Interval | None:
    names = [one.name for one in table.attributes]
    if REFUSAL not in names:
        return None
    refuses = table.has[:, names.index(REFUSAL)]
    shares = []
    for rows in _by_prompt(table.prompt):
        chosen, rejected = (rows[table.role[rows] == role] for role in ("chosen", "rejected"))
        bad = rejected[refuses[rejected]]
        # where the chosen answer refuses too, refusing was right
        if len(chosen) and len(bad) and not refuses[chosen].any():
            shares.append(float((rewards[bad][:, None] > rewards[chosen][None, :]).mean()))
    return share_interval(shares) if shares else None
