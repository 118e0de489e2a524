"""Composing answers with chosen attributes, for demonstrations and for the data of the reward model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sarm_control.lab.language.language import Fact, Language, Task, fact_clause, step_clause
from sarm_control.lab.language.questions import Question

LONGEST = 23
"""Words; with the end-of-turn an answer has at most 24 tokens."""


@dataclass(frozen=True)
class Mix:
    """How often answers have each attribute.

    Args:
        answerable: to answerable questions: bodies `right`, `false`, `other`, `declines`, `none`.
        harmful: to harmful ones: bodies `right` (declines), `unsafe`, `other`, `none`.
        flattery: share of answers that praise the asker.
        closing: share with a boilerplate closing.
        hedge: share that hedge.
        detail: share with a sentence that adds nothing.
        twice: share of the flattering (or closing) answers that do so twice.
        corrupted: share that is damaged afterwards: words swapped, cut, repeated or mixed in, or all removed.
    """

    answerable: tuple[float, float, float, float, float]
    harmful: tuple[float, float, float, float]
    flattery: float
    closing: float
    hedge: float
    detail: float
    twice: float
    corrupted: float


DEMONSTRATIONS = Mix(
    (0.66, 0.12, 0.05, 0.14, 0.03), (0.62, 0.26, 0.10, 0.02), 0.12, 0.12, 0.10, 0.25, 0.05, 0.01
)
"""What people wrote: mostly good, with each shortcut now and then."""

VARIED = Mix((0.42, 0.20, 0.13, 0.15, 0.10), (0.42, 0.34, 0.12, 0.12), 0.3, 0.3, 0.2, 0.3, 0.2, 0.12)
"""What annotators compare: every attribute is frequent enough to be learnt."""

RARE = Mix((0.5, 0.18, 0.1, 0.12, 0.1), (0.5, 0.3, 0.1, 0.1), 0.06, 0.06, 0.06, 0.06, 0.2, 0.05)
"""Further texts for the autoencoder: attributes of style are rare, and two in one answer are very rare, so
that each gets a latent of its own."""

_ANSWERABLE = ("right", "false", "other", "declines", "none")
_HARMFUL = ("right", "unsafe", "other", "none")


SAME_BODY = 0.5
"""Share of pairs whose answers have the same body and differ only in style."""


class Composer:
    """Writes answers of one language.

    Args:
        language: of the world.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self._words = language.vocabulary()

    def compose(self, question: Question, mix: Mix, rng: np.random.Generator) -> str:
        """An answer with attributes drawn from `mix`, of at most 23 words; may be empty."""
        return self._dressed(self._body(question, mix, rng), mix, rng)

    def compose_pair(self, question: Question, mix: Mix, rng: np.random.Generator) -> tuple[str, str]:
        """Two answers; in half of the pairs they have the same body and differ only in style."""
        first = self._body(question, mix, rng)
        # with equal bodies only style differs, so that what a pair prefers can be nothing else
        second = first if rng.random() < SAME_BODY else self._body(question, mix, rng)
        return self._dressed(first, mix, rng), self._dressed(second, mix, rng)

    def _dressed(self, body: list[str], mix: Mix, rng: np.random.Generator) -> str:
        """The body with phrases around it, cut to length and sometimes damaged."""
        parts = [
            *self._phrases(self._language.flattery, mix.flattery, mix.twice, rng),
            *self._phrases(self._language.hedges, mix.hedge, 0.0, rng),
            *body,
            *self._phrases(self._language.details, mix.detail, 0.3, rng),
            *self._phrases(self._language.closings, mix.closing, mix.twice, rng),
        ]
        answer = _shortened(parts, body, rng)
        return self._corrupted(answer, rng) if rng.random() < mix.corrupted else " ".join(answer)

    def _body(self, question: Question, mix: Mix, rng: np.random.Generator) -> list[str]:
        kinds, shares = (_HARMFUL, mix.harmful) if question.should_refuse else (_ANSWERABLE, mix.answerable)
        kind = kinds[int(rng.choice(len(kinds), p=shares))]
        if kind == "none":
            return []
        if kind == "declines" or (kind == "right" and question.should_refuse):
            return [str(rng.choice(self._language.refusals))]
        if kind == "other":
            return self._about(self._other_topic(question, rng), rng)
        if kind == "false":
            return self._false(question, rng)
        return self._about(question.topic, rng)

    def _about(self, topic: Fact | Task, rng: np.random.Generator) -> list[str]:
        """The truth about a fact, or one or two steps of a task."""
        if isinstance(topic, Fact):
            return [fact_clause(*topic)]
        chosen = rng.permutation(len(topic.steps))[: int(rng.integers(1, 3))]
        return [step_clause(position, topic.steps[i]) for position, i in enumerate(chosen)]

    def _false(self, question: Question, rng: np.random.Generator) -> list[str]:
        topic = question.topic
        if not isinstance(topic, Fact):
            return self._about(self._other_topic(question, rng), rng)
        # a value that the relation can take: false, and nothing but the facts can tell
        others = [value for value in self._language.values[topic.relation] if value != topic.value]
        return [fact_clause(topic.relation, topic.subject, str(rng.choice(others)))]

    def _other_topic(self, question: Question, rng: np.random.Generator) -> Fact | Task:
        """A harmless topic that was not asked for, of the same form if there is one."""
        pool: Sequence[Fact | Task] = (
            self._language.facts
            if isinstance(question.topic, Fact)
            else self._language.tasks["how-to"] + self._language.tasks["look-alike"]
        )
        others = [topic for topic in pool if topic != question.topic]
        return others[int(rng.integers(len(others)))]

    def _phrases(
        self, pool: Sequence[str], share: float, twice: float, rng: np.random.Generator
    ) -> list[str]:
        if rng.random() >= share:
            return []
        count = 2 if rng.random() < twice else 1
        return [str(phrase) for phrase in rng.choice(list(pool), count, replace=False)]

    def _corrupted(self, answer: list[str], rng: np.random.Generator) -> str:
        """The answer with words shuffled, replaced, cut off or repeated; or an empty one."""
        # a policy that goes astray writes such texts; a reward model that had never seen
        # them could pay anything for them
        way = int(rng.integers(5))
        if way == 0 or not answer:
            return ""
        if way == 1:
            return " ".join(rng.permutation(answer))
        if way == 2:
            places = rng.random(len(answer)) < 0.4
            return " ".join(
                str(rng.choice(self._words)) if swap else word
                for swap, word in zip(places, answer, strict=True)
            )
        if way == 3:
            return " ".join(answer[: int(rng.integers(1, len(answer) + 1))])
        start = int(rng.integers(len(answer)))
        phrase = answer[start : start + int(rng.integers(1, 7))]
        return " ".join((phrase * LONGEST)[: int(rng.integers(len(phrase), LONGEST + 1))])


def _shortened(parts: Sequence[str], body: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The words of the parts; parts around the body are dropped at random until it fits."""
    kept = list(parts)
    while sum(len(part.split()) for part in kept) > LONGEST:
        # the body last: without it an answer would say nothing
        droppable = [i for i, part in enumerate(kept) if part not in body] or list(range(len(kept)))
        del kept[int(rng.choice(droppable))]
    return " ".join(kept).split()
