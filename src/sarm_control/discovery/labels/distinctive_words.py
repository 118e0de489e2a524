"""Words that distinguish answers with an active latent from matched answers without it.

The measure is the log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, equations
16, 19, 22). For an n-gram w in `y_1` of `n_1` active and `y_0` of `n_0` other mentions, with prior counts
`a_w` that sum to `a_0` in proportion to the whole text,

    d_w = log (y_1 + a_w) / (n_1 + a_0 - y_1 - a_w) - log (y_0 + a_w) / (n_0 + a_0 - y_0 - a_w)
    z_w = d_w / sqrt(1 / (y_1 + a_w) + 1 / (y_0 + a_w))

An n-gram counts once per answer, however often it occurs there, so that one long answer cannot make a word
distinctive.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_TOKEN = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
_HAS_WORD = re.compile(r"\w")
LONGEST = 3
PRIOR = 500.0
_SEEN_IN = 3


class Word(NamedTuple):
    """An n-gram and how often it occurs.

    Args:
        text: its words, lower case, separated by spaces.
        z: standardised log-odds; positive where the latent is active.
        active: share of active answers with it.
        inactive: share of the matched answers with it.
    """

    text: str
    z: float
    active: float
    inactive: float


def separating_words(active: Sequence[str], inactive: Sequence[str], *, top: int = 10) -> tuple[Word, ...]:
    """The most distinctive n-grams (1 to 3 words) of a latent, the strongest first.

    An n-gram that overlaps with a stronger one of the same answers adds nothing and is left out. So are
    n-grams in fewer than three answers and those whose z is not above 1.96.

    Args:
        active: answers with the latent active.
        inactive: matched answers without it.
        top: the largest number of n-grams.
    """
    sides = [[frozenset(n_grams(text)) for text in texts] for texts in (active, inactive)]
    ones, others = (Counter(word for own in side for word in own) for side in sides)
    both = ones + others
    total = sum(both.values())
    sizes = ones.total(), others.total()
    distinctive = []
    for word, count in both.items():
        if count < _SEEN_IN:
            continue
        # the prior shrinks rare n-grams towards their share in the whole text
        prior = PRIOR * count / total
        z = _z(ones[word], sizes[0], others[word], sizes[1], prior)
        if z > 1.96:
            shares = ones[word] / len(active), others[word] / max(len(inactive), 1)
            distinctive.append(Word(word, z, *shares))
    # of equally strong ones the longest first: its parts are then what is left out
    distinctive.sort(key=lambda word: (-word.z, -len(word.text), word.text))
    return tuple(_without_parts(distinctive, top))


def n_grams(text: str) -> Iterator[str]:
    """All runs of 1 to 3 tokens that begin and end with a word."""
    tokens = _TOKEN.findall(text.lower())
    for start in range(len(tokens)):
        for length in range(1, LONGEST + 1):
            run = tokens[start : start + length]
            if len(run) == length and _HAS_WORD.match(run[0]) and _HAS_WORD.match(run[-1]):
                yield " ".join(run)


def _z(active: int, all_active: int, inactive: int, all_inactive: int, prior: float) -> float:
    def log_odds(count: int, size: int) -> float:
        return math.log((count + prior) / (size + PRIOR - count - prior))

    difference = log_odds(active, all_active) - log_odds(inactive, all_inactive)
    return difference / math.sqrt(1 / (active + prior) + 1 / (inactive + prior))


def _without_parts(words: Sequence[Word], top: int) -> Iterator[Word]:
    """At most `top` words, without those that overlap with a stronger one of about the same answers."""
    kept: list[Word] = []
    for word in words:
        if len(kept) == top:
            return
        if not any(_redundant(word, other) for other in kept):
            kept.append(word)
            yield word


def _redundant(one: Word, other: Word) -> bool:
    inside = f" {one.text} " in f" {other.text} " or f" {other.text} " in f" {one.text} "
    return inside and abs(one.active - other.active) < 0.05 and abs(one.inactive - other.inactive) < 0.05
