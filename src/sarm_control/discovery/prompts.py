"""From rows of a data file and their scores to latents grouped by prompt, and the two halves.

Shapes: `P` prompts, `N` answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.conversation.rows import Row
from sarm_control.discovery.margins import PairLatents, pair_latents
from sarm_control.errors import DataError
from sarm_control.sarm.scored import Scored
from sarm_control.seeds import derive_seed


@dataclass(frozen=True)
class PromptPairs:
    """Pairs of which every distinct prompt is one unit.

    Args:
        latents: the answers' latents, grouped by prompt `0..P-1`.
        keys: [P] the text that identifies each prompt (`Row.prompt_key`).
        rows: [P] the first row of each prompt.
    """

    latents: PairLatents
    keys: tuple[str, ...]
    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, prompts: Sequence[int] | NDArray[np.int64]) -> "PromptPairs":
        """The chosen prompts, in the order given."""
        return PromptPairs(
            self.latents.take_prompts(prompts),
            tuple(self.keys[p] for p in prompts),
            tuple(self.rows[p] for p in prompts),
        )


class Parts(NamedTuple):
    """Prompts used to select latents, prompts used to confirm them, and how many were shared."""

    selection: PromptPairs
    confirmation: PromptPairs
    shared: int


class _Answer(NamedTuple):
    row: int
    prompt: int


def group_by_prompt(rows: Sequence[Row], scored: Scored) -> PromptPairs:
    """Pools the pairs of equal prompts; an answer that several pairs of a prompt list counts once.

    Args:
        rows: rows of kind "pair".
        scored: scores of `Row.answers` of every row, in order.

    Raises:
        DataError: there is not one score for each answer.
    """
    answers = sum(len(row.answers) for row in rows)
    if answers != len(scored):
        raise DataError(f"{len(scored)} scores were given for {answers} answers")
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.prompt_key, row)
    place = {key: p for p, key in enumerate(first)}
    found: dict[tuple[int, bool, str], int] = {}
    number = 0
    for row in rows:
        p = place[row.prompt_key]
        for j, answer in enumerate(row.answers):
            found.setdefault((p, j < len(row.chosen), answer), number + j)
        number += len(row.answers)
    latents = _pairs_of(found, scored)
    return PromptPairs(latents, tuple(first), tuple(first.values()))


def _pairs_of(found: dict[tuple[int, bool, str], int], scored: Scored) -> PairLatents:
    good = [_Answer(n, p) for (p, is_chosen, _), n in found.items() if is_chosen]
    bad = [_Answer(n, p) for (p, is_chosen, _), n in found.items() if not is_chosen]
    return pair_latents(
        scored.latents.take([answer.row for answer in good]),
        scored.latents.take([answer.row for answer in bad]),
        [answer.prompt for answer in good],
        [answer.prompt for answer in bad],
        scored.head,
    )


def split_halves(pairs: PromptPairs, seed: int) -> Parts:
    """Two halves of the prompts, decided by each prompt's text and the seed, never by its place."""
    order = sorted(range(len(pairs)), key=lambda p: derive_seed(seed, "selection-half", pairs.keys[p]))
    middle = (len(order) + 1) // 2
    return Parts(pairs.take(sorted(order[:middle])), pairs.take(sorted(order[middle:])), 0)


def drop_shared(selection: PromptPairs, confirmation: PromptPairs) -> Parts:
    """Removes from the confirmation the prompts that the selection has too."""
    seen = set(selection.keys)
    alone = [p for p, key in enumerate(confirmation.keys) if key not in seen]
    return Parts(selection, confirmation.take(alone), len(confirmation) - len(alone))
