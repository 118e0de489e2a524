"""The type of a benchmark: rows, units, and the credit that each unit gets for scores.

A unit is what figures and intervals count: a row, or the two rows of one id in RewardBench 2's Ties. Every
published figure is a mean of credits over units, or an unweighted mean of such means.

Shapes: `N` scored answers, `U` units, `C` figures of a unit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarm_control.errors import ConfigError
from sarm_control.evaluation.answer_places import Floats, Integers

Credit = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark on given rows.

    Args:
        name: such as "reward-bench-2".
        figures: names of the C figures of a unit; the first is the main figure.
        units: [U] the name of each unit in files.
        subset: [U] the subset of each unit.
        part: [U] a part of the subset (such as RM-Bench's safety-refuse), or the subset itself.
        unit_of_answer: [N] the unit of each answer.
        chance: [U] credit expected from random scores; NaN where it is not known.
        whole: the subsets whose unweighted mean is the total.
        credit: scores [N] -> credit [U, C], each in [0, 1] (Ties reaches 1.01).
    """

    name: str
    figures: tuple[str, ...]
    units: tuple[str, ...]
    subset: NDArray[np.str_]
    part: NDArray[np.str_]
    unit_of_answer: Integers
    chance: Floats
    whole: tuple[str, ...]
    credit: Credit

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Units of each subset, and of each part of a subset with several parts, in the benchmark's order."""
        present = [name for name in self.whole if (self.subset == name).any()]
        groups: dict[str, NDArray[np.bool_]] = {}
        for name in present:
            groups[name] = self.subset == name
            parts = sorted(set(self.part[groups[name]].tolist()))
            if len(parts) > 1:
                groups |= {part: self.part == part for part in parts}
        return groups

    def missing(self) -> tuple[str, ...]:
        """Subsets of the whole benchmark that the rows do not have."""
        return tuple(name for name in self.whole if not (self.subset == name).any())

    def units_of(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """[U] units of the named subsets or parts; case, spaces and hyphens are ignored.

        Raises:
            ConfigError: the rows have no subset or part of that name.
        """
        # people write the names of subsets in several ways
        known = {plain(name): units for name, units in self.groups().items()}
        chosen = np.zeros(len(self.units), dtype=bool)
        for name in names:
            if plain(name) not in known:
                raise ConfigError(
                    f"--subset {name}: these rows have no such subset",
                    hint=f"the subsets are {', '.join(self.groups())}",
                )
            chosen |= known[plain(name)]
        return chosen


def plain(name: str) -> str:
    """A subset's name for comparisons: "Precise IF" and "precise-if" are equal."""
    return name.lower().replace("-", "").replace(" ", "").replace("_", "")
