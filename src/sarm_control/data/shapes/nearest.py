"""The form that a row nobody can read is nearest to, and the command that says it."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sarm_control.data.shapes.columns import NAMES
from sarm_control.data.shapes.options import RowOptions

_ALSO_CALLED = {
    "prompt": ("query", "question", "input", "instruction", "user", "request", "context", "problem", "text"),
    "response": ("reply", "output", "completion", "assistant", "answer", "generation", "solution", "target"),
    "chosen": ("best", "better", "preferred", "winner", "positive", "accepted", "response_chosen"),
    "rejected": ("worst", "worse", "dispreferred", "loser", "negative", "response_rejected"),
    "candidates": ("responses", "completions", "answers", "outputs", "generations"),
    "messages": ("conversation", "dialogue", "dialog", "chat", "turns"),
}
_FORMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("pair", ("prompt", "chosen", "rejected")),
    ("candidates", ("prompt", "candidates")),
    ("answer", ("prompt", "response")),
    ("answer", ("messages",)),
    ("prompt", ("prompt",)),
)


def nearest_form(
    raw: Mapping[str, Any], want: Collection[str], path: Path, options: RowOptions
) -> str | None:
    """What to type for a row that has no prompt or no answer; None when nothing in it is near.

    Args:
        raw: its fields.
        want: the kinds of row that can be used.
        path: its file.
        options: the names that were given for its fields.
    """
    # what messages call rows in memory is no name that a command takes
    is_in_memory = str(path).startswith("<")
    lacking = [f"{own} from {theirs}" for own, theirs in options.columns if raw.get(theirs) is None]
    if lacking:
        return f"--columns reads {', '.join(lacking)}, which the row does not have"
    for kind, names in _FORMS:
        if kind in want:
            found = _matched(raw, names)
            if found is not None:
                given = ",".join(f"{own}={theirs}" for own, theirs in found.items() if own != theirs)
                columns = f" --columns {given}" if given else ""
                form = " + ".join(names)
                if is_in_memory:
                    pairs = tuple((own, theirs) for own, theirs in found.items() if own != theirs)
                    return f"the nearest form is {form}: options=RowOptions(columns={pairs})"
                return f"the nearest form is {form}: sarm data convert {path}{columns} -o rows.jsonl"
    if is_in_memory:
        return 'options=RowOptions(columns=(("prompt", THEIRS),)) gives other names'
    return f"sarm data check {path} says what the rows are; --columns prompt=THEIRS gives other names"


def _matched(raw: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str] | None:
    """A field of the row for each name, or None."""
    found: dict[str, str] = {}
    for name in names:
        free = [field for field in raw if raw[field] is not None and field not in found.values()]
        near = [name] if name in free else _near(name, free)
        if not near:
            return None
        found[name] = near[0]
    return found


def _near(name: str, fields: list[str]) -> list[str]:
    # others could not be named in `--columns A=B,C=D`
    writable = [field for field in fields if "," not in field and "=" not in field]
    folded = {field.lower().replace("-", "_"): field for field in writable}
    known = [folded[other] for other in _ALSO_CALLED.get(name, ()) if other in folded]
    others = [field for field in folded if field not in NAMES or field == name]
    close = [folded[other] for other in difflib.get_close_matches(name, others, n=1, cutoff=0.75)]
    return known or close
