"""What a study found: for each world and measure every arm, against the baseline, with intervals.

Nothing is pooled that is not exchangeable: each world has rows of its own. Where the study says that its
worlds are draws of one kind (`pool_worlds`), their mean has an interval over worlds, each world one value.
Rewards are in SDs of the starting policy's answers in that world.

Shapes: `S` seeds, `P` prompts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sarm_control.console import aligned
from sarm_control.study.cells import DONE, Cell, CellState
from sarm_control.study.equal_kl import KlPath
from sarm_control.study.intervals import CrossedInterval, crossed_interval, over_worlds
from sarm_control.study.measures import (
    END,
    GOLD,
    IN_SDS,
    JUDGE,
    KL,
    LABELS,
    RATE,
    RESIDUAL,
    REWARD,
    START,
    STRIPPED,
    CellAnswers,
    Floats,
    read_answers,
)
from sarm_control.study.provenance import commit
from sarm_control.study.study_config import StudyConfig

FORMAT = "sarm-study-1"
SHOWN = (RATE, GOLD, JUDGE, STRIPPED, REWARD, RESIDUAL, KL)
"""Measures of the terminal's table, where the study has them."""

Answers = Mapping[Cell, CellAnswers]


class _Comparison(NamedTuple):
    """An arm minus another, over the seeds that both have."""

    arm: str
    other: str

    @property
    def name(self) -> str:
        return f"{self.arm} - {self.other}"


def study_tables(folder: Path, study: StudyConfig, states: Sequence[CellState]) -> dict[str, Any]:
    """`study.json`: every cell, and the tables.

    Args:
        folder: of the study.
        study: the study.
        states: of all its cells; those that are not done are listed and take no part.
    """
    answers = {
        state.cell: read_answers(state.cell.answers(folder)) for state in states if state.status == DONE
    }
    worlds = {world: _world(study, world, answers) for world in study.worlds}
    return {
        "format": FORMAT,
        "commit": commit(),
        "study": study.model_dump(mode="json"),
        "cells": [_cell_row(state) for state in states],
        "worlds": worlds,
        "over_worlds": _pooled(study, worlds) if study.pool_worlds else None,
    }


def _cell_row(state: CellState) -> dict[str, Any]:
    # a digest for this program alone
    kept = {key: value for key, value in state.record.items() if key != "asked"}
    return {**state.cell._asdict(), "name": state.cell.name, **kept, "status": state.status}


def _world(study: StudyConfig, world: str, answers: Answers) -> dict[str, Any]:
    """The tables of one world, by measure."""
    here = {cell: found for cell, found in answers.items() if cell.world == world}
    names = [name for name in LABELS if any(name in found.names for found in here.values())]
    units = {name: _unit(here, name) for name in names}
    arms = [arm for arm in study.arms if any(cell.arm == arm for cell in here)]
    pairs = [
        _Comparison(arm, study.baseline) for arm in arms if arm != study.baseline and study.baseline in arms
    ]
    # with the baseline every arm is compared already
    pairs += [
        _Comparison(*pair) for pair in study.compare if set(pair) <= set(arms) and pair[1] != study.baseline
    ]
    shares = {arm: _residual_shares(here, arm) for arm in arms} if RESIDUAL in names else None
    return {
        "units": units,
        "measures": {
            name: {
                "arms": {arm: _arm(here, arm, name, units[name]) for arm in arms},
                "against": {pair.name: _against(here, pair, name, units[name]) for pair in pairs},
            }
            for name in names
        },
        **({} if shares is None else {"residual_shares": shares}),
        **_at_levels(study, here, pairs, units),
    }


def _at_levels(
    study: StudyConfig, here: Answers, pairs: Sequence[_Comparison], units: Mapping[str, float]
) -> dict[str, Any]:
    """`at_kl`: the arms of a world at each KL level of the study; nothing without levels."""
    if not study.kl_levels:
        return {}
    paths = {cell: KlPath.of(found) for cell, found in here.items()}
    arms = [arm for arm in study.arms if any(cell.arm == arm for cell in paths)]
    return {
        "at_kl": [
            {
                "level": level,
                "arms": {arm: _arm_at(paths, arm, level, units) for arm in arms},
                "against": {pair.name: _against_at(paths, pair, level, units) for pair in pairs},
            }
            for level in study.kl_levels
        ]
    }


def _arm_at(
    paths: Mapping[Cell, KlPath], arm: str, level: float, units: Mapping[str, float]
) -> dict[str, Any]:
    """An arm at a level; a seed that never gets so far counts with the largest KL that it reached."""
    cells = sorted(cell for cell in paths if cell.arm == arm)
    # left out, the seeds that moved least would be missing, and the mean be that of the others
    kls = [min(level, paths[cell].reached) for cell in cells]
    measures: dict[str, Any] = {}
    for name, unit in units.items():
        ends = [paths[cell].at(kl, name) for cell, kl in zip(cells, kls, strict=True)]
        starts = [paths[cell].at(0.0, name) for cell in cells]
        changes = [
            (end - start) / unit
            for start, end in zip(starts, ends, strict=True)
            if start is not None and end is not None
        ]
        by_seed = [None if end is None else float(end.mean()) for end in ends]
        measures[name] = {"by_seed": by_seed, "change": _interval(changes)}
    return {
        "seeds": [cell.seed for cell in cells],
        "kl": kls,
        "censored": [kl < level for kl in kls],
        "measures": measures,
    }


