"""A probe as text for people, and as fields of the rows it was made on."""

from collections.abc import Iterator, Sequence
from typing import Any

from sarm_control.control.edits import Edit
from sarm_control.conversation.rows import Row
from sarm_control.evaluation.probe import Preference, Probe, Side
from sarm_control.evaluation.scored_rows import in_row
from sarm_control.evaluation.text_table import aligned, counted, interval, number, percent

_COLUMNS = ("", "answers", "active", "changed", "before", "after", "change, 95 % interval", "SDs")


def probe_text(found: Probe, edits: Sequence[Edit]) -> str:
    """What the edits do, in a table and two lines about pairs; no effect is said as such."""
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
    """Each row's own fields followed by what the edits do to its answers.

    An answer gains `before` and `after`, its rewards without and with the edits, `delta`, their exact
    difference, and `active`, whether an edited latent was active. A pair holds lists of such
    objects in `chosen_probe` and `rejected_probe`, a row of candidates in `candidate_probe`.
    """
    number_of = iter(range(len(found.before)))
    for row in rows:
        yield in_row(row, [_answer(found, next(number_of)) for _ in row.answers], "probe")


def _answer(found: Probe, j: int) -> dict[str, Any]:
    before, delta = float(found.before[j]), float(found.delta[j])
    return {"before": before, "after": before + delta, "delta": delta, "active": bool(found.active[j])}


def _cells(side: Side, sd: float) -> tuple[str, ...]:
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
