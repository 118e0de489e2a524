"""Preference accuracy from scores: of pairs, and best of n by the rule of RewardBench 2.

Both functions return one number per row, so that a caller can average or compare them by prompt.

Shapes: `R` rows (prompts), `c`/`r` chosen/rejected answers of a row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.errors import DataError

Scores = Sequence[Sequence[float]] | Sequence[NDArray[Any]]


def pair_accuracy(chosen: Scores, rejected: Scores) -> NDArray[np.float64]:
    """The share of each row's chosen-rejected pairs in which the chosen answer scores higher.

    The comparison is strict, as in RM-Bench: a tie counts as wrong.

    Args:
        chosen: R rows of one or more scores.
        rejected: R rows of one or more scores; a row's lengths need not be equal.

    Returns:
        [R] float64 in [0, 1]; chance is 0.5.

    Raises:
        DataError: the row counts differ, a row has no score on one side, or a score is not finite.
    """
    rows = _checked_rows(chosen, rejected)
    return np.array([np.mean(good[:, None] > bad[None, :]) for good, bad in rows], dtype=np.float64)


def best_of_n(chosen: Scores, rejected: Scores) -> NDArray[np.float64]:
    """Whether each row's best-scored answer is a chosen one, with ties shared equally.

    As in RewardBench 2, a row with one chosen answer gets `1/m` when it is among the m maxima, else 0. With
    several chosen answers, a row gets the share of the maxima that are chosen.

    Args:
        chosen: R rows of one or more scores.
        rejected: R rows of one or more scores.

    Returns:
        [R] float64 in [0, 1]; chance is `c / (c + r)`.

    Raises:
        DataError: the row counts differ, a row has no score on one side, or a score is not finite.
    """
    rows = _checked_rows(chosen, rejected)
    return np.array([_share_of_maxima(good, bad) for good, bad in rows], dtype=np.float64)


def _share_of_maxima(good: NDArray[np.float64], bad: NDArray[np.float64]) -> float:
    # exact equality: rewards are rounded to float32 by the model, so equal answers tie exactly
    best = max(good.max(), bad.max())
    won, lost = int((good == best).sum()), int((bad == best).sum())
    return won / (won + lost)


def _checked_rows(chosen: Scores, rejected: Scores) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    if len(chosen) != len(rejected):
        raise DataError(f"{len(chosen)} rows of chosen scores but {len(rejected)} rows of rejected scores")
    rows = []
    for number, (good, bad) in enumerate(zip(chosen, rejected, strict=True)):
        pair = np.asarray(good, dtype=np.float64), np.asarray(bad, dtype=np.float64)
        if not pair[0].size or not pair[1].size:
            raise DataError(f"row {number}: needs at least one chosen and one rejected score")
        if not (np.isfinite(pair[0]).all() and np.isfinite(pair[1]).all()):
            raise DataError(f"row {number}: a score is not finite")
        rows.append(pair)
    return rows