def _against_at(
    paths: Mapping[Cell, KlPath], pair: _Comparison, level: float, units: Mapping[str, float]
) -> dict[str, Any]:
    """Two arms, seed by seed at the largest KL that both reached, at most the level."""
    both = [{cell.seed: path for cell, path in paths.items() if cell.arm == arm} for arm in pair]
    seeds = sorted(both[0].keys() & both[1].keys())
    kls = [min(level, *(side[seed].reached for side in both)) for seed in seeds]
    measures: dict[str, Any] = {}
    for name, unit in units.items():
        differences = []
        for seed, kl in zip(seeds, kls, strict=True):
            one, two = (side[seed].at(kl, name) for side in both)
            if one is not None and two is not None:
                differences.append((one - two) / unit)
        measures[name] = {
            "by_seed": [float(row.mean()) for row in differences],
            "interval": _interval(differences),
        }
    return {"seeds": seeds, "kl": kls, "censored": [kl < level for kl in kls], "measures": measures}


def _unit(here: Answers, name: str) -> float:
    """What one unit of a table is: the mean SD of the starting policy's answers, or 1."""
    if name not in IN_SDS:
        return 1.0
    own = REWARD if name == RESIDUAL else name
    # over all arms, so that the rows of a world have one unit
    spreads = [spread for found in here.values() if (spread := found.sd_at_start(own)) > 0]
    return float(np.mean(spreads)) if spreads else 1.0


def _arm(here: Answers, arm: str, name: str, unit: float) -> dict[str, Any]:
    """Levels in the measure's own unit; the change in SDs where it has SDs."""
    cells = sorted(cell for cell in here if cell.arm == arm)
    start = [here[cell].by_prompt(name, START) for cell in cells]
    end = [here[cell].by_prompt(name, END) for cell in cells]
    both = [
        (after - before) / unit
        for before, after in zip(start, end, strict=True)
        if before is not None and after is not None
    ]
    return {
        "seeds": [cell.seed for cell in cells],
        "start": _mean(start),
        "end": _mean(end),
        "end_by_seed": [None if one is None else float(one.mean()) for one in end],
        "change": _interval(both),
    }


def _residual_shares(here: Answers, arm: str) -> list[float | None]:
    """By seed, the residual's share of the change of the reward; None where the reward did not rise."""
    shares: list[float | None] = []
    for cell in sorted(cell for cell in here if cell.arm == arm):
        rise = {
            name: float(after.mean() - before.mean())
            for name in (REWARD, RESIDUAL)
            if (before := here[cell].by_prompt(name, START)) is not None
            and (after := here[cell].by_prompt(name, END)) is not None
        }
        known = RESIDUAL in rise and rise[REWARD] > 0
        shares.append(rise[RESIDUAL] / rise[REWARD] if known else None)
    return shares


def _against(here: Answers, pair: _Comparison, name: str, unit: float) -> dict[str, Any] | None:
    """Ends of two arms, for the seeds that both have: same seed, same prompts, same random numbers."""
    # an arm may have seeds of its own: only pairs of runs with one seed are compared
    seeds = sorted(
        {cell.seed for cell in here if cell.arm == pair.arm} & {c.seed for c in here if c.arm == pair.other}
    )
    world = next(iter(here)).world
    differences = []
    for seed in seeds:
        one, two = (here[Cell(world, arm, seed)].by_prompt(name, END) for arm in pair)
        if one is not None and two is not None:
            differences.append((one - two) / unit)
    return _interval(differences)


def _interval(rows: Sequence[Floats]) -> dict[str, Any] | None:
    return None if not rows else crossed_interval(np.stack(rows))._asdict()


def _mean(rows: Sequence[Floats | None]) -> float | None:
    known = [float(row.mean()) for row in rows if row is not None]
    return float(np.mean(known)) if known else None


def _pooled(study: StudyConfig, worlds: Mapping[str, Any]) -> dict[str, Any]:
    """Means over worlds of every comparison and of every arm's change, with the interval over worlds."""
    names = [name for name in LABELS if any(name in world["measures"] for world in worlds.values())]
    found: dict[str, Any] = {}
    for name in names:
        tables = [world["measures"][name] for world in worlds.values() if name in world["measures"]]
        against = dict.fromkeys(key for table in tables for key in table["against"])
        found[name] = {
            "against": {key: _over([table["against"].get(key) for table in tables]) for key in against},
            "change": {
                arm: _over([table["arms"][arm]["change"] for table in tables if arm in table["arms"]])
                for arm in study.arms
            },
        }
    return found


