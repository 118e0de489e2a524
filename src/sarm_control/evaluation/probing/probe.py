"""Probes: the effect of edits on the rewards of given answers, as numbers, as text and as fields of rows.

The answers are scored once; the change is algebra on their latents (`control.edit_delta`).

Shapes: `N` answers, `P` prompts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.console import aligned
from sarm_control.control import Edit, edit_delta, edited_rewards
from sarm_control.data import Row
from sarm_control.evaluation.annotated_rows import in_row
from sarm_control.evaluation.answer_places import AnswerTable, Floats, answer_table
from sarm_control.evaluation.preferences import pair_accuracy
from sarm_control.latents import ScoredRows
from sarm_control.notebooks import data_frame, ends_of
from sarm_control.statistics import (
    Flips,
    Interval,
    change_of_shares,
    counted,
    flips,
    interval,
    mean_interval,
    number,
    percent,
    share_interval,
)

SIDES = {"response": "answers", "chosen": "chosen", "rejected": "rejected", "candidate": "candidates"}
"""The name of the answers of each role."""


@dataclass(frozen=True)
class EditedSide:
    """The effect of the edits on answers of one role. Every prompt counts once in the intervals.

    Args:
        name: "answers", "chosen", "rejected" or "candidates".
        answers: number of answers.
        active: share of them in which an edited latent is active before the edit.
        changed: share of them whose reward changes.
        before: mean reward without the edits.
        after: mean reward with them.
        delta: mean difference, after - before.
    """

    name: str
    answers: int
    active: float
    changed: float
    before: Interval
    after: Interval
    delta: Interval


@dataclass(frozen=True)
class Preference:
    """The effect of the edits on the preference between chosen and rejected answers.

    Args:
        margin_before: mean over prompts of mean chosen minus mean rejected reward.
        margin_after: the same with the edits.
        margin_delta: their difference.
        accuracy_before: mean over prompts of the share of pairs in which chosen has the strictly higher
            reward.
        accuracy_after: the same with the edits.
        accuracy_delta: their difference.
        flips: prompts whose accuracy rose or fell.
    """

    margin_before: Interval
    margin_after: Interval
    margin_delta: Interval
    accuracy_before: Interval
    accuracy_after: Interval
    accuracy_delta: Interval
    flips: Flips


@dataclass(frozen=True)
class Probe:
    """The effect of edits on N answers.

    Args:
        before: [N] rewards without the edits.
        delta: [N] exact change of the reward.
        active: [N] whether an edited latent is active before the edit.
        sides: one for each role that occurs.
        preference: for pairs, else None.
        reward_sd: SD (n - 1) of the rewards without the edits, the unit of "SDs"; 0 for one answer.
        prompts: number of distinct prompts.
    """

    before: Floats
    delta: Floats
    active: NDArray[np.bool_]
    sides: tuple[EditedSide, ...]
    preference: Preference | None
    reward_sd: float
    prompts: int

    def as_json(self) -> dict[str, Any]:
        """Counts and summaries as a JSON object, without the answers."""
        sides = {side.name: _side_json(side, self.reward_sd) for side in self.sides}
        preference = None
        if self.preference is not None:
            preference = {name: value.as_json() for name, value in vars(self.preference).items()}
        counts = {"answers": len(self.before), "prompts": self.prompts, "reward_sd": self.reward_sd}
        return {**counts, "sides": sides, "preference": preference}

    def to_pandas(self) -> Any:
        """A pandas frame with a row for the answers of each role: shares, rewards and their change.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            (
                {
                    "side": side.name,
                    "answers": side.answers,
                    "prompts": side.delta.n,
                    "active": side.active,
                    "changed": side.changed,
                    **ends_of(before=side.before, after=side.after, delta=side.delta),
                }
                for side in self.sides
            ),
            "side",
        )


def probe(data: ScoredRows, edits: Sequence[Edit]) -> Probe:
    """Measures the effect of edits on scored rows.

    Args:
        data: rows and the scores of their answers.
        edits: at most one per latent, all of latents that the reward model has.

    Raises:
        DataError: the number of scores is not the number of answers.
    """
    table = answer_table(data.rows, len(data.scored))
    before = data.scored.rewards.astype(np.float64)
    # the change itself and not a difference of two rewards, whose rounding may be as large as it
    delta = edit_delta(data.scored, edits)
    active = edited_active(data, edits)
    present = [role for role in SIDES if (table.role == role).any()]
    sides = tuple(_side(table, role, before, delta, active) for role in present)
    preference = None
    if "chosen" in present:
        preference = _preference(table, before, delta, edited_rewards(data.scored, edits))
    return Probe(before, delta, active, sides, preference, spread(before), table.prompts)


def edited_active(data: ScoredRows, edits: Sequence[Edit]) -> NDArray[np.bool_]:
    """[N] whether any of the edited latents is active (not 0) before the edit."""
    if not edits:
        return np.zeros(len(data.scored), dtype=bool)
    values = data.scored.latents.columns([edit.latent for edit in edits])
    return np.asarray((values != 0).any(axis=1))


def spread(rewards: Floats) -> float:
    """The SD (n - 1) of N rewards; 0 for fewer than two."""
    return float(rewards.std(ddof=1)) if len(rewards) > 1 else 0.0


