"""A world's language: its words, what is true, and what is harmful.

A seed draws the words, the facts that hold, the steps of each task and the phrases that flatter. Answers are
written and read by the clauses that are defined here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from sarm_control.lab.language import words
from sarm_control.seeds import numpy_generator

Kind = Literal["fact", "how-to", "look-alike", "harmful"]
KINDS: tuple[Kind, ...] = ("fact", "how-to", "look-alike", "harmful")
Step = tuple[str, str]
"""A verb and a noun: `first {verb} the {noun} .`"""

_SUBJECTS, _RELATIONS, _STEPS_OF_A_TASK = 10, 3, 3

T = TypeVar("T")


class Fact(NamedTuple):
    """Something that is true in a world: the `relation` of the `subject` is `value`."""

    relation: str
    subject: str
    value: str


class Task(NamedTuple):
    """A task that a person can ask about, and the steps that do it."""

    verb: str
    noun: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Language:
    """Everything a world can say.

    Args:
        facts: what is true; each relation of each subject once.
        values: the values each relation can take, true or not.
        tasks: by kind (`how-to`, `look-alike`, `harmful`).
        flattery: phrases that praise the asker.
        closings: boilerplate that ends an answer.
        hedges: phrases that weaken what follows.
        details: sentences that add nothing but length.
        refusals: phrases that decline.
    """

    facts: tuple[Fact, ...]
    values: dict[str, tuple[str, ...]]
    tasks: dict[str, tuple[Task, ...]]
    flattery: tuple[str, ...]
    closings: tuple[str, ...]
    hedges: tuple[str, ...]
    details: tuple[str, ...]
    refusals: tuple[str, ...]

    @classmethod
    def draw(cls, seed: int) -> "Language":
        """The language of the world with this seed."""
        rng = numpy_generator(seed, "language")
        relations = _some(rng, tuple(words.RELATIONS), _RELATIONS)
        subjects = _some(rng, words.SUBJECTS, _SUBJECTS)
        values = {relation: _some(rng, words.RELATIONS[relation], 4) for relation in relations}
        facts = tuple(Fact(r, s, str(rng.choice(values[r]))) for r in relations for s in subjects)
        return cls(
            facts=facts,
            values=values,
            tasks=_draw_tasks(rng),
            flattery=_some(rng, words.FLATTERY, 2),
            closings=_some(rng, words.CLOSINGS, 2),
            hedges=_some(rng, words.HEDGES, 2),
            details=_some(rng, words.DETAILS, 3),
            refusals=_some(rng, words.REFUSALS, 2),
        )

    @property
    def harmful_steps(self) -> frozenset[Step]:
        """Steps that only harmful tasks have."""
        return frozenset(step for task in self.tasks["harmful"] for step in task.steps)

    def vocabulary(self) -> tuple[str, ...]:
        """Every word, sorted."""
        return tuple(sorted({word for text in self._texts() for word in text.split()}))

    def _texts(self) -> Iterator[str]:
        yield from words.OPENERS + words.CONTEXTS + words.ENDINGS
        yield from self.flattery + self.closings + self.hedges + self.details + self.refusals
        # the words that questions and clauses themselves are made of
        yield "what is the of ? how do i a first then ."
        for fact in self.facts:
            yield " ".join(fact)
        for values in self.values.values():
            yield " ".join(values)
        for tasks in self.tasks.values():
            for task in tasks:
                yield f"{task.verb} {task.noun} {' '.join(word for step in task.steps for word in step)}"


def fact_clause(relation: str, subject: str, value: str) -> str:
    """The clause that states a fact."""
    return f"the {relation} of the {subject} is {value} ."


def step_clause(position: int, step: Step) -> str:
    """The clause of a step; only the first one begins with `first`."""
    return f"{'then' if position else 'first'} {step[0]} the {step[1]} ."


def _some(rng: np.random.Generator, pool: Sequence[T], count: int) -> tuple[T, ...]:
    return tuple(pool[i] for i in rng.choice(len(pool), count, replace=False))


def _draw_tasks(rng: np.random.Generator) -> dict[str, tuple[Task, ...]]:
    # dealt out: no two tasks share a step, so a step tells which task it is of
    benign = iter(_some(rng, _pairs(words.STEP_VERBS, words.STEP_NOUNS), 60))
    unsafe = iter(_some(rng, _pairs(words.UNSAFE_VERBS, words.UNSAFE_NOUNS), 24))
    verbs = _some(rng, words.HARMFUL_VERBS, 4)
    how_to = zip(_some(rng, words.BENIGN_VERBS, 8), _some(rng, words.BENIGN_NOUNS, 8), strict=True)
    # the verbs of harmful tasks with harmless nouns: the verb alone does not say what to decline
    alike = zip(verbs, _some(rng, words.LOOK_ALIKE_NOUNS, 4), strict=True)
    harmful = zip(verbs + verbs, _some(rng, words.HARMFUL_NOUNS, 8), strict=True)
    return {
        "how-to": _with_steps(how_to, benign),
        "look-alike": _with_steps(alike, benign),
        "harmful": _with_steps(harmful, unsafe),
    }


def _with_steps(names: Iterator[tuple[str, str]], steps: Iterator[Step]) -> tuple[Task, ...]:
    return tuple(
        Task(verb, noun, tuple(next(steps) for _ in range(_STEPS_OF_A_TASK))) for verb, noun in names
    )


def _pairs(verbs: Sequence[str], nouns: Sequence[str]) -> tuple[Step, ...]:
    """Every verb with every noun; harmful steps have nouns of their own, so `cut wood` is harmless."""
    return tuple((verb, noun) for verb in verbs for noun in nouns)
