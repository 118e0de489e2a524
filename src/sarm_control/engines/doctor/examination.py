"""The calls that are made to an engine's reward, and the points that are checked in what it returns.

Shapes: `N` answers of a call.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sarm_control.data import Prompt
from sarm_control.engines.reward.controlled_reward import ControlledReward

TOLERANCE = 1e-6
TOTAL = "reward/total"


class DoctorSample(NamedTuple):
    """An answer to be scored; `ended` is false where it hit the length limit."""

    what: str
    prompt: Prompt
    response: str
    ended: bool = True


_QUESTION = "hello , how do i paint a shirt ?"
SAMPLES = (
    DoctorSample("messages", [{"role": "user", "content": _QUESTION}], "first stir the flour ."),
    DoctorSample("plain prompt", "please , what is the size of the garden ?", "no , i will not do that ."),
    DoctorSample(
        "messages, cut off", [{"role": "user", "content": _QUESTION}], "first stir the", ended=False
    ),
)
"""The answers that every adapter is asked about, in words that the lab and any other reward model knows."""


@dataclass(frozen=True)
class Call:
    """One call of an adapter.

    Args:
        sent: the arguments, as an engine writes them.
        got: what was returned, unchanged.
        rewards: [N] the numbers that the engine would train on.
        logs: name -> number, or [N] numbers, that the engine would log.
    """

    sent: Any
    got: Any
    rewards: tuple[float, ...]
    logs: Mapping[str, Any]


class Adapter(Protocol):
    """One way an engine asks for rewards."""

    @property
    def name(self) -> str:
        """The name of this way, as the report shows it."""

    @property
    def reports_end(self) -> bool:
        """Whether the engine's call contains that an answer was cut off."""

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        """Makes the calls that an engine would make for these answers, in their order."""


class Point(NamedTuple):
    """A point that is checked; `good` is None where it cannot be checked."""

    name: str
    good: bool | None
    found: str


