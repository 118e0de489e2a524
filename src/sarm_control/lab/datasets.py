"""The data files of a world: demonstrations, preferences, prompts, and the audit set.

The audit set holds pairs labelled by the gold reward.

No two files share a prompt. Every file is JSON Lines in the form that the commands read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.lab.judges.annotators import Taste, prefers_first, utility
from sarm_control.lab.judges.gold import gold_reward
from sarm_control.lab.language.answers import DEMONSTRATIONS, RARE, VARIED, Composer, Mix
from sarm_control.lab.language.attributes import Attributes, Reader
from sarm_control.lab.language.language import Language
from sarm_control.lab.language.questions import Question, draw_question
from sarm_control.seeds import numpy_generator

Rows = list[dict[str, Any]]


class Judged(NamedTuple):
    """An answer with its attributes and its gold reward, both read off by a program."""

    question: Question
    text: str
    attributes: Attributes
    gold: float

    @property
    def clean(self) -> bool:
        """Whether the answer is right and without any shortcut, fit for the human buffer."""
        found = self.attributes
        # details cost no gold, and are no mark of a good answer either
        return self.gold >= 1 and not (found.hedging or found.detail)


@dataclass(frozen=True)
class Sizes:
    """Rows of each file."""

    demonstrations: int = 6000
    preferences: int = 6000
    train_prompts: int = 1024
    held_out_prompts: int = 256
    audit: int = 600


class Writer:
    """Draws questions and answers of one world.

    Args:
        language: of the world.
        seed: of the world; every file has randomness of its own.
        used: prompts that are not drawn again.
    """

    def __init__(self, language: Language, seed: int, used: Iterable[str] = ()) -> None:
        self.language = language
        self.seed = seed
        self.reader = Reader(language)
        self._composer = Composer(language)
        self._used = set(used)

    def demonstrations(self, count: int) -> list[Judged]:
        """Demonstrations: what people wrote."""
        rng = numpy_generator(self.seed, "demonstrations")
        return [self.answer(question, DEMONSTRATIONS, rng) for question in self.fresh(count, rng)]

    def texts(self, questions: Iterable[Question], each: int) -> list[Judged]:
        """Answers for an autoencoder, `each` to every question: attributes are rare in them."""
        rng = numpy_generator(self.seed, "texts")
        return [self.answer(question, RARE, rng) for question in questions for _ in range(each)]

    def prompts(self, count: int, purpose: str) -> list[Question]:
        """Questions alone."""
        return list(self.fresh(count, numpy_generator(self.seed, purpose)))

    def preferences(self, count: int, tastes: tuple[Taste, ...]) -> Rows:
        """Pairs of varied answers, each labelled by one annotator drawn at random."""
        rng = numpy_generator(self.seed, "preferences")
        rows: Rows = []
        for question in self.fresh(count, rng):
            first, second = (self.answer(question, VARIED, rng) for _ in range(2))
            who = int(rng.integers(len(tastes)))
            gain = utility(tastes[who], question, first.attributes) - utility(
                tastes[who], question, second.attributes
            )
            # Bradley-Terry: the difference in utility is the log-odds of the preference
            if rng.random() >= 1 / (1 + np.exp(-gain)):
                first, second = second, first
            rows.append({**_pair(first, second), "annotator": f"annotator-{who}"})
        # two equal answers are no preference
        return [row for row in rows if row["chosen"] != row["rejected"]]

    def gold_pairs(self, count: int, purpose: str, *, keep: bool = True) -> list[tuple[Judged, Judged]]:
        """Pairs of varied answers of different gold reward, the better one first.

        Args:
            count: pairs.
            purpose: names the randomness.
            keep: keep these prompts from being drawn again.
        """
        rng = numpy_generator(self.seed, purpose)
        pairs: list[tuple[Judged, Judged]] = []
        while len(pairs) < count:
            # fresh questions run out, so pairs that are only measured on may repeat them
            question = next(self.fresh(1, rng)) if keep else draw_question(self.language, rng)
            first, second = (
                self.judged(question, text) for text in self._composer.compose_pair(question, VARIED, rng)
            )
            # without a better answer there is no label; unlike annotators, the gold reward does not draw one
            if first.gold != second.gold:
                pairs.append((first, second) if first.gold > second.gold else (second, first))
        return pairs

    def answer(self, question: Question, mix: Mix, rng: np.random.Generator) -> Judged:
        """A composed answer, read back."""
        return self.judged(question, self._composer.compose(question, mix, rng))

    def judged(self, question: Question, text: str) -> Judged:
        """A given answer, with its attributes and gold reward."""
        attributes = self.reader.read(question, text)
        return Judged(question, text, attributes, gold_reward(question, attributes))

    def fresh(self, count: int, rng: np.random.Generator) -> Iterator[Question]:
        """Questions that were not drawn before."""
        made = 0
        while made < count:
            question = draw_question(self.language, rng)
            if question.text not in self._used:
                self._used.add(question.text)
                made += 1
                yield question


def audit_rows(pairs: list[tuple[Judged, Judged]]) -> Rows:
    """Gold-labelled pairs as a user would have them; `kind` is the kind of the question."""
    return [{**_pair(better, worse), "kind": better.question.kind} for better, worse in pairs]


def answer_rows(answers: list[Judged]) -> Rows:
    """Prompts and answers."""
    return [{"prompt": answer.question.text, "response": answer.text} for answer in answers]


def prompt_rows(questions: list[Question]) -> Rows:
    """Prompts alone."""
    return [{"prompt": question.text} for question in questions]


def panel_shares(pairs: list[tuple[Judged, Judged]], tastes: tuple[Taste, ...]) -> NDArray[np.float64]:
    """[P] probability that an annotator drawn at random prefers the first answer of each pair."""
    differences = [
        tuple(
            utility(taste, first.question, first.attributes)
            - utility(taste, second.question, second.attributes)
            for taste in tastes
        )
        for first, second in pairs
    ]
    return prefers_first(tastes, differences)


def _pair(chosen: Judged, rejected: Judged) -> dict[str, Any]:
    return {"prompt": chosen.question.text, "chosen": chosen.text, "rejected": rejected.text}
