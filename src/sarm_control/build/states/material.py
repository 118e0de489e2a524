"""The material of a build: answers, preferences, and the prompts kept out of every fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.build.head.comparisons import PreferenceRow
from sarm_control.build.states.texts import ConversationCorpus, annotator_of
from sarm_control.data import Row
from sarm_control.errors import DataError
from sarm_control.seeds import numpy_generator

BoolArray = NDArray[np.bool_]

LEAST_HELD_OUT = 6
"""Held-out prompts; a coin orders five of five right with probability .03, so fewer would prove nothing."""


@dataclass(frozen=True)
class Material:
    """Answers and preferences, split by prompt.

    Args:
        corpus: every answer once.
        rows: the preferences over them.
        held_out: [prompts] true where a prompt is kept out of every fit.
        annotators: names by number, in alphabetical order; empty when rows do not name them.
    """

    corpus: ConversationCorpus
    rows: tuple[PreferenceRow, ...]
    held_out: BoolArray
    annotators: tuple[str, ...] = ()

    @property
    def fit_rows(self) -> list[PreferenceRow]:
        """The preferences over prompts that may be fitted."""
        return [row for row in self.rows if not self.held_out[row.prompt]]

    @property
    def held_out_answers(self) -> BoolArray:
        """[N] true where an answer's prompt is held out."""
        return self.held_out[[answer.prompt_id for answer in self.corpus.answers]]

    def figures(self) -> dict[str, Any]:
        """Counts, as a JSON object."""
        return {
            "answers": len(self.corpus.answers),
            "prompts": self.corpus.prompts_count,
            "held_out_prompts": int(self.held_out.sum()),
            "preference_rows": len(self.rows),
        }

    def line(self) -> str:
        """The counts as one line for people."""
        counts = self.figures()
        by = f" by {len(self.annotators)} annotators" if self.annotators else ""
        return (
            f"{counts['answers']} answers to {counts['prompts']} prompts, "
            f"{counts['held_out_prompts']} prompts held out; {counts['preference_rows']} preference rows{by}"
        )


def gather(
    texts: Sequence[Row],
    pairs: Sequence[Row],
    *,
    holdout: float,
    seed: int,
    annotator: str | None = None,
) -> Material:
    """Numbers answers, prompts and annotators, and splits the prompts.

    Args:
        texts: rows with answers.
        pairs: preference rows.
        holdout: share of the prompts kept out of every fit.
        seed: decides which.
        annotator: field of `pairs` that names who labelled a row; None when annotators are not distinguished.

    Raises:
        DataError: fewer than `LEAST_HELD_OUT` prompts (with preferences, when there are any) would be held
            out, fewer than four prompts of either kind, or a row without its annotator.
    """
    names = [] if annotator is None else [annotator_of(row, annotator) for row in pairs]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    corpus = ConversationCorpus()
    for row in texts:
        corpus.add(row)
    rows = [corpus.add(row) for row in pairs]
    if names:
        rows = [replace(row, annotator=numbers[name]) for row, name in zip(rows, names, strict=True)]
    held_out = _hold_out(corpus.prompts_count, rows, holdout, seed)
    return Material(corpus, tuple(rows), held_out, tuple(numbers))


def _hold_out(count: int, rows: Sequence[PreferenceRow], holdout: float, seed: int) -> BoolArray:
    """[prompts]: the held-out share of the prompts with preferences, and of those without."""
    preferred = np.zeros(count, dtype=np.bool_)
    preferred[[row.prompt for row in rows]] = True
    order = numpy_generator(seed, "held-out prompts").permutation(count)
    held_out = np.zeros(count, dtype=np.bool_)
    judged, what = (int(preferred.sum()), "prompts with preferences") if rows else (count, "prompts")
    _check_held_out(judged, what, holdout)
    # each group gives its share, so that held-out prompts with preferences are not left to chance
    for group in (order[preferred[order]], order[~preferred[order]]):
        if 0 < len(group) < 4:
            what = "with preferences " if rows else ""
            raise DataError(
                f"{len(group)} prompts {what}are too few to fit and to hold some out", hint="give at least 4"
            )
        held_out[group[: _held_out_of(len(group), holdout)]] = True
    return held_out


def _held_out_of(count: int, holdout: float) -> int:
    # two stay at least: a build chooses its regularisation by fitting some prompts and judging others
    return min(max(1, round(holdout * count)), count - 2)


def _check_held_out(count: int, what: str, holdout: float) -> None:
    held_out = max(0, _held_out_of(count, holdout))
    if held_out >= LEAST_HELD_OUT:
        return
    enough = next(n for n in range(LEAST_HELD_OUT + 2, 10**9) if _held_out_of(n, holdout) >= LEAST_HELD_OUT)
    raise DataError(
        f"{count} {what} leave {held_out} to be held out: too few to tell how good it is, "
        f"which needs {LEAST_HELD_OUT}",
        hint=f"at --holdout {holdout:g} at least {enough} {what} are needed",
    )
