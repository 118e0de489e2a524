"""A name for a latent from a language model, and a test of the name on answers it was not given for.

Half of the examples make the name. On the other half the model is asked of one answer at a time whether it
fits the name; the answers without the latent are matched ones (same prompt or same length), those that
share most of the latent's words first, so that guessing the topic is not enough.
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
    """Asks for a name and tests it; None where there are too few answers to do both.

    Args:
        found: active and matched answers.
        words: what sets the active ones apart, for choosing hard negatives.
        ask: gives the model's reply to a question.
        seed: of the halves.
    """
    shown, judged = _halves(found.active, seed)
    contrast, others = _halves(found.matched, seed)
    if len(shown) < 2 or len(judged) < 2 or len(others) < 2:
        return None
    text = _one_line(ask(_question(shown[:SHOWN], contrast[:SHOWN])))
    hard = sorted(others, key=lambda one: -_shared(one.answer, words))[:TESTED]
    replies = [[_yes(ask(_test(text, one))) for one in side] for side in (judged[:TESTED], hard)]
    right = [sum(reply is side for reply in own) for own, side in zip(replies, (True, False), strict=True)]
    unread = sum(reply is None for own in replies for reply in own)
    active, matched = map(len, replies)
    skill = (right[0] / active + right[1] / matched) / 2
    return Name(text, skill, *_ends(right, (active, matched)), active, matched, unread)


def _ends(right: Sequence[int], of: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the mean of two shares: one right and one wrong is added to each side.

    That is the interval of Agresti and Caffo (2000) for a difference, with the second share turned round;
    it holds for samples as small as ten.
    """
    shares = [(one + 1) / (count + 2) for one, count in zip(right, of, strict=True)]
    variance = sum(share * (1 - share) / (count + 2) for share, count in zip(shares, of, strict=True)) / 4
    middle, half = sum(shares) / 2, 1.96 * math.sqrt(variance)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _halves(examples: Sequence[LabelExample], seed: int) -> tuple[list[LabelExample], list[LabelExample]]:
    """By prompt, so that no prompt is on both sides; each half in the order of the examples."""
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
    """The end matters most, as the latent is read there."""
    plain = " ".join(text.split())
    return plain if len(plain) <= _LONGEST_TEXT else f"... {plain[-_LONGEST_TEXT:]}"


def _one_line(reply: str) -> str:
    lines = [line.strip(" \t\"'*-.") for line in reply.splitlines()]
    return next((line for line in lines if line), "")[:120]


def _yes(reply: str) -> bool | None:
    found = re.search(r"\b(yes|no)\b", reply.lower())
    return None if found is None else found[1] == "yes"


def _shared(text: str, words: Sequence[Word]) -> int:
    own = set(n_grams(text))
    return sum(word.text in own for word in words)
