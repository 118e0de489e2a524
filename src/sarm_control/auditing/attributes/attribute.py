"""What an attribute is: a number that a program reads off one answer.

An audit asks of each attribute what the reward model pays for it. An attribute is therefore a pure function
of the prompt and the answer alone: no model, no clock, no network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["answer", "item", "doubling"]

RESERVED = ("prompt", "answer", "role", "reward")
"""Columns of tables of answers beside the attributes; no attribute can have one of these names."""

Measure = Callable[[str, str], float]
"""`measure(prompt, answer)`: the last user turn, and the answer."""


@dataclass(frozen=True)
class Attribute:
    """A number that is read off an answer.

    Args:
        name: short, as tables and options have it: `bullets`.
        words: what it is in a sentence, after "pays for": `bulleted lists`.
        measure: the number, >= 0 and finite; 0 where the answer has none of it.
        unit: what one more is. `answer`: the answer has it or not, 0 or 1. `item`: a count, compared as
            `log2(1 + count)`, because the tenth bullet is not the first. `doubling`: a size, compared as
            its base-2 logarithm.
        style: whether it is about form and says nothing of the content. A reward for style is a shortcut
            unless somebody wants it.
        column: a column of the data that holds it, one number for each answer of a row; `measure` is then
            not asked, and answers that are not in the data have no such number.
    """

    name: str
    words: str
    measure: Measure
    unit: Unit = "answer"
    style: bool = True
    column: str | None = None
