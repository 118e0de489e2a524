"""What a page is made of. Every text is plain: what looks like HTML in it is shown, never obeyed."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from sarm_control.charts import Figure, Tone
from sarm_control.pages.tables import Table


class Prose(NamedTuple):
    """Paragraphs.

    Args:
        text: a paragraph each.
        quiet: smaller and softer, for notes on method.
    """

    text: Sequence[str]
    quiet: bool = False


class Drawing(NamedTuple):
    """A figure with a caption, and its numbers as a table that opens.

    Args:
        figure: what is drawn.
        caption: what it says, read before the chart.
        width: pixels on a wide screen; a telephone gets a chart of its own.
        numbers: whether its rows are given as a table too; not where a table beside it has them.
    """

    figure: Figure
    caption: str
    width: int = 720
    numbers: bool = True


class Panels(NamedTuple):
    """Small drawings side by side, one under another on a telephone."""

    drawings: Sequence[Drawing]


class Facts(NamedTuple):
    """Terms and what they are here, such as settings."""

    pairs: Sequence[tuple[str, str]]


class Light(NamedTuple):
    """A check and how it came out.

    Args:
        name: of the check.
        tone: good (nothing found), bad (found), unclear (not known or not run).
        state: the tone in a word or two, such as `quiet`.
        evidence: what it rests on, in words and numbers.
    """

    name: str
    tone: Tone
    state: str
    evidence: str


class Lights(NamedTuple):
    """Checks, one a line."""

    lights: Sequence[Light]


class Payment(NamedTuple):
    """What one latent adds to the reward of an answer.

    Args:
        label: the latent's name.
        amount: reward units.
        shown: the amount in words.
        strong: a controlled latent.
    """

    label: str
    amount: float
    shown: str
    strong: bool = False


class Answer(NamedTuple):
    """One policy's answer.

    Args:
        policy: whose it is.
        text: the answer.
        notes: what is said about it in a line, such as `reward +0.67` and `gold -0.21`.
        payments: the latents that added or took most, largest first.
    """

    policy: str
    text: str
    notes: Sequence[str]
    payments: Sequence[Payment] = ()


class SideBySide(NamedTuple):
    """Answers to one prompt.

    Args:
        prompt: the prompt.
        why: why this prompt is shown; empty for one drawn at random.
        answers: in the order of the columns.
    """

    prompt: str
    why: str
    answers: Sequence[Answer]

    @property
    def largest(self) -> float:
        """The largest payment of any answer, which the others are drawn in proportion to."""
        return (
            # of all answers, so that bars of the same length are the same payment; never
            # 0, which widths are divided by
            max((abs(one.amount) for answer in self.answers for one in answer.payments), default=1.0) or 1.0
        )


class TokenValue(NamedTuple):
    """One token of a text and a number that belongs to it.

    Args:
        text: the token.
        value: the number, which its bar is drawn by.
        shown: the number in words.
        strong: whether it is the one that counts.
    """

    text: str
    value: float
    shown: str
    strong: bool = False


class TokenLine(NamedTuple):
    """A text token by token, each with a bar from zero and its number.

    Args:
        title: what is shown.
        caption: what it says.
        tokens: in order.
        largest: the size that a bar of full height stands for.
    """

    title: str
    caption: str
    tokens: Sequence[TokenValue]
    largest: float

    def height(self, token: TokenValue) -> float:
        """Of the bar, from 0 to 20."""
        return round(20 * min(1.0, abs(token.value) / self.largest), 2) if self.largest > 0 else 0.0

    @property
    def falls(self) -> bool:
        """Whether any bar goes down."""
        return any(token.value < 0 for token in self.tokens)

    @property
    def rises(self) -> bool:
        """Whether any bar goes up."""
        return any(token.value > 0 for token in self.tokens)


class Code(NamedTuple):
    """Text as a machine reads it: commands, settings, versions."""

    text: str


class More(NamedTuple):
    """Blocks that open when asked for."""

    summary: str
    blocks: Sequence["Block"]


Block: TypeAlias = Prose | Drawing | Panels | Facts | Lights | SideBySide | TokenLine | Code | More | Table
"""Anything that a section can hold."""


class Section(NamedTuple):
    """A part of a page with a heading; on a telephone its title and finding stand for it until it is opened.

    Args:
        id: of its place in the page, unique.
        title: the heading.
        finding: what it says, in one sentence.
        blocks: what it holds.
    """

    id: str
    title: str
    finding: str
    blocks: Sequence[Block]


class Tile(NamedTuple):
    """A question with a number for an answer.

    Args:
        question: such as `Did it work?`.
        value: the number with its unit, such as `+0.63 SD`.
        interval: such as `95 % interval +0.49 to +0.78`, or why there is none.
        detail: what was compared with what, in a line.
        tone: what it means.
    """

    question: str
    value: str
    interval: str
    detail: str
    tone: Tone = "plain"


class Page(NamedTuple):
    """A page, from the first screen on.

    Args:
        kind: what it is and of what, above the verdict.
        verdict: the answer in one line; the heading of the page.
        tone: what the verdict means.
        lead: up to three sentences below the verdict.
        tiles: up to three numbers.
        hero: the chart of the first screen, or None.
        sections: the rest, in order.
        made: how and when it was made, the last line.
    """

    kind: str
    verdict: str
    tone: Tone
    lead: Sequence[str]
    tiles: Sequence[Tile]
    hero: Drawing | None
    sections: Sequence[Section]
    made: str = ""
