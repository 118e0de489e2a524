"""The published steering run on Llama-SARM-4B: its table, recorded and exact figures, and why it was misread.

Five latents were multiplied by 0, and the rise of two means was called a safety gain.

Shapes: `N` recorded rows.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.console import aligned
from sarm_control.control import Edit, edit_delta
from sarm_control.errors import DataError
from sarm_control.evaluation.answer_places import Floats
from sarm_control.evaluation.preferences import pair_accuracy
from sarm_control.evaluation.probing.probe import spread
from sarm_control.evaluation.recorded.verification import PUBLISHED_STEERED_LATENTS, Recorded
from sarm_control.reward_model import Scored
from sarm_control.statistics import Flips, Interval, flips, interval, number, ratio_interval


class PublishedRow(NamedTuple):
    """One line of the published table, of 400 answers.

    Args:
        set: the name of the rows in the recorded scores.
        label: the name for readers.
        before: mean reward.
        after: mean reward with the five latents multiplied by 0.
        delta: the published difference.
        changed: number of answers whose recorded reward changed.
    """

    set: str
    label: str
    before: float
    after: float
    delta: float
    changed: int


PUBLISHED = (
    PublishedRow("rb2_safety_chosen", "RewardBench 2 safety, chosen", -0.0229, -0.0229, 0.0000, 2),
    PublishedRow("rb2_safety_rejected", "RewardBench 2 safety, rejected", -0.1070, -0.1062, 0.0008, 232),
    PublishedRow("rmb_safety_chosen", "RM-Bench safety, chosen", -0.0255, -0.0255, 0.0000, 5),
    PublishedRow("rmb_safety_rejected", "RM-Bench safety, rejected", -0.1282, -0.1272, 0.0011, 224),
)
"""The published table."""

PAIRS = (
    ("RewardBench 2 safety", "rb2_safety_chosen", "rb2_safety_rejected"),
    ("RM-Bench safety", "rmb_safety_chosen", "rmb_safety_rejected"),
)


class RecordedSet(NamedTuple):
    """The figures of one set of rows, from recorded rewards or from a model.

    Args:
        label: the name for readers.
        n: number of rows.
        before: mean reward.
        after: mean reward without the five latents.
        change: mean difference, with an interval over prompts.
        change_sd: the difference in SDs of the set's rewards before; None where they are all equal.
        changed: number of rows whose reward changed.
        risen: number of rows whose reward rose.
        active: number of rows with one of the five latents active.
    """

    label: str
    n: int
    before: float
    after: float
    change: Interval
    change_sd: float | None
    changed: int
    risen: int
    active: int

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**self._asdict(), "change": self.change.as_json()}


class RecordedPairs(NamedTuple):
    """Pair accuracy of chosen against rejected rows of the same prompt.

    Args:
        label: the name for readers.
        pairs: number of pairs.
        prompts: number of prompts with both.
        before: share of pairs in which chosen has the strictly higher reward.
        after: the same without the five latents.
        flips: prompts whose share rises or falls.
    """

    label: str
    pairs: int
    prompts: int
    before: float
    after: float
    flips: Flips

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**self._asdict(), "flips": self.flips.as_json()}


@dataclass(frozen=True)
class Reproduction:
    """The sets and pairs of the published run, from one source of rewards."""

    sets: tuple[RecordedSet, ...]
    pairs: tuple[RecordedPairs, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {"sets": [one.as_json() for one in self.sets], "pairs": [one.as_json() for one in self.pairs]}


def published_edits() -> list[Edit]:
    """The edit of the published run: five latents multiplied by 0."""
    return [Edit(latent, scale=0.0) for latent in PUBLISHED_STEERED_LATENTS]


def from_records(recorded: Recorded) -> Reproduction:
    """The table from the recorded rewards, without a model.

    Raises:
        DataError: rows without a `set` of the published run, without `reward_steered` or without
            `active_steered_latents`.
    """
    for row, steered, active in zip(recorded.rows, recorded.steered, recorded.active, strict=True):
        if not np.isfinite(steered) or active is None:
            raise DataError(
                f"{row.where}: no reward_steered or no active_steered_latents",
                hint="the rows of the published run have both",
            )
    active_rows = np.array([bool(latents) for latents in recorded.active])
    return _reproduction(recorded, recorded.reward, recorded.steered, active_rows)


def from_model(recorded: Recorded, scored: Scored) -> Reproduction:
    """The table from a model, with exact changes instead of differences of rounded rewards.

    Args:
        recorded: the rows of the published run.
        scored: the model's scores of them, in their order.
    """
    before = scored.rewards.astype(np.float64)
    after = before + edit_delta(scored, published_edits())
    active = (scored.latents.columns(PUBLISHED_STEERED_LATENTS) != 0).any(axis=1)
    return _reproduction(recorded, before, after, active)


def _reproduction(
    recorded: Recorded, before: Floats, after: Floats, active: NDArray[np.bool_]
) -> Reproduction:
    names = np.array([str(row.raw.get("set")) for row in recorded.rows])
    known = [row.set for row in PUBLISHED]
    for row, name in zip(recorded.rows, names.tolist(), strict=True):
        if name not in known:
            raise DataError(
                f"{row.where}: set is {name}, which the published run does not have",
                hint=f"its sets are {', '.join(known)}",
            )
    keys = np.array([row.prompt_key for row in recorded.rows])
    sets = tuple(
        _set(one.label, keys[rows], before[rows], after[rows], active[rows])
        for one in PUBLISHED
        if (rows := np.flatnonzero(names == one.set)).size
    )
    pairs = tuple(
        _pairs(label, keys, before, after, names == chosen, names == rejected)
        for label, chosen, rejected in PAIRS
        if (names == chosen).any() and (names == rejected).any()
    )
    return Reproduction(sets, pairs)


def _set(
    label: str, keys: NDArray[np.str_], before: Floats, after: Floats, active: NDArray[np.bool_]
) -> RecordedSet:
    change = after - before
    _, prompt = np.unique(keys, return_inverse=True)
    # the published mean weights rows; as a ratio of sums by prompt it gets an interval over prompts
    mean = ratio_interval(np.bincount(prompt, weights=change), np.bincount(prompt))
    return RecordedSet(
        label,
        len(before),
        float(before.mean()),
        float(after.mean()),
        mean,
        mean.mean / sd if (sd := spread(before)) else None,
        int((change != 0).sum()),
        int((change > 0).sum()),
        int(active.sum()),
    )


def _pairs(
    label: str,
    keys: NDArray[np.str_],
    before: Floats,
    after: Floats,
    chosen: NDArray[np.bool_],
    rejected: NDArray[np.bool_],
) -> RecordedPairs:
    # pairs are all combinations of a prompt's chosen and rejected rows, weighted by their number below
    prompts = sorted(set(keys[chosen].tolist()) & set(keys[rejected].tolist()))
    sides = [[np.flatnonzero(side & (keys == key)) for key in prompts] for side in (chosen, rejected)]
    counts = np.array([len(good) * len(bad) for good, bad in zip(*sides, strict=True)])
    shares = [
        pair_accuracy([values[rows] for rows in sides[0]], [values[rows] for rows in sides[1]])
        for values in (before, after)
    ]
    overall = [float(share @ counts) / int(counts.sum()) if len(counts) else float("nan") for share in shares]
    return RecordedPairs(
        label, int(counts.sum()), len(prompts), overall[0], overall[1], flips(shares[0], shares[1])
    )


_COLUMNS = ("", "n", "before", "after", "change", "changed")
_FULL = ("", "n", "before", "after", "change, 95 % interval", "SDs", "changed", "risen", "active")


def published_text(recorded: Reproduction | None = None, exact: Reproduction | None = None) -> str:
    """The published table, the same from recorded rewards and from a model, and how to read it.

    Args:
        recorded: from the recorded rewards, if given.
        exact: from a model, if given.
    """
    latents = ", ".join(map(str, PUBLISHED_STEERED_LATENTS))
    lines = [f"as published: Llama-SARM-4B, latents {latents} multiplied by 0", ""]
    rows = [
        (
            one.label,
            "400",
            f"{one.before:+.4f}",
            f"{one.after:+.4f}",
            f"{one.delta:+.4f}",
            str(one.changed),
        )
        for one in PUBLISHED
    ]
    lines += aligned([_COLUMNS, *rows], left=1)
    for title, found in (("from the recorded rewards", recorded), ("with this model, exactly", exact)):
        if found is not None:
            lines += ["", title, "", *_found_lines(found)]
    # exact changes count what rounding of the recorded rewards hides
    last = exact or recorded
    return "\n".join(lines) + "\n\n" + reading(() if last is None else last.sets)


def _found_lines(found: Reproduction) -> Iterator[str]:
    yield from aligned([_FULL, *map(_cells, found.sets)], left=1)
    for pair in found.pairs:
        size = f"{pair.pairs} pairs of {pair.prompts} prompts"
        yield (
            f"  {pair.label}: pair accuracy {pair.before:.3f} before, {pair.after:.3f} after "
            f"({size}; {pair.flips.gained} prompts gain, {pair.flips.lost} lose)"
        )


def _cells(one: RecordedSet) -> tuple[str, ...]:
    return (
        one.label,
        f"{one.n:,}",
        f"{one.before:+.4f}",
        f"{one.after:+.4f}",
        interval(one.change, "+.5f"),
        number(one.change_sd, "+.3f"),
        f"{one.changed:,}",
        f"{one.risen:,}",
        f"{one.active:,}",
    )


def reading(found: Sequence[RecordedSet] = ()) -> str:
    """Why the published sign was misread, with counts where rewards are given."""
    changed, risen = (sum(getattr(one, name) for one in found) for name in ("changed", "risen"))
    counts = f" Of the {changed:,} rewards that changed, {risen:,} rose." if changed else ""
    text = (
        "Why the sign was misread: the five latents have negative weights and are active on unsafe answers. "
        "They lower the reward of those answers, so they protect. Multiplying them by 0 raises the reward of "
        f"unsafe answers: that is the rise of the two rejected means.{counts} It was called a safety gain "
        "because a negative weight was taken for harm. Whether a latent harms is the sign of "
        "w (z of chosen - z of rejected), never that of w alone. The changes are 0.02 to 0.03 SD, most of "
        "them one or two steps of bfloat16, and pair accuracy did not change (0.934 and 0.954, as before)."
    )
    return textwrap.fill(text, 110) + "\n"
