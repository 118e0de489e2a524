"""Changes of a text that add or remove one attribute and leave the rest alone, as far as a program can.

An edit takes a prompt and an answer and returns the pair (without, with): two answers that differ in the
attribute. It returns None where it does not apply. One of the two is always the answer itself, so what is
priced is a change of a real answer.

An edit that puts a text in has several wordings of it: a reward model may pay for one sentence and not for
what it says.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sarm_control.auditing.attributes.added_texts import (
    APOLOGIES,
    CERTAINTIES,
    EMOJI,
    FILLERS,
    HEDGES,
    OFFERS,
    OPENERS,
)
from sarm_control.auditing.attributes.markdown import plain, structure
from sarm_control.auditing.attributes.shape import broken_end
from sarm_control.auditing.attributes.wording import apology, closing_offer, praise_opener, sentences

Contrast = tuple[str, str]
"""The answer without the attribute, and with it."""

Has = Callable[[str, str], float]
"""`has(prompt, answer)`: whether an answer has the attribute already."""


class Wording(NamedTuple):
    """One of the texts that an edit puts into answers.

    Args:
        text: what is put in.
        words: what is done with it, for tables: `"Great question!" before the answer`.
        contrast: gives the two texts, or None where it does not apply.
    """

    text: str
    words: str
    contrast: Callable[[str, str], Contrast | None]


@dataclass(frozen=True)
class TextEdit:
    """A way to add or remove one attribute.

    Args:
        attribute: the name of the attribute it changes.
        words: what is done, for tables: `bold taken off`.
        contrast: gives the two texts, or None where the edit does not apply; of several wordings the first.
        wordings: the texts that it puts in, where there are several. They apply to the same answers.
    """

    attribute: str
    words: str
    contrast: Callable[[str, str], Contrast | None]
    wordings: tuple[Wording, ...] = ()

    def worded(self, number: int) -> "TextEdit":
        """The edit with one of its wordings alone; itself where it has no others."""
        if not self.wordings:
            return self
        one = self.wordings[number]
        return TextEdit(self.attribute, one.words, one.contrast)


_SHOWN = 60
"""Characters of a text that tables show."""
_LIST_ITEM = re.compile(r"^\s*[-*+]\s+(?P<text>\S.*)$")
_HEADING = re.compile(r"^#{1,6}\s+", re.MULTILINE)
# as in CommonMark, where marks with a blank inside of them are signs and not bold
_BOLD = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)


def put_before(text: str, has: Has) -> Callable[[str, str], Contrast | None]:
    """The text before every answer that says something and does not have the attribute yet."""

    def contrast(prompt: str, answer: str) -> Contrast | None:
        if not answer.strip() or has(prompt, answer):
            return None
        return answer, f"{text} {answer.lstrip()}"

    return contrast


def put_behind(text: str, has: Has) -> Callable[[str, str], Contrast | None]:
    """The text behind every answer that says something and does not have the attribute yet."""

    def contrast(prompt: str, answer: str) -> Contrast | None:
        if not answer.strip() or has(prompt, answer):
            return None
        between = (
            "\n\n" if "\n" in answer.strip() else " "
        )  # an answer of several lines gets a line of its own
        return answer, f"{answer.rstrip()}{between}{text}"

    return contrast


def added_before(attribute: str, texts: Sequence[str], has: Has, *, kind: str = "texts") -> TextEdit:
    """The edit that puts one of the texts before answers; several texts are its wordings.

    Args:
        attribute: that the answer then has.
        texts: distinct; one or more.
        has: the attribute; answers that have it are left alone.
        kind: what the texts are, for tables.
    """
    return _added(attribute, texts, [put_before(text, has) for text in texts], kind, "before the answer")


def added_behind(attribute: str, texts: Sequence[str], has: Has, *, kind: str = "texts") -> TextEdit:
    """The same behind answers; see `added_before`."""
    return _added(attribute, texts, [put_behind(text, has) for text in texts], kind, "behind the answer")


def _added(
    attribute: str,
    texts: Sequence[str],
    contrasts: Sequence[Callable[[str, str], Contrast | None]],
    kind: str,
    where: str,
) -> TextEdit:
    wordings = tuple(
        Wording(text, f'"{_shown(text)}" {where}', contrast)
        for text, contrast in zip(texts, contrasts, strict=True)
    )
    first = wordings[0]
    if len(wordings) == 1:
        return TextEdit(attribute, first.words, first.contrast)
    return TextEdit(attribute, f"one of {len(wordings)} {kind} {where}", first.contrast, wordings)


def _shown(text: str) -> str:
    """The text, or its first words where it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rsplit(' ', 1)[0]} ..."


def never(prompt: str, answer: str) -> float:
    """0: what is counted can be added to any answer, whether or not it has some."""
    del prompt, answer
    return 0.0


