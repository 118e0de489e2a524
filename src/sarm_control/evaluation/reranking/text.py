"""A reranking as text for people, and as rows of a file."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sarm_control.console import aligned
from sarm_control.control import Edit
from sarm_control.evaluation.reranking.candidates import CandidateSets
from sarm_control.evaluation.reranking.reranking import Expected, Reranking, win_shares
from sarm_control.evaluation.reranking.single_latents import LatentImpact
from sarm_control.statistics import Interval, counted, interval, missing, number, percent

_WINNER = ("winner", "before", "after", "change, 95 % interval", "rises", "falls")
_LONGEST = 2000
"""Letters of a prompt or an answer that an example keeps."""
_CURVE = ("N", "prompts", "before", "after", "change, 95 % interval")


def reranking_text(found: Reranking, sets: CandidateSets, edits: Sequence[Edit]) -> str:
    """The winners before and after the edits, and the best-of-N curve of every attribute, as text."""
    lines = [_size_line(sets)]
    if edits:
        lines += ["", f"{counted(len(edits), 'edit')}: {', '.join(map(str, edits))}"]
        lines += [f"the winner changes for {_share(found.changed)} of the prompts", ""]
        lines += aligned([_WINNER, *(_winner_cells(one) for one in found.winners)], left=1)
    for name in dict.fromkeys(one.attribute for one in found.curve):
        lines += ["", f"{name} of the winner of N candidates (exact, over all sets of N of those given)"]
        points = [_curve_cells(one) for one in found.curve if one.attribute == name]
        rows = [_CURVE, *points]
        # without edits the columns after "before" would repeat it
        lines += aligned(rows if edits else [row[:3] for row in rows])
    if found.too_large:
        lines += ["", f"no prompt has {' or '.join(map(str, found.too_large))} candidates"]
    return "\n".join(lines) + "\n"


def impacts_text(impacts: Sequence[LatentImpact], sets: CandidateSets, top: int) -> str:
    """The latents whose removal changes most winners, as text."""
    if not impacts:
        return "no single latent changes a winner when it is set to 0\n"
    names = list(sets.attributes)
    header = ("latent", "w", "winner changes", *(f"{name} of the winner" for name in names))
    rows = [
        (
            str(one.latent),
            number(one.weight, "+.3g"),
            _share(one.changed),
            *(interval(one.attributes[name], "+.3g") for name in names),
        )
        for one in impacts[:top]
    ]
    shown = f", the {top} that change most" if len(impacts) > top else ""
    title = f"{counted(len(impacts), 'latent')} change a winner when set to 0, each alone{shown}"
    return "\n".join([title, *aligned([header, *rows])]) + "\n"


def reranked_rows(found: Reranking, sets: CandidateSets) -> Iterator[dict[str, Any]]:
    """One row per prompt: its candidates, their rewards before and after, and the winners' positions."""
    for row, span in zip(sets.rows, sets.spans(), strict=True):
        before, after = found.before[span], found.after[span]
        yield {
            "prompt": row.prompt,
            "candidates": list(sets.texts[span]),
            "before": before.tolist(),
            "after": after.tolist(),
            # several where rewards tie
            "winner_before": np.flatnonzero(win_shares(before, len(before))).tolist(),
            "winner_after": np.flatnonzero(win_shares(after, len(after))).tolist(),
            **{name: values[span].tolist() for name, values in sets.attributes.items()},
        }


def changed_choices(found: Reranking, sets: CandidateSets, most: int = 3) -> list[dict[str, Any]]:
    """Prompts whose winner changes, those whose two winners differ most in the edited reward first.

    Returns:
        `prompt`, and `first` and `second`, the winners without and with the edits: `text`, and the rewards
        `before` and `after`. Texts are cut after 2,000 letters. Ties are left out.
    """
    places = []
    for place, span in enumerate(sets.spans()):
        first, second = (int(span.start + np.argmax(side[span])) for side in (found.before, found.after))
        # 0 where the winner stays, and where both tie under the edits: then none was chosen over the
        # other
        gain = float(found.after[second] - found.after[first])
        if gain > 0:
            places.append((gain, place, first, second))
    places.sort(key=lambda one: -one[0])

    def shown(j: int) -> dict[str, Any]:
        return {"text": _cut(sets.texts[j]), "before": float(found.before[j]), "after": float(found.after[j])}

    return [
        {"prompt": _cut(sets.rows[place].prompt_text), "first": shown(first), "second": shown(second)}
        for _, place, first, second in places[:most]
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _size_line(sets: CandidateSets) -> str:
    low, high = sets.sizes.min(), sets.sizes.max()
    each = f"{low}" if low == high else f"{low} to {high}"
    left_out = f"; {counted(sets.alone, 'prompt')} with a single one left out" if sets.alone else ""
    return f"{counted(len(sets), 'prompt')}, {len(sets.answers):,} candidates ({each} each){left_out}"


def _share(changed: Interval) -> str:
    if not changed.given:
        return f"{percent(changed.mean)} ({missing(changed)})"
    return f"{percent(changed.mean)} [{percent(changed.low)}, {percent(changed.high)}]"


def _winner_cells(one: Expected) -> tuple[str, ...]:
    return (
        one.attribute,
        number(one.before.mean, ".4g"),
        number(one.after.mean, ".4g"),
        interval(one.change, "+.3g"),
        f"{one.rises:,}",
        f"{one.falls:,}",
    )


def _curve_cells(one: Expected) -> tuple[str, ...]:
    return (
        str(one.n),
        f"{one.before.n:,}",
        interval(one.before, ".4g"),
        interval(one.after, ".4g"),
        interval(one.change, "+.3g"),
    )