def _over(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    # one value for each world: its runs share a reward model and are no independent draws of shortcuts
    means = [float(part["mean"]) for part in parts if part is not None]
    return over_worlds(means)._asdict() if means else None


def study_text(found: Mapping[str, Any]) -> str:
    """The tables for a terminal: one for each world, and one over worlds where they are pooled."""
    lines: list[str] = []
    for world, tables in found["worlds"].items():
        if tables["measures"]:
            lines += [*_of_world(world, tables), ""]
            lines += [line for one in tables.get("at_kl", ()) for line in (*_of_level(world, one), "")]
    if found["over_worlds"] is not None:
        lines += [*_of_all(found["over_worlds"]), ""]
    waiting = [cell["name"] for cell in found["cells"] if cell["status"] != DONE]
    if waiting:
        lines.append(
            f"{len(waiting)} of {len(found['cells'])} cells are not done: {', '.join(waiting[:4])}"
            + (" ..." if len(waiting) > 4 else "")
        )
    return "\n".join(lines).rstrip()


def _of_world(world: str, tables: Mapping[str, Any]) -> list[str]:
    measures = tables["measures"]
    shown = [name for name in SHOWN if name in measures]
    baseline = str(next((key for key in measures[shown[0]]["against"]), " - ").rpartition(" - ")[2])
    header = ["arm", "seeds", *(LABELS[name] + (", SD" if name in IN_SDS else "") for name in shown)]
    rows = [header]
    for arm in measures[shown[0]]["arms"]:
        of = [measures[name]["arms"][arm] for name in shown]
        cells = [_level(name, one) for name, one in zip(shown, of, strict=True)]
        rows.append([arm, str(len(of[0]["seeds"])), *cells])
    for key in measures[shown[0]]["against"]:
        rows.append([key, "", *(bracket(measures[name]["against"][key]) for name in shown)])
    prompts = [one["change"]["prompts"] for one in measures[shown[0]]["arms"].values() if one["change"]]
    title = f"{world}: {max(prompts, default=0)} prompts; arms: start to end; differences of the ends"
    if baseline:
        title += ", 95 % intervals over seeds and prompts"
    return [title, *aligned(rows, left=1), *_of_residual(tables.get("residual_shares", {}))]


def _of_residual(shares: Mapping[str, Sequence[float | None]]) -> list[str]:
    """How much of a risen reward no latent holds, for each arm whose reward rose in some seed."""
    lines = []
    for arm, found in shares.items():
        known = sorted(one for one in found if one is not None)
        if known:
            lines.append(
                f"{arm}: the residual's share of the reward's rise is {np.median(known):.2f} (median of "
                f"{len(known)} runs whose reward rose, {known[0]:.2f} to {known[-1]:.2f})"
            )
    return lines


def _of_level(world: str, at: Mapping[str, Any]) -> list[str]:
    arms = at["arms"]
    # the KL is what the level fixes, and stands in the column beside the arm
    shown = [name for name in SHOWN if name != KL and name in next(iter(arms.values()))["measures"]]
    header = ["arm", "KL", *(LABELS[name] + (", SD" if name in IN_SDS else "") for name in shown)]
    rows = [header]
    for arm, one in arms.items():
        kls = ", ".join(f"{kl:.2f}" for kl in one["kl"])
        rows.append([arm, kls, *(bracket(one["measures"][name]["change"]) for name in shown)])
    for key, one in at["against"].items():
        kls = ", ".join(f"{kl:.2f}" for kl in one["kl"])
        rows.append([key, kls, *(bracket(one["measures"][name]["interval"]) for name in shown)])
    title = f"{world} at a KL of {at['level']:g}, or the largest reached; arms: change from the start"
    return [title, *aligned(rows, left=1)]


def _level(name: str, one: Mapping[str, Any]) -> str:
    # in SDs only a change has a meaning: the level of a reward has an arbitrary zero
    if name in IN_SDS:
        return bracket(one["change"])
    if one["start"] is None:
        return "-" if one["end"] is None else f"{one['end']:.2f}"
    return f"{one['start']:.2f} to {one['end']:.2f}"


def _of_all(pooled: Mapping[str, Any]) -> list[str]:
    shown = [name for name in SHOWN if name in pooled]
    header = ["difference", "worlds", *(LABELS[name] + (", SD" if name in IN_SDS else "") for name in shown)]
    rows = [header]
    for key in pooled[shown[0]]["against"]:
        of = [pooled[name]["against"].get(key) for name in shown]
        count = max((one["seeds"] for one in of if one is not None), default=0)
        rows.append([key, str(count), *map(bracket, of)])
    return ["over worlds: 95 % intervals over worlds, each world one value", *aligned(rows, left=1)]


def bracket(value: Mapping[str, Any] | CrossedInterval | None) -> str:
    """A mean with its interval, as tables show it; a dash for none."""
    if value is None:
        return "-"
    one = value if isinstance(value, CrossedInterval) else CrossedInterval(**value)
    ends = "" if one.low is None or one.high is None else f" [{one.low:+.2f}, {one.high:+.2f}]"
    return f"{one.mean:+.2f}{ends}"
