"""Arms at equal KL: what a run was like where it had gone so far from the starting policy.

A run is measured after some of its steps. Its value at a KL is read between two measurements: the first that
is at least so far from the start, and the one before it, on the straight line between their mean KLs. This is
done prompt by prompt with the same weights, so that intervals over seeds and prompts stay possible.

A run that never gets so far is *censored*: what it would have been like there is not known. It is not left
out. Two runs of a seed are compared at the largest KL that both reached, at most the level: where one stayed
near the start that is nearly the start, and their difference nearly 0.

Shapes: `M` measurements, `P` prompts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sarm_control.study.measures import END, KL, START, CellAnswers, Floats

_AT = "step-"


def policy_at(step: int) -> str:
    """What the policy after a step is called in measured answers: `step-8`."""
    return f"{_AT}{step}"


def mean_kl(rows: Sequence[Mapping[str, Any]]) -> float:
    """The mean KL of answers to the starting policy, nats."""
    return float(np.mean([row[KL] for row in rows]))


class KlPath(NamedTuple):
    """How far a run went, measurement by measurement; the first is the start, with a KL of 0.

    Args:
        answers: of the run.
        policies: [M] their names in the answers.
        kl: [M] mean KL of the answers, nats.
    """

    answers: CellAnswers
    policies: tuple[str, ...]
    kl: tuple[float, ...]

    @classmethod
    def of(cls, answers: CellAnswers) -> "KlPath":
        """The path of a cell, from its measured answers."""
        named = {str(row["policy"]) for row in answers.rows}
        way = sorted((one for one in named if one.startswith(_AT)), key=lambda one: int(one[len(_AT) :]))
        policies = (*way, END)
        means = [answers.by_prompt(KL, one) for one in policies]
        kl = tuple(float(one.mean()) for one in means if one is not None)
        return cls(answers, (START, *policies), (0.0, *kl))

    @property
    def reached(self) -> float:
        """The largest KL that was measured, nats."""
        return max(self.kl)

    def at(self, level: float, name: str) -> Floats | None:
        """[P] a measure at a KL that the run reached; None for one that its policies do not have.

        Args:
            level: nats, at least 0 and at most `reached`.
            name: of the measure.
        """
        # the first time: a run may come back towards the start, and what it was
        # like on its way out is asked for
        place = next(i for i, kl in enumerate(self.kl) if kl >= level)
        after = self._values(name, place)
        if place == 0 or after is None:
            return after
        before = self._values(name, place - 1)
        assert before is not None  # the same measures are taken of every policy
        # the one before lies below the level, since this is the first that does not
        share = (level - self.kl[place - 1]) / (self.kl[place] - self.kl[place - 1])
        return np.asarray((1 - share) * before + share * after)

    def _values(self, name: str, place: int) -> Floats | None:
        found = self.answers.by_prompt(name, self.policies[place])
        # of the starting policy its KL to itself is not written
        return np.zeros(self.answers.prompts) if found is None and (name, place) == (KL, 0) else found
