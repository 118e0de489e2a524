"""Several wordings of one text edit: which answer gets which, and whether they differ.

A reward model may pay for one sentence and not for what it says. An edit that puts a text in therefore has
several wordings, and each answer gets one of them (or some): in runs that have every wording once, in an
order drawn for each run. That is a randomised block design (Fisher 1935, The Design of Experiments).

A *set* is a few prompts that together have every wording, or one prompt that has them all. Its mean over the
wordings is one number, and sets share no prompt: what is said over the sets of an edit with wordings is said
as over the prompts of an edit without.

Shapes: `n` changed texts, `W` wordings, `S` sets.
"""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SETS: Final = 30
"""Sets from which on an answer gets no further wording: with fewer the ends of a median are far apart."""


def wordings_each(answers: int, prompts: int, wordings: int) -> int:
    """How many wordings an answer gets: the fewest that give `SETS` sets, or a set for every prompt.

    Args:
        answers: that are changed.
        prompts: of these answers.
        wordings: of the edit.
    """
    wanted = min(prompts, SETS)
    # divisors alone: then every run of wordings ends with an answer, and none gets a wording twice
    each = (count for count in range(1, wordings) if wordings % count == 0)
    return next((count for count in each if answers * count // wordings >= wanted), wordings)


def drawn_wordings(answers: int, wordings: int, each: int, rng: np.random.Generator) -> Integers:
    """[answers, each] the wordings of every answer, in runs of random order.

    Args:
        answers: that are changed, those to one prompt one after the other.
        wordings: of the edit.
        each: of an answer; a divisor of `wordings`.
        rng: draws the order within each run.
    """
    runs = -(-answers * each // wordings)
    # a fixed order would put one wording behind all chosen answers and another behind all rejected ones
    order = rng.permuted(np.tile(np.arange(wordings), (runs, 1)), axis=1)
    return order.reshape(-1, each)[:answers]


def sets_of(prompt: Integers, wording: Integers) -> Integers:
    """[n] the set of each text, 0..S-1.

    A set is filled by the prompts that add most wordings to it, the first of these. The prompts at the end
    that have not every wording together are dealt out to the sets.

    Args:
        prompt: [n] of each text.
        wording: [n] of each text; those that occur in no text are not asked for.
    """
    own: dict[int, set[int]] = {}
    for number, one in zip(prompt.tolist(), wording.tolist(), strict=True):
        own.setdefault(number, set()).add(one)
    every = frozenset(wording.tolist())
    # prompts by what they have: there are few such kinds, however many prompts there are
    left: dict[frozenset[int], deque[int]] = {}
    for number in sorted(own):
        left.setdefault(frozenset(own[number]), deque()).append(number)
    sets: list[list[int]] = []
    while left:
        members, seen = _next_set(left, every)
        if seen == every:
            sets.append(members)
            continue
        for at, number in enumerate(members):
            sets[at % len(sets)].append(number)
    place = {number: at for at, members in enumerate(sets) for number in members}
    return np.array([place[number] for number in prompt.tolist()], dtype=np.int64)


def _next_set(
    left: dict[frozenset[int], deque[int]], every: frozenset[int]
) -> tuple[list[int], frozenset[int]]:
    """Takes prompts until they have every wording or none is left; the prompts, and what they have."""
    members: list[int] = []
    seen: frozenset[int] = frozenset()
    while seen != every and left:
        # of those that add as many the first: neighbours in a file are alike
        gains = {kind: (len(kind - seen), -numbers[0]) for kind, numbers in left.items()}
        best = max(gains, key=gains.__getitem__)
        seen |= best
        members.append(left[best].popleft())
        if not left[best]:
            del left[best]
    return members, seen


def means_of_sets(values: Floats, wording: Integers, sets: Integers) -> Floats:
    """[S, W] the mean of each wording in each set, wordings in ascending order.

    Args:
        values: [n] of the texts.
        wording: [n] of each text.
        sets: [n] of each text, see `sets_of`.
    """
    own, column = np.unique(wording, return_inverse=True)
    shape = (int(sets.max()) + 1, len(own))
    place = sets * shape[1] + column
    size = shape[0] * shape[1]
    sums = np.bincount(place, weights=values, minlength=size)
    return np.asarray((sums / np.bincount(place, minlength=size)).reshape(shape))


def differ_p(values: Floats) -> float:
    """The p-value of Friedman's test that no column of [S, W] tends to be larger than another.

    Within each set the wordings are ranked, so that what sets have in common plays no part (Friedman 1937,
    Journal of the American Statistical Association 32, with his correction for ties). Which answer has which
    wording was drawn, so the ranks are exchangeable where wordings are worth the same, also where they stand
    behind different answers. NaN for one column alone; 1 where all values of each set are equal.
    """
    from scipy.stats import binomtest, friedmanchisquare

    if values.shape[1] < 2:
        return float("nan")
    if (values == values[:, :1]).all():
        return 1.0
    if values.shape[1] == 2:
        # scipy takes three columns or more: of two Friedman's test is the sign test, which is exact
        higher, lower = (
            int(side.sum()) for side in (values[:, 0] > values[:, 1], values[:, 0] < values[:, 1])
        )
        return float(binomtest(higher, higher + lower).pvalue)
    return float(friedmanchisquare(*values.T).pvalue)
