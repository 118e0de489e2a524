"""Preference rows as comparisons between answers, with the prompt as the unit.

Shapes: `N` answers, `R` rows, `C` comparisons, `P` prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.evaluation import best_of_n, pair_accuracy

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class PreferenceRow:
    """One row of preferences: positions of its answers among the N states, and its prompt.

    Args:
        prompt: number of the prompt, equal for rows whose prompt texts are equal.
        chosen: positions of the preferred answers.
        rejected: positions of the others.
        annotator: number of the annotator, from 0; used only when the trunk is tuned.
    """

    prompt: int
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    annotator: int = 0


@dataclass(frozen=True)
class Comparisons:
    """Every chosen-rejected pair of some rows.

    Args:
        chosen: [C] int64, positions among the N answers.
        rejected: [C] int64.
        prompt: [C] int64, the prompt each comparison belongs to.
    """

    chosen: IntArray
    rejected: IntArray
    prompt: IntArray

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def prompts_count(self) -> int:
        """P: how many different prompts there are."""
        return len(np.unique(self.prompt))

    def prompt_shares(self) -> NDArray[np.float64]:
        """[C]: `1 / (P n_p)`: a prompt's comparisons share its weight, all weights sum to 1."""
        _, position, counts = np.unique(self.prompt, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / (counts[position] * len(counts)), dtype=np.float64)

    def take(self, keep: NDArray[np.bool_]) -> "Comparisons":
        """The comparisons where `keep` [C] is true."""
        return Comparisons(self.chosen[keep], self.rejected[keep], self.prompt[keep])


@dataclass(frozen=True)
class PromptScores:
    """How well a head orders answers, one number per prompt.

    Args:
        pairs: [P] share of a prompt's pairs in which the chosen answer scores higher.
        best_of: [P] whether its best-scored answer is a chosen one; ties count in part.
        chance: expected `best_of` of a random head, averaged over prompts.
    """

    pairs: NDArray[np.float64]
    best_of: NDArray[np.float64]
    chance: float


def all_comparisons(rows: Sequence[PreferenceRow]) -> Comparisons:
    """Every chosen x rejected pair of every row."""
    triples = [(c, r, row.prompt) for row in rows for c in row.chosen for r in row.rejected]
    # no triple at all is an array of one dimension, which has no columns
    columns = np.array(triples, dtype=np.int64).reshape(-1, 3)
    return Comparisons(columns[:, 0], columns[:, 1], columns[:, 2])


def score_prompts(scores: NDArray[np.floating[Any]], rows: Sequence[PreferenceRow]) -> PromptScores:
    """Pair accuracy and best-of-n of every prompt from the answers' scores [N]."""
    chosen = [scores[list(row.chosen)].tolist() for row in rows]
    rejected = [scores[list(row.rejected)].tolist() for row in rows]
    prompts = np.array([row.prompt for row in rows], dtype=np.int64)
    # of a head that orders at random: any of the answers is as likely to come first
    chance = np.array([len(row.chosen) / (len(row.chosen) + len(row.rejected)) for row in rows])
    return PromptScores(
        _mean_by_prompt(pair_accuracy(chosen, rejected), prompts),
        _mean_by_prompt(best_of_n(chosen, rejected), prompts),
        float(_mean_by_prompt(chance, prompts).mean()),
    )


def _mean_by_prompt(values: NDArray[np.float64], prompts: IntArray) -> NDArray[np.float64]:
    _, position, counts = np.unique(prompts, return_inverse=True, return_counts=True)
    return np.bincount(position, weights=values) / counts