@dataclass(frozen=True)
class AdapterExamination:
    """The calls to one adapter, and the points that were checked in them."""

    adapter: str
    calls: tuple[Call, ...]
    points: tuple[Point, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not any(point.good is False for point in self.points)


def examine(adapter: Adapter, expected: ControlledReward | None = None) -> AdapterExamination:
    """Asks for the rewards of the built-in answers as the engine would.

    Args:
        adapter: the way to ask that is examined.
        expected: the same reward in this process; the two are compared.
    """
    try:
        calls = adapter.ask(SAMPLES)
        # asked three times: a reward that depends on its batch, its order or on what was asked before
        # is caught
        again, turned = adapter.ask(SAMPLES), adapter.ask(SAMPLES[::-1])
        points = _points(adapter, calls, again, turned, expected)
    except Exception as error:  # of any type: the engine would get it too
        hint = getattr(error, "hint", None)
        found = f"{type(error).__name__}: {error}" + (f"; {hint}" if hint else "")
        return AdapterExamination(adapter.name, (), (Point("an answer, not an error", False, found),))
    return AdapterExamination(adapter.name, tuple(calls), tuple(points))


def _points(
    adapter: Adapter,
    calls: Sequence[Call],
    again: Sequence[Call],
    turned: Sequence[Call],
    expected: ControlledReward | None,
) -> list[Point]:
    return [
        _numbers(calls),
        _same(calls, again),
        _order(calls, turned),
        _names([*calls, *again, *turned]),
        _parts(calls),
        _end(adapter, expected),
        _library(adapter, calls, expected),
    ]


def rewards_of(calls: Sequence[Call]) -> list[float]:
    """[N] the rewards of all calls, in order."""
    return [reward for call in calls for reward in call.rewards]


def library_rewards(reward: ControlledReward, samples: Sequence[DoctorSample]) -> list[float]:
    """[N] the rewards that are computed in this process."""
    scored = reward.score(
        [one.prompt for one in samples], [one.response for one in samples], [one.ended for one in samples]
    )
    return [float(value) for value in reward.values(reward.breakdown(scored))]


def _numbers(calls: Sequence[Call]) -> Point:
    found = rewards_of(calls)
    finite = sum(math.isfinite(value) for value in found)
    good = finite == len(found) == len(SAMPLES)
    return Point("a finite number for each answer", good, f"{finite} for {len(SAMPLES)} answers")


def _same(calls: Sequence[Call], again: Sequence[Call]) -> Point:
    apart = _apart(rewards_of(calls), rewards_of(again))
    return Point("the same answer, the same number", apart <= TOLERANCE, f"apart by {apart:.2g}")


def _order(calls: Sequence[Call], turned: Sequence[Call]) -> Point:
    apart = _apart(rewards_of(calls), rewards_of(turned)[::-1])
    return Point("the same in another order", apart <= TOLERANCE, f"apart by {apart:.2g}")


def _names(calls: Sequence[Call]) -> Point:
    name, names = "the same names of numbers to log", {frozenset(call.logs) for call in calls}
    # engines stack the logs of a batch into columns, which needs every name in every answer
    if len(names) > 1:
        return Point(name, False, f"{len(names)} different sets in {len(calls)} calls")
    count = len(calls[0].logs)
    if not count:
        return Point(name, None, "this form has no field for them")
    return Point(name, True, f"{count} names in each of {len(calls)} calls")


def _parts(calls: Sequence[Call]) -> Point:
    """Checks that the logged parts of the reward sum to it; a single number for a batch is its mean."""
    name = "the parts sum to the reward"
    if any(TOTAL not in call.logs for call in calls):
        return Point(name, None, "this form has no field for parts")
    worst = 0.0
    for call in calls:
        parts = [key for key in call.logs if key.startswith("reward/") and key != TOTAL]
        for place in range(_width(call.logs)):
            total = _at(call.logs[TOTAL], place)
            worst = max(worst, abs(sum(_at(call.logs[key], place) for key in parts) - total))
    return Point(name, worst <= TOLERANCE, f"apart by {worst:.2g}")


def _end(adapter: Adapter, expected: ControlledReward | None) -> Point:
    """Checks that a cut answer and the same answer with an end differ: in a flag, or in a penalty."""
    name, cut = "an answer that was cut off is seen", SAMPLES[-1]
    if not adapter.reports_end:
        return Point(name, None, "this form does not say so")
    open_, closed = (adapter.ask([cut._replace(ended=ended)])[0] for ended in (False, True))
    if "ended" in open_.logs:
        flags = _at(open_.logs["ended"], 0), _at(closed.logs["ended"], 0)
        return Point(name, flags == (0.0, 1.0), f"ended {flags[0]:g}, and {flags[1]:g} with an end token")
    # this form has no flag to show, so the only sign of it is a penalty
    amount = closed.rewards[0] - open_.rewards[0]
    if amount == 0.0 and (expected is None or expected.rule.missing_end == 0.0):
        return Point(name, None, "cannot be checked: there is no penalty for it")
    return Point(name, amount > 0, f"penalty {amount:.4g}")


def _library(adapter: Adapter, calls: Sequence[Call], expected: ControlledReward | None) -> Point:
    name = "equal to the library's reward"
    if expected is None:
        return Point(name, None, "not compared: give the server's --controls")
    # a form that does not say how an answer ended is read as if all had
    samples = SAMPLES if adapter.reports_end else [one._replace(ended=True) for one in SAMPLES]
    apart = _apart(rewards_of(calls), library_rewards(expected, samples))
    return Point(name, apart <= TOLERANCE, f"apart by {apart:.2g}")


def _apart(left: Sequence[float], right: Sequence[float]) -> float:
    if len(left) != len(right):
        return math.inf
    return max((abs(a - b) for a, b in zip(left, right, strict=True)), default=math.inf)


def _width(logs: Mapping[str, Any]) -> int:
    return len(logs[TOTAL]) if isinstance(logs[TOTAL], list) else 1


def _at(value: Any, place: int) -> float:
    return float(value[place] if isinstance(value, list) else value)
