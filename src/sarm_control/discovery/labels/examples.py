"""Answers in which a latent is active, and matched answers in which it is not.

Shapes: `N` answers, `A` active answers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.data import prompt_key
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import SparseLatents
from sarm_control.seeds import numpy_generator

Index = NDArray[np.int64]

MOST = 500
"""At most this many active answers are matched and used; they are drawn at random where there are more."""


class LabelExample(NamedTuple):
    """One answer.

    Args:
        prompt: the prompt as one text.
        answer: its text.
        z: the latent's value, which may be negative where the latent is active; 0 where it is inactive.
    """

    prompt: str
    answer: str
    z: float


class LabelExamples(NamedTuple):
    """The answers by which a latent is labelled.

    Args:
        rate: share of all answers with the latent active.
        active: up to 500 of them, the highest z first.
        matched: for each of them a different answer without the latent, as long as there are any: of the
            same prompt if possible, and of the nearest length.
    """

    rate: float
    active: tuple[LabelExample, ...]
    matched: tuple[LabelExample, ...]


class AnswerCorpus:
    """The distinct answers of scored rows, from which latents are labelled one by one."""

    def __init__(self, data: ScoredRows) -> None:
        prompts = [prompt_key(row.prompt) for row in data.rows for _ in row.answers]
        answers = [text for row in data.rows for text in row.answers]
        first: dict[tuple[str, str], int] = {}
        for number, key in enumerate(zip(prompts, answers, strict=True)):
            # an answer that many pairs share is one answer: copies would make its words distinctive
            first.setdefault(key, number)
        numbers = np.array(sorted(first.values()), dtype=np.int64)
        self._set(
            [prompts[n] for n in numbers],
            [answers[n] for n in numbers],
            data.scored.lengths[numbers],
            data.scored.latents.take(numbers),
        )

    @classmethod
    def of_distinct(
        cls, prompts: Sequence[str], answers: Sequence[str], lengths: Index, latents: SparseLatents
    ) -> "AnswerCorpus":
        """Of N answers that are distinct already.

        Args:
            prompts: one text for each, equal for equal prompts, see `prompt_key`.
            answers: their texts.
            lengths: [N] tokens of each.
            latents: of each.
        """
        made = cls.__new__(cls)
        made._set(prompts, answers, lengths, latents)
        return made

    def _set(
        self, prompts: Sequence[str], answers: Sequence[str], lengths: Index, latents: SparseLatents
    ) -> None:
        self.prompts, self.answers = list(prompts), list(answers)
        self.lengths, self.latents = lengths, latents

    def __len__(self) -> int:
        return len(self.answers)

    def examples(self, latent: int, *, seed: int = 0) -> LabelExamples:
        """Active and matched answers of one latent.

        Args:
            latent: its number.
            seed: of the draw where more than 500 answers are active.
        """
        z = self.latents.columns([latent])[:, 0].astype(np.float64)
        fires = self.latents.active([latent])[:, 0]
        active = np.flatnonzero(fires)
        rate = len(active) / max(len(z), 1)
        if len(active) > MOST:
            active = numpy_generator(seed, "examples", latent).choice(active, MOST, replace=False)
        # ties go by number, to be reproducible
        active = active[np.lexsort((active, -z[active]))]
        matched = self._matched(active, np.flatnonzero(~fires))
        return LabelExamples(rate, self._as_examples(active, z), self._as_examples(matched, z))

    def _matched(self, active: Index, free: Index) -> Index:
        """For each active answer the unused one nearest in log length, of the same prompt if there is one.

        The match is greedy, in the order of the active answers.
        """
        log_length = np.log1p(self.lengths)
        by_prompt: dict[str, list[int]] = {}
        for number in free:
            by_prompt.setdefault(self.prompts[number], []).append(int(number))
        used = np.zeros(len(self), dtype=bool)
        matched = []
        for number in active:
            same = [other for other in by_prompt.get(self.prompts[number], []) if not used[other]]
            others = np.array(same, dtype=np.int64) if same else free[~used[free]]
            if not len(others):
                break
            nearest = int(others[np.argmin(np.abs(log_length[others] - log_length[number]))])
            used[nearest] = True
            matched.append(nearest)
        return np.array(matched, dtype=np.int64)

    def _as_examples(
        self, numbers: Sequence[int] | Index, z: NDArray[np.float64]
    ) -> tuple[LabelExample, ...]:
        return tuple(LabelExample(self.prompts[n], self.answers[n], float(z[n])) for n in numbers)
