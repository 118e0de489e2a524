"""A name for a latent from a language model, and a test of the name on other answers.

The model names the latent by one half of the examples. On the other half it is asked, one answer at a time,
whether the answer fits the name. The answers without the latent are matched (same prompt or similar length),
and those that share most of the latent's words come first, so that guessing the topic is not enough.
"""

import math
import re
from collections.abc import Callable, Sequence

from sarm_control.discovery.labels.distinctive_words import Word, n_grams
from sarm_control.discovery.labels.examples import LabelExample, LabelExamples
from sarm_control.discovery.labels.labels import Name
from sarm_control.seeds import derive_seed

Ask = Callable[[str], str]

SHOWN = 8
TESTED = 10
_LONGEST_TEXT = 600


def name_latent(found: LabelExamples, words: Sequence[Word], ask: Ask, *, seed: int = 0) -> Name | None:
    """Asks for a name and tests it; None where there are too few answers for both.

    Args:
        found: active and matched answers.
        words: distinctive words of the active answers, for choosing hard negatives.
        ask: returns the model's reply to a question.
        seed: of the halves.
    """
    # the name is made of one half and judged on the other: on the answers it was made of, any name fits
    shown, judged = _halves(found.active, seed)
    contrast, others = _halves(found.matched, seed)
    if len(shown) < 2 or len(judged) < 2 or len(others) < 2:
        return None
    text = _one_line(ask(_question(shown[:SHOWN], contrast[:SHOWN])))
    # answers that share the latent's words are hard negatives: a name for the topic alone fails on them
    hard = sorted(others, key=lambda one: -_shared(one.answer, words))[:TESTED]
    replies = [[_yes(ask(_test(text, one))) for one in side] for side in (judged[:TESTED], hard)]
    right = [sum(reply is side for reply in own) for own, side in zip(replies, (True, False), strict=True)]
    unread = sum(reply is None for own in replies for reply in own)
    active, matched = map(len, replies)
    skill = (right[0] / active + right[1] / matched) / 2
    return Name(text, skill, *_ends(right, (active, matched)), active, matched, unread)


def _ends(right: Sequence[int], of: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the mean of two shares, with one right and one wrong reply added to each side.

    It is the interval of Agresti and Caffo (2000) for a difference, applied to 1 minus the second share; it
    is valid for samples as small as ten.
    """
    shares = [(one + 1) / (count + 2) for one, count in zip(right, of, strict=True)]
    variance = sum(share * (1 - share) / (count + 2) for share, count in zip(shares, of, strict=True)) / 4
    middle, half = sum(shares) / 2, 1.96 * math.sqrt(variance)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _halves(examples: Sequence[LabelExample], seed: int) -> tuple[list[LabelExample], list[LabelExample]]:
    """Two halves, split by prompt, so that no prompt is in both; each keeps the order of the examples."""
    first = [one for one in examples if derive_seed(seed, "name-half", one.prompt) % 2]
    second = [one for one in examples if not derive_seed(seed, "name-half", one.prompt) % 2]
    return first, second


def _question(active: Sequence[LabelExample], inactive: Sequence[LabelExample]) -> str:
    return (
        "A feature of a text detector fires on the first group of answers and not on the second.\n\n"
        f"FIRES:\n{_listed(active)}\n\nDOES NOT FIRE:\n{_listed(inactive)}\n\n"
        "What do the answers of the first group have in common that those of the second lack? "
        "Reply with one short phrase of at most ten words and nothing else."
    )


def _test(name: str, one: LabelExample) -> str:
    return (
        f"Feature: {name}\n\nAnswer:\n{_shortened(one.answer)}\n\n"
        "Does this answer show the feature? Reply with one word, yes or no."
    )


def _listed(examples: Sequence[LabelExample]) -> str:
    return "\n".join(f"- {_shortened(one.answer)}" for one in examples)


def _shortened(text: str) -> str:
    """The end of a long text: the latent is read there, so it matters most."""
    plain = " ".join(text.split())
    return plain if len(plain) <= _LONGEST_TEXT else f"... {plain[-_LONGEST_TEXT:]}"


def _one_line(reply: str) -> str:
    lines = [line.strip(" \t\"'*-.") for line in reply.splitlines()]
    return next((line for line in lines if line), "")[:120]


def _yes(reply: str) -> bool | None:
    word = re.search(r"\b(yes|no)\b", reply.lower())
    return None if word is None else word[1] == "yes"


def _shared(text: str, words: Sequence[Word]) -> int:
    own = set(n_grams(text))
    return sum(word.text in own for word in words)
