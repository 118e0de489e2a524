"""A penalty on answers in which a regular expression is found, for somebody who knows the shortcut.

It needs no latents and no discovery. It is the usual mend for a known fault, and the bar in studies: what
could be reached if the shortcut were known.

Shapes: `N` answers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.edits.specs import in_sd, not_negative
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.control.reference import ReferenceStatistics


@dataclass(frozen=True)
class PatternPenalty:
    """Subtracts `alpha` from the reward of an answer in which `pattern` is found.

    Args:
        pattern: a regular expression of Python's `re`, searched for in the answer's text.
        alpha: reward units, or SDs of the reference policy's rewards such as `1sd`; >= 0.

    Raises:
        ConfigError: `pattern` is no regular expression; `alpha` is negative or neither of both.
    """

    pattern: str
    alpha: float | str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"pattern {self.pattern!r} is no regular expression: {error}") from None
        if in_sd(self.alpha, "alpha") is None:
            not_negative(float(self.alpha), "alpha")

    @property
    def resolved(self) -> bool:
        """Whether `alpha` is a number in reward units."""
        return not isinstance(self.alpha, str)

    def resolve(self, reference: "ReferenceStatistics") -> "PatternPenalty":
        """The penalty with `alpha` in reward units."""
        sds = in_sd(self.alpha, "alpha")
        return self if sds is None else replace(self, alpha=sds * reference.sd)

    def found(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """[N] whether the pattern is in each text."""
        rule = re.compile(self.pattern)
        return np.array([rule.search(text) is not None for text in texts], dtype=bool)


def pattern_amounts(
    penalties: Sequence[PatternPenalty], texts: Sequence[str] | None, answers: int
) -> NDArray[np.float64]:
    """[N] the signed part of the reward, <= 0.

    Args:
        penalties: resolved.
        texts: [N] the answers.
        answers: N.

    Raises:
        ConfigError: there are no texts to search.
    """
    if texts is None:
        raise ConfigError(
            "a pattern penalty needs the answers' texts, and only their scores are at hand",
            hint="leave reward.patterns out here, and search the texts where they are made",
        )
    amount = np.zeros(answers)
    for one in penalties:
        amount -= float(one.alpha) * one.found(texts)
    return amount
