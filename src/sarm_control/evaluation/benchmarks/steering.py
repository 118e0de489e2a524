"""The effect of edits on the answers at which they aim, and on all others.

The *target* is the set of units of the benchmark at which an edit aims; the *complement* is everything else
that was scored. An edit is selective when it changes the target and does not change the complement.

Shapes: `N` answers, `U` units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, edit_delta
from sarm_control.errors import DataError
from sarm_control.evaluation.answer_places import AnswerTable, Floats, answer_table
from sarm_control.evaluation.benchmarks.benchmark import Benchmark
from sarm_control.evaluation.benchmarks.matched_edits import among_matched_edits
from sarm_control.evaluation.probing.probe import edited_active, spread
from sarm_control.latents import ScoredRows
from sarm_control.notebooks import data_frame, ends_of
from sarm_control.statistics import SETS, AmongSets, Interval, mean_interval, size_ratio

Mask = NDArray[np.bool_]


class GroupShift(NamedTuple):
    """The effect of the edits on one group of answers. Every prompt counts once in the intervals.

    Args:
        name: such as "target, chosen".
        answers: number of answers.
        active: share of them in which an edited latent is active before the edit.
        changed: share of them whose reward changes.
        before: mean reward without the edits.
        after: mean reward with them.
        change: mean difference, reward units.
        change_sd: the difference in SDs of the unedited reward over all answers.
    """

    name: str
    answers: int
    active: float
    changed: float
    before: float
    after: float
    change: Interval
    change_sd: float | None

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**self._asdict(), "change": self.change.as_json()}


@dataclass(frozen=True)
class Steering:
    """Edits on target and complement.

    Args:
        groups: target and complement, each also with its chosen and rejected answers separately.
        selectivity: |mean change of the target| / |mean change of the complement|, with its interval;
            None without a complement, and where the complement does not change at all. Where the
            complement's interval contains 0, the upper end has no meaning.
            The paper's 4.6 is another measure: its changes of +0.28 and +0.04 SD give 7 (6.1 to 8.1 with
            their rounding). They would give 4.6 in SDs of each group's own, were the complement's 1.5 times
            the target's.
        reward_sd: SD (n - 1) of the unedited reward over all answers.
        matched: "margin" and "accuracy": the places of the changes of the target's mean margin and of its
            main figure among the same edits on matched random latents.
        unmatched: the reason why there is no such comparison, when there is none.
    """

    groups: tuple[GroupShift, ...]
    selectivity: Interval | None
    reward_sd: float
    matched: Mapping[str, AmongSets]
    unmatched: str | None

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "groups": [group.as_json() for group in self.groups],
            "selectivity": None if self.selectivity is None else self.selectivity.mean,
            "selectivity_interval": None if self.selectivity is None else self.selectivity.as_json(),
            "reward_sd": self.reward_sd,
            "matched_sets": {name: one.as_json() for name, one in self.matched.items()},
            "unmatched": self.unmatched,
        }

    def to_pandas(self) -> Any:
        """A pandas frame with a row for each group of answers.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            ({**one._asdict(), **ends_of(change=one.change), "prompts": one.change.n} for one in self.groups),
            "name",
        )


def steering(
    data: ScoredRows,
    benchmark: Benchmark,
    target: Mask,
    edits: Sequence[Edit],
    *,
    sets: int = SETS,
    seed: int = 0,
) -> Steering:
    """Measures the effect of edits on target and complement.

    Args:
        data: the benchmark's rows, then any further rows, which belong to the complement.
        benchmark: made from the first of these rows.
        target: [U] the units at which the edits aim.
        edits: at most one per latent.
        sets: number of random sets for the comparison.
        seed: of the sets.
    """
    table = answer_table(data.rows, len(data.scored))
    own = len(benchmark.unit_of_answer)
    inside = np.zeros(len(data.scored), dtype=bool)
    inside[:own] = target[benchmark.unit_of_answer]
    before = data.scored.rewards.astype(np.float64)
    delta = edit_delta(data.scored, edits)
    active = edited_active(data, edits)
    # of all answers and not of each group: the groups' own SDs differ, and a change could be larger in SDs
    # where it is smaller in rewards
    sd = spread(before)
    groups = []
    for place, members in (("target", inside), ("complement", ~inside)):
        for role, chosen in _roles(table, members):
            name = place if role is None else f"{place}, {role}"
            groups.append(_shift(name, table, chosen, before, delta, active, sd))
    selectivity = _selectivity(table, inside, delta)
    # the other figures are valid without matched sets, so their failure is only recorded
    try:
        matched = among_matched_edits(data, benchmark, target, edits, sets=sets, seed=seed)
    except DataError as error:
        return Steering(tuple(groups), selectivity, sd, {}, str(error))
    return Steering(tuple(groups), selectivity, sd, matched, None)


def _roles(table: AnswerTable, members: Mask) -> list[tuple[str | None, Mask]]:
    """All members, then the chosen and the rejected ones where there are any."""
    roles = [(role, members & (table.role == role)) for role in ("chosen", "rejected")]
    return [(role, chosen) for role, chosen in ((None, members), *roles) if chosen.any()]


def _shift(
    name: str,
    table: AnswerTable,
    chosen: Mask,
    before: Floats,
    delta: Floats,
    active: Mask,
    sd: float,
) -> GroupShift:
    def means(values: Floats) -> Floats:
        return _means(table, values, chosen)

    change = mean_interval(means(delta))
    return GroupShift(
        name,
        int(chosen.sum()),
        float(active[chosen].mean()),
        float((delta[chosen] != 0).mean()),
        float(means(before).mean()),
        float(means(before + delta).mean()),
        change,
        change.mean / sd if sd else None,
    )


def _means(table: AnswerTable, values: Floats, chosen: Mask) -> Floats:
    """The mean over the `chosen` answers of each prompt that has one."""
    means = table.prompt_means(values, chosen)
    return means[np.isfinite(means)]


def _selectivity(table: AnswerTable, inside: Mask, delta: Floats) -> Interval | None:
    target, complement = _means(table, delta, inside), _means(table, delta, ~inside)
    # a ratio to nothing: an edit that leaves the complement exactly alone is as
    # selective as can be, and has no number
    if not len(complement) or not complement.mean():
        return None
    return size_ratio(target, complement)
