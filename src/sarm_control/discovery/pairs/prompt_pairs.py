"""Groups rows of a data file and their scores by prompt, and splits prompts for selection and confirmation.

Shapes: `P` prompts, `N` answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.data import Prompt, Row, Source, rows_of
from sarm_control.discovery.pairs.margins import PairLatents, pair_latents
from sarm_control.errors import DataError
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import Scored
from sarm_control.seeds import derive_seed


class SideAnswers(NamedTuple):
    """The answers of one side, in the order of their latents.

    Args:
        numbers: [N] their positions in the scores.
        texts: [N].
        prompts: [N] the prompt of each.
    """

    numbers: NDArray[np.int64]
    texts: tuple[str, ...]
    prompts: tuple[Prompt, ...]

    def take(self, wanted: NDArray[np.bool_]) -> "SideAnswers":
        """The answers at which the mask [N] is true."""
        rows = np.flatnonzero(wanted)
        return SideAnswers(
            self.numbers[rows], tuple(self.texts[n] for n in rows), tuple(self.prompts[n] for n in rows)
        )


@dataclass(frozen=True)
class PromptPairs:
    """Pairs grouped by prompt; every distinct prompt is one unit.

    Args:
        latents: the answers' latents, grouped by prompt `0..P-1`.
        keys: [P] the text that identifies each prompt (`Row.prompt_key`).
        rows: [P] the first row of each prompt.
        scored: the scores to which the numbers of the answers refer.
        chosen: the answers of `latents.chosen`, row by row.
        rejected: the answers of `latents.rejected`.
    """

    latents: PairLatents
    keys: tuple[str, ...]
    rows: tuple[Row, ...]
    scored: Scored
    chosen: SideAnswers
    rejected: SideAnswers

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, prompts: Sequence[int] | NDArray[np.int64]) -> "PromptPairs":
        """The chosen prompts, in the order given."""
        return replace(
            self,
            latents=self.latents.take_prompts(prompts),
            keys=tuple(self.keys[p] for p in prompts),
            rows=tuple(self.rows[p] for p in prompts),
            # answers stay in their own order, as in `take_prompts`, whatever the order of the prompts
            chosen=self.chosen.take(np.isin(self.latents.chosen_prompt, prompts)),
            rejected=self.rejected.take(np.isin(self.latents.rejected_prompt, prompts)),
        )


class PromptSplit(NamedTuple):
    """Prompts for selecting latents, prompts for confirming them, and how many prompts both had."""

    selection: PromptPairs
    confirmation: PromptPairs
    shared: int


class Others(NamedTuple):
    """Rows whose prompts another file does not have, and how many prompts both files have."""

    rows: ScoredRows
    shared: int


class AnswerPlace(NamedTuple):
    """The first position of an answer in the scores, and the unit `0..P-1` to which it belongs."""

    number: int
    unit: int
    text: str
    prompt: Prompt


def group_by_prompt(rows: Sequence[Row] | Source, scored: Scored) -> PromptPairs:
    """Pools the pairs of equal prompts; an answer that occurs in several pairs of a prompt counts once.

    Args:
        rows: rows of kind "pair"; or what `read_rows` takes, such as a list of dicts or a data frame.
        scored: scores of `Row.answers` of every row, in order.

    Raises:
        DataError: the number of scores is not the number of answers.
    """
    rows = rows_of(rows, want={"pair"})
    answers = sum(len(row.answers) for row in rows)
    if answers != len(scored):
        raise DataError(f"{len(scored)} scores were given for {answers} answers")
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.prompt_key, row)
    place = {key: p for p, key in enumerate(first)}
    prompts = [row.prompt for row in first.values()]
    found: dict[tuple[int, bool, str], int] = {}
    number = 0
    for row in rows:
        p = place[row.prompt_key]
        for j, answer in enumerate(row.answers):
            # the first score of a repeated answer is used; copies would weight the prompt's mean. The side is
            # part of the key, since an answer may be chosen in one pair and rejected in another.
            found.setdefault((p, j < len(row.chosen), answer), number + j)
        number += len(row.answers)
    sides = [
        [
            AnswerPlace(n, p, text, prompts[p])
            for (p, is_chosen, text), n in found.items()
            if is_chosen == side
        ]
        for side in (True, False)
    ]
    return pairs_of_places(sides[0], sides[1], tuple(first), tuple(first.values()), scored)


def pairs_of_places(
    chosen: Sequence[AnswerPlace],
    rejected: Sequence[AnswerPlace],
    keys: tuple[str, ...],
    rows: tuple[Row, ...],
    scored: Scored,
) -> PromptPairs:
    """Pairs whose chosen and rejected answers have these positions in the scores.

    Args:
        chosen: at least one for each prompt `0..P-1`.
        rejected: the same.
        keys: [P].
        rows: [P].
        scored: their scores.
    """
    sides = [
        SideAnswers(
            np.array([one.number for one in side], dtype=np.int64),
            tuple(one.text for one in side),
            tuple(one.prompt for one in side),
        )
        for side in (chosen, rejected)
    ]
    latents = pair_latents(
        scored.latents.take(sides[0].numbers),
        scored.latents.take(sides[1].numbers),
        [one.unit for one in chosen],
        [one.unit for one in rejected],
        scored.head,
        chosen_length=scored.lengths[sides[0].numbers],
        rejected_length=scored.lengths[sides[1].numbers],
        **_residuals(scored, *sides),
    )
    return PromptPairs(latents, keys, rows, scored, *sides)


def _residuals(scored: Scored, chosen: SideAnswers, rejected: SideAnswers) -> dict[str, NDArray[np.float64]]:
    if scored.kind == "sarm":
        return {}
    residual = scored.residual
    return {
        "chosen_residual": residual[chosen.numbers],
        "rejected_residual": residual[rejected.numbers],
    }


def split_halves(pairs: PromptPairs, seed: int) -> PromptSplit:
    """Two halves of the prompts, determined by each prompt's text and the seed, never by its position."""
    order = sorted(range(len(pairs)), key=lambda p: derive_seed(seed, "selection-half", pairs.keys[p]))
    middle = (len(order) + 1) // 2
    return PromptSplit(pairs.take(sorted(order[:middle])), pairs.take(sorted(order[middle:])), 0)


def drop_shared(selection: PromptPairs, confirmation: PromptPairs) -> PromptSplit:
    """Removes from the confirmation the prompts that the selection has too."""
    seen = set(selection.keys)
    alone = [p for p, key in enumerate(confirmation.keys) if key not in seen]
    return PromptSplit(selection, confirmation.take(alone), len(confirmation) - len(alone))


def without_shared(selection: ScoredRows, confirmation: ScoredRows) -> Others:
    """The rows of the confirmation with prompts that the selection does not have."""
    seen = {row.prompt_key for row in selection.rows}
    alone = [row.prompt_key not in seen for row in confirmation.rows]
    answers = np.repeat(alone, [len(row.answers) for row in confirmation.rows])
    rows = [row for row, keep in zip(confirmation.rows, alone, strict=True) if keep]
    kept = ScoredRows(rows, confirmation.scored.take(np.flatnonzero(answers)))
    return Others(kept, len({row.prompt_key for row in confirmation.rows} & seen))
