"""What a mend is: its edits, what they leave of each price, what they cost, and other ways beside them.

All figures of a `Point` are of prompts that chose nothing.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from sarm_control.auditing.audit_json import finite
from sarm_control.auditing.causal_prices import CausalPrice
from sarm_control.auditing.certificates import Movement
from sarm_control.auditing.mending.guard import Guard
from sarm_control.control import Edit
from sarm_control.statistics import Interval


class Left(NamedTuple):
    """What is left of the causal price of one text edit.

    Args:
        attribute: its name.
        edit: what was done to the text.
        before: the price by the reward as it is, in its SDs.
        after: the price by the mended reward, in SDs of that.
    """

    attribute: str
    edit: str
    before: CausalPrice
    after: CausalPrice


class Slope(NamedTuple):
    """How the reward goes with an attribute over answers as they are, for one SD of it within prompts.

    Args:
        attribute: its name.
        before: by the reward as it is, in its SDs.
        after: by the mended reward, in SDs of that.
    """

    attribute: str
    before: float
    after: float


class Point(NamedTuple):
    """One way at one strength, on the prompts that chose nothing.

    Args:
        strength: 0..1.
        left: of the targeted attributes' prices.
        guard: the accuracy on pairs; None without pairs.
        slopes: on the targeted attributes.
    """

    strength: float
    left: tuple[Left, ...]
    guard: Guard | None
    slopes: tuple[Slope, ...] = ()

    @property
    def worst(self) -> float:
        """The largest price that is left, whatever its sign, SDs."""
        return max(abs(one.after.sd) for one in self.left)


class Outcome(NamedTuple):
    """One way to mend.

    Args:
        name: of the way, see `mended_rewards`.
        words: what it does.
        strength: what was chosen on the other prompts; 0 where no strength is within the guard.
        frontier: strengths against prices and accuracy, ascending.
    """

    name: str
    words: str
    strength: float
    frontier: tuple[Point, ...]

    @property
    def chosen(self) -> Point | None:
        """At the strength that was chosen; None where none was."""
        return next((point for point in self.frontier if point.strength == self.strength), None)


@dataclass(frozen=True)
class Mend:
    """Edits that take the price of attributes away.

    Args:
        targets: names of the attributes.
        edits: of latents; none where no strength is within the guard.
        outcome: what they do.
        others: other ways on the same prompts.
        recommended: whether they keep the guard on prompts that chose nothing.
        why: why, or why not, in a sentence.
        certificate: what else moves under best-of-N; empty where there are too few answers.
        missing: what was not measured.
        fingerprint: of the head the edits are for.
        guard: points of accuracy that were allowed.
    """

    targets: tuple[str, ...]
    edits: tuple[Edit, ...]
    outcome: Outcome
    others: tuple[Outcome, ...]
    recommended: bool
    why: str
    certificate: tuple[Movement, ...]
    missing: tuple[str, ...]
    fingerprint: str
    guard: float

    @property
    def better(self) -> str | None:
        """A sentence about the other way that changes accuracy most, where that is clearly more than ours.

        Clearly: on the same prompts the whole interval of its change lies above the mean change by the edits.
        """
        own = _change(self.outcome)
        if own is None:
            return None
        known = [(change, one) for one in self.others if (change := _change(one)) is not None]
        clear = [(change, one) for change, one in known if change.given and change.low > own.mean]
        if not clear:
            return None
        change, one = max(clear, key=lambda pair: pair[0].mean)
        mean, low, high, edits = (100 * part for part in (change.mean, change.low, change.high, own.mean))
        return (
            f"On the same prompts accuracy changes by {mean:+.1f} points [{low:+.1f}, {high:+.1f}] with "
            f"{one.words}, by {edits:+.1f} with these edits: look at that way first."
        )

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; null where there is no number."""
        return {
            "targets": list(self.targets),
            "recommended": self.recommended,
            "why": self.why,
            "better": self.better,
            "guard_points": self.guard,
            "head": self.fingerprint,
            "edits": [str(edit) for edit in self.edits],
            "ways": [_outcome_json(one) for one in (self.outcome, *self.others)],
            "certificate": [
                {**one._asdict(), "low": finite(one.low), "high": finite(one.high)}
                for one in self.certificate
            ],
            "missing": list(self.missing),
        }


def _change(one: Outcome) -> Interval | None:
    """Of accuracy on pairs, at the strength that was chosen."""
    point = one.chosen
    return None if point is None or point.guard is None else point.guard.change


def _outcome_json(one: Outcome) -> dict[str, Any]:
    frontier = [
        {
            "strength": point.strength,
            "left": [
                {
                    "attribute": left.attribute,
                    "edit": left.edit,
                    "before": _price_json(left.before),
                    "after": _price_json(left.after),
                }
                for left in point.left
            ],
            "slopes": [one._asdict() for one in point.slopes],
            "guard": None if point.guard is None else _guard_json(point.guard),
        }
        for point in one.frontier
    ]
    return {"name": one.name, "words": one.words, "strength": one.strength, "frontier": frontier}


def _price_json(one: CausalPrice) -> dict[str, Any]:
    return {**{key: finite(getattr(one, key)) for key in ("sd", "low", "high", "rises")}, "n": one.n}


def _guard_json(one: Guard) -> dict[str, Any]:
    return {
        "before": one.before,
        "after": one.after,
        "change": one.change.as_json(),
        "flips": one.flips.as_json(),
    }