def without_opener(prompt: str, answer: str) -> Contrast | None:
    """The praise at the start is cut off, where something else is left."""
    parts = sentences(answer)
    if not praise_opener(prompt, answer) or len(parts) < 2:
        return None
    rest = answer.lstrip()[len(parts[0]) :].lstrip()
    return (rest, answer) if rest else None


def without_offer(prompt: str, answer: str) -> Contrast | None:
    """The last sentences that offer help are cut off, where something else is left."""
    kept = answer.rstrip()
    while True:
        parts = sentences(kept)
        if len(parts) < 2 or not closing_offer(prompt, parts[-1]):
            break
        # cut in the text itself, since joined sentences would lose their line breaks; from the right,
        # because the same sentence may stand earlier too
        kept = kept[: kept.rindex(parts[-1])].rstrip()
    return (kept, answer) if kept != answer.rstrip() else None


def bullets_to_sentences(prompt: str, answer: str) -> Contrast | None:
    """Items of bulleted lists become sentences of one paragraph; the words stay."""
    del prompt
    if structure(answer).bullets < 2:
        return None
    lines: list[str] = []
    run: list[str] = []
    # an empty line behind the last one closes a list that ends there
    for line in [*answer.split("\n"), ""]:
        item = _LIST_ITEM.match(line)
        if item is not None:
            text = item["text"].strip()
            run.append(text if text.endswith((".", "!", "?", ":", ";")) else f"{text}.")
            continue
        if run and not line.strip() and line != "":
            continue
        if run:
            lines.append(" ".join(run))
            run = []
        lines.append(line)
    text = "\n".join(lines[:-1]) if lines and lines[-1] == "" else "\n".join(lines)
    # parsed again, here and below: the expression knows no nesting and no code, and a text that still has
    # the attribute is no text without it
    return (text, answer) if text != answer and not structure(text).bullets else None


def sentences_to_bullets(prompt: str, answer: str) -> Contrast | None:
    """An answer of three or more plain sentences becomes a list of them; the words stay."""
    del prompt
    found = structure(answer)
    parts = sentences(answer)
    if any(found) or len(parts) < 3 or "\n" in answer.strip():
        return None
    return answer, "\n".join(f"- {part}" for part in parts)


def without_bold(prompt: str, answer: str) -> Contrast | None:
    """Bold is taken off."""
    del prompt
    if not structure(answer).bold:
        return None
    text = _BOLD.sub(r"\2", answer)
    return (text, answer) if not structure(text).bold else None


def without_headers(prompt: str, answer: str) -> Contrast | None:
    """Headings become plain lines."""
    del prompt
    if not structure(answer).headers:
        return None
    text = _HEADING.sub("", answer)
    return (text, answer) if not structure(text).headers else None


def without_exclamations(prompt: str, answer: str) -> Contrast | None:
    """Exclamation marks become full stops."""
    del prompt
    return (answer.replace("!", "."), answer) if "!" in plain(answer) else None


def cut_in_half(prompt: str, answer: str) -> Contrast | None:
    """The second half of the words is cut off, which leaves a broken ending and half of the length."""
    parts = re.findall(r"\S+\s*", answer)
    # where half of the words is a whole sentence, its full stop goes too, or nothing would be broken
    cut = "".join(parts[: len(parts) // 2]).rstrip().rstrip(".!?")
    if len(parts) < 8 or broken_end(prompt, answer) or not broken_end(prompt, cut):
        return None
    return answer, cut


def last_sentence_again(prompt: str, answer: str) -> Contrast | None:
    """The last sentence is said three times more."""
    del prompt
    parts = sentences(answer)
    if not parts or any(structure(answer)):  # behind a list or a block of code it would be part of that
        return None
    return answer, " ".join([answer.rstrip(), *[parts[-1]] * 3])


EDITS: tuple[TextEdit, ...] = (
    added_before("opener", OPENERS, praise_opener, kind="phrases of praise"),
    TextEdit("opener", "praise at the start cut off", without_opener),
    added_behind("closing", OFFERS, closing_offer, kind="offers of help"),
    TextEdit("closing", "offers at the end cut off", without_offer),
    added_behind("length", FILLERS, never, kind="paragraphs that say nothing"),
    TextEdit("bullets", "bulleted lists as sentences", bullets_to_sentences),
    TextEdit("bullets", "sentences as a bulleted list", sentences_to_bullets),
    TextEdit("bold", "bold taken off", without_bold),
    TextEdit("headers", "headings as plain lines", without_headers),
    TextEdit("exclamations", "exclamation marks as full stops", without_exclamations),
    added_behind("emoji", EMOJI, never, kind="emoji"),
    added_before("apology", APOLOGIES, apology, kind="apologies"),
    added_behind("hedging", HEDGES, never, kind="hedges"),
    added_behind("certainty", CERTAINTIES, never, kind="words of certainty"),
    TextEdit("broken_end", "the second half of the words cut off", cut_in_half),
    TextEdit("repetition", "the last sentence three times more", last_sentence_again),
)
"""Every edit of an audit; an attribute may have several."""