def _side(
    table: AnswerTable, role: str, before: Floats, delta: Floats, active: NDArray[np.bool_]
) -> EditedSide:
    chosen = table.role == role

    def mean(values: Floats) -> Interval:
        # a prompt without an answer of this role has no mean
        means = table.prompt_means(values, chosen)
        return mean_interval(means[np.isfinite(means)])

    return EditedSide(
        name=SIDES[role],
        answers=int(chosen.sum()),
        active=float(active[chosen].mean()),
        changed=float((delta[chosen] != 0).mean()),
        before=mean(before),
        after=mean(before + delta),
        delta=mean(delta),
    )


def _preference(table: AnswerTable, before: Floats, delta: Floats, after: Floats) -> Preference:
    margins = [prompt_margins(table, values) for values in (before, before + delta, delta)]
    # `after` is summed again from contributions, so that answers made equal by the edits tie in accuracy
    accuracy = [prompt_accuracy(table, values) for values in (before, after)]
    margin_before, margin_after, margin_delta = (mean_interval(values) for values in margins)
    return Preference(
        margin_before,
        margin_after,
        margin_delta,
        share_interval(accuracy[0]),
        share_interval(accuracy[1]),
        change_of_shares(*accuracy),
        flips(*accuracy),
    )


def prompt_margins(table: AnswerTable, rewards: Floats) -> Floats:
    """[P'] mean chosen minus mean rejected reward of every prompt that has pairs."""
    sides = [table.prompt_means(rewards, table.role == role) for role in ("chosen", "rejected")]
    margins = sides[0] - sides[1]
    return margins[np.isfinite(margins)]


def prompt_accuracy(table: AnswerTable, rewards: Floats) -> Floats:
    """[P'] share of pairs in which chosen has the strictly higher reward, averaged over a prompt's rows."""
    sides = [table.by_row(rewards, role) for role in ("chosen", "rejected")]
    pairs = [row for row in range(len(sides[0])) if len(sides[0][row]) and len(sides[1][row])]
    shares = pair_accuracy([sides[0][row] for row in pairs], [sides[1][row] for row in pairs])
    prompts = table.row_prompts()[pairs]
    counts = np.bincount(prompts, minlength=table.prompts)
    sums = np.bincount(prompts, weights=shares, minlength=table.prompts)
    return sums[counts > 0] / counts[counts > 0]


def _side_json(side: EditedSide, sd: float) -> dict[str, Any]:
    means = {name: getattr(side, name).as_json() for name in ("before", "after", "delta")}
    in_sds = side.delta.mean / sd if sd else None
    counts = {"answers": side.answers, "active": side.active, "changed": side.changed}
    return {**counts, **means, "delta_sd": in_sds}


_COLUMNS = ("", "answers", "active", "changed", "before", "after", "change, 95 % interval", "SDs")


def probe_text(found: Probe, edits: Sequence[Edit]) -> str:
    """The effect of the edits as a table with two lines about pairs, or a line that there is no effect."""
    edited = ", ".join(map(str, edits))
    size = f"{counted(len(found.before), 'answer')} to {counted(found.prompts, 'prompt')}"
    lines = [f"{counted(len(edits), 'edit')} ({edited}) on {size}, reward SD {found.reward_sd:.4g}", ""]
    lines += aligned([_COLUMNS, *(_cells(side, found.reward_sd) for side in found.sides)], left=1)
    if found.preference is not None:
        lines += ["", *_preference_lines(found.preference, found.reward_sd)]
    if not (found.delta != 0).any():
        lines += ["", "no reward changes: the edited latents have these values already, or none is active"]
    return "\n".join(lines) + "\n"


def probed_rows(rows: Sequence[Row], found: Probe) -> Iterator[dict[str, Any]]:
    """Each row's own fields, followed by the effect of the edits on its answers.

    A row with one answer gets `before` and `after`, its rewards without and with the edits, `delta`, their
    exact difference, and `active`, whether an edited latent was active. A pair gets lists of such objects in
    `chosen_probe` and `rejected_probe`, a row of candidates in `candidate_probe`.
    """
    number_of = iter(range(len(found.before)))
    for row in rows:
        yield in_row(row, [_answer(found, next(number_of)) for _ in row.answers], "probe")


def _answer(found: Probe, j: int) -> dict[str, Any]:
    before, delta = float(found.before[j]), float(found.delta[j])
    return {"before": before, "after": before + delta, "delta": delta, "active": bool(found.active[j])}


def _cells(side: EditedSide, sd: float) -> tuple[str, ...]:
    return (
        side.name,
        f"{side.answers:,}",
        percent(side.active),
        percent(side.changed),
        number(side.before.mean),
        number(side.after.mean),
        interval(side.delta, "+.3g"),
        number(side.delta.mean / sd, "+.3f") if sd else "-",
    )


def _preference_lines(found: Preference, sd: float) -> Iterator[str]:
    sds = f" ({found.margin_delta.mean / sd:+.3f} SD)" if sd else ""
    yield (
        f"margin         {found.margin_before.mean:+.4g} before, {found.margin_after.mean:+.4g} after: "
        f"change {interval(found.margin_delta, '+.3g')}{sds}"
    )
    moved = found.flips
    yield (
        f"pair accuracy  {found.accuracy_before.mean:.3f} before, {found.accuracy_after.mean:.3f} after: "
        f"{moved.gained} of {counted(moved.n, 'prompt')} gain, {moved.lost} lose "
        f"(exact McNemar p = {moved.p:.2g})"
    )
