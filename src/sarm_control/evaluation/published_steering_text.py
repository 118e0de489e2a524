"""The published steering run beside recorded and exact figures, as text."""

import textwrap
from collections.abc import Iterator, Sequence

from sarm_control.evaluation.published_steering import PUBLISHED, RecordedSet, Reproduction
from sarm_control.evaluation.text_table import aligned, interval, number
from sarm_control.evaluation.verification import PUBLISHED_STEERED_LATENTS

_COLUMNS = ("", "n", "before", "after", "change", "changed")
_FULL = ("", "n", "before", "after", "change, 95 % interval", "SDs", "changed", "risen", "active")


def published_text(recorded: Reproduction | None = None, exact: Reproduction | None = None) -> str:
    """The published table, the same from recorded rewards, the same from a model at hand, and the reading.

    Args:
        recorded: from the recorded rewards, when they are given.
        exact: from a model, when it is given.
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
    """Why the published sign was misread; with counts where rewards are at hand."""
    changed, risen = (sum(getattr(one, name) for one in found) for name in ("changed", "risen"))
    counts = f" Of the {changed:,} rewards that changed, {risen:,} rose." if changed else ""
    text = (
        "Why the sign was misread: the five latents have negative weights and are active on unsafe answers. "
        "They charge those answers, so they protect. Multiplying them by 0 drops the charge and pays unsafe "
        f"answers more: that is the rise of the two rejected means.{counts} It was called a safety gain "
        "because a negative weight was taken for harm. What a latent does is the sign of "
        "w (z of chosen - z of rejected), never that of w alone. The changes are 0.02 to 0.03 SD, most of "
        "them one or two steps of bfloat16, and pair accuracy did not move (0.934 and 0.954, as before)."
    )
    return textwrap.fill(text, 110) + "\n"
