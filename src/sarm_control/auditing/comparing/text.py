"""Changes of prices, and what a run did, in sentences and tables for a terminal."""

from collections.abc import Iterator, Sequence

from sarm_control.auditing.comparing.price_changes import PriceChange, PriceChanges
from sarm_control.auditing.comparing.run_samples import RunMovement
from sarm_control.console import aligned


def changes_text(found: PriceChanges, old: str) -> str:
    """The prices that changed surely, first in sentences, and the table of all.

    Args:
        found: the changes.
        old: what the earlier reward model is called.
    """
    return "\n".join(_changes(found, old)) + "\n"


def run_text(found: Sequence[RunMovement]) -> str:
    """What moved in a run, and whether it had been certified as still."""
    return "\n".join(_run(found)) + "\n"


def _changes(found: PriceChanges, old: str) -> Iterator[str]:
    sure = [one for one in found.changes if one.sure]
    if not sure:
        yield f"Beside {old}, no price changed surely ({len(found.changes)} attributes were compared)."
    for one in sure:
        way = "more" if one.change > 0 else "less"
        yield f"It pays {way} for {one.name} than {old}: {_with_ends(one)} (n = {one.n} prompts, {one.kind})."
    yield f"prices beside {old}, each in SDs of its own reward (*: q <= 5 %)"
    rows = [["attribute", "price", "before", "now", "change", "n"]]
    for one in found.changes:
        mark = "*" if one.sure else ""
        rows.append(
            [one.name, one.kind, f"{one.old:+.2f}", f"{one.new:+.2f}", _with_ends(one) + mark, str(one.n)]
        )
    yield from aligned(rows, left=2)


def _with_ends(one: PriceChange) -> str:
    return f"{one.change:+.2f} SD [{one.low:+.2f}, {one.high:+.2f}]"


def _run(found: Sequence[RunMovement]) -> Iterator[str]:
    broken = [one.name for one in found if one.broken]
    known = [one for one in found if one.certified is not None]
    if broken:
        yield f"Certified as still, and moved in the run: {', '.join(broken)}."
    elif known and not (still := sum(one.certified == "still" for one in known)):
        yield "The certificate had called no attribute still, so there is nothing for the run to break."
    elif known:
        yield f"Of {still} attributes certified as still none surely moved by more than it allows."
    first, last = (found[0].first, found[0].last) if found else (0, 0)
    yield (
        f"what the run did: {first} samples of its first quarter of steps against {last} of its last "
        "(bounds hold together in 95 of 100)"
    )
    rows = [["attribute", "before", "after", "change", "bounds", "verdict", "certified"]]
    for one in found:
        bounds = f"[{one.low:+.3f}, {one.high:+.3f}]"
        values = f"{one.before:.3g}", f"{one.after:.3g}", f"{one.change:+.3f}"
        rows.append([one.name, *values, bounds, one.verdict, one.certified or "-"])
    yield from aligned(rows, left=1)
