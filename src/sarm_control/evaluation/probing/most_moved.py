"""How the changes that edits make are spread over answers, and the answers that they move most.

Shapes: `N` answers.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sarm_control.data import Row
from sarm_control.evaluation.answer_places import answer_table
from sarm_control.evaluation.probing.probe import SIDES, Probe

_BINS = 8
_LONGEST = 2000
"""Letters of a prompt or an answer that an example keeps."""


def change_bins(found: Probe) -> list[dict[str, Any]]:
    """Counts of answers by the change of their reward, lowest first.

    Bins have one width, 1, 2 or 5 times a power of ten, and 0 is between two of them. Answers that do not
    change at all are counted apart, in a bin from 0 to 0.

    Returns:
        `low` and `high` (SDs of the reward; reward units where the SD is 0) and `answers` of each bin.
    """
    delta = found.delta / (found.reward_sd or 1.0)
    moved = delta[delta != 0]
    if not len(moved):
        return [{"low": 0.0, "high": 0.0, "answers": len(delta)}]
    step = _step(float(max(moved.max(), 0.0) - min(moved.min(), 0.0)))
    # away from zero, so that a change on an edge counts with those nearer to zero
    place = np.where(moved > 0, np.ceil(moved / step) - 1, np.floor(moved / step)).astype(np.int64)
    bins = []
    for first in range(min(0, int(place.min())), max(-1, int(place.max())) + 1):
        if first == 0:
            bins.append(_unmoved(delta.size - moved.size))
        bins.append({"low": first * step, "high": (first + 1) * step, "answers": int((place == first).sum())})
    return bins if place.max() >= 0 else [*bins, _unmoved(delta.size - moved.size)]


def most_moved(rows: Sequence[Row], found: Probe, each: int = 2) -> dict[str, list[dict[str, Any]]]:
    """The answers whose rewards rise and fall most, of different prompts.

    Args:
        rows: whose answers were probed.
        found: the effect of the edits on them.
        each: the most answers of either kind.

    Returns:
        `rises` and `falls`: `prompt`, `answer` (both cut after 2,000 letters), `side`, `before`, `after` and
        `delta` of each, the largest change first.
    """
    table = answer_table(rows, len(found.delta))
    texts = [text for row in rows for text in row.answers]
    order = np.argsort(found.delta, kind="stable")

    def taken(places: Sequence[int]) -> Iterator[dict[str, Any]]:
        seen: set[int] = set()
        for j in places:
            # of different prompts: the answers to one prompt often move alike, and
            # would show one case several times
            if found.delta[j] != 0 and int(table.prompt[j]) not in seen and len(seen) < each:
                seen.add(int(table.prompt[j]))
                before, delta = float(found.before[j]), float(found.delta[j])
                yield {
                    "prompt": _cut(rows[int(table.row[j])].prompt_text),
                    "answer": _cut(texts[j]),
                    "side": SIDES[str(table.role[j])],
                    "before": before,
                    "after": before + delta,
                    "delta": delta,
                }

    falls = [int(j) for j in order if found.delta[j] < 0]
    rises = [int(j) for j in order[::-1] if found.delta[j] > 0]
    return {"rises": list(taken(rises)), "falls": list(taken(falls))}


def _unmoved(answers: int) -> dict[str, Any]:
    return {"low": 0.0, "high": 0.0, "answers": answers}


def _step(span: float) -> float:
    """The least of 1, 2, 5 times a power of ten by which at most eight steps cover the span."""
    power = 10.0 ** math.floor(math.log10(span / _BINS))
    return next(
        power * times for times in (1.0, 2.0, 5.0, 10.0) if power * times * _BINS >= span * (1 - 1e-9)
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
