"""Every result that is a table becomes a pandas frame: contract, all of them in one list."""

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import sarm_control
from sarm_control.auditing import price_changes
from sarm_control.auditing.best_of_n import pressure
from sarm_control.comparison import Comparison
from sarm_control.control import Edit
from sarm_control.data import rows_of
from sarm_control.evaluation import (
    answer_coverage,
    benchmark_results,
    candidate_sets,
    probe,
    rerank,
    self_check,
    single_latents,
    steering,
)
from sarm_control.functions import Evaluation
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel
from tests.evaluation.scored_pairs import random_pairs
from tests.evaluation.test_steering import BENCHMARK, EDITS, OWN, SAFETY, scored_rows

pytest.importorskip("pandas")
SOURCES = Path(sarm_control.__file__).parent
PAIRS = random_pairs(0)
INTERVAL = {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 9}


class Table(NamedTuple):
    """A result, how many rows its frame has, and a column with the numbers that it holds."""

    result: Any
    rows: int
    column: str
    numbers: Any


def of_probe() -> Table:
    found = probe(PAIRS, [Edit(0, set=0.0)])
    return Table(found, len(found.sides), "delta_low", [side.delta.low for side in found.sides])


def of_rerank() -> Table:
    found = rerank(candidate_sets(PAIRS), PAIRS.scored, [Edit(0, set=0.0)], n=[1, 2])
    rows = [*found.winners, *found.curve]
    return Table(found, len(rows), "change", [one.change.mean for one in rows])


def of_single_latents() -> Table:
    found = single_latents(candidate_sets(PAIRS), PAIRS.scored)
    return Table(found, len(found), "changed_high", [one.changed.high for one in found])


def of_steering() -> Table:
    found = steering(scored_rows(), BENCHMARK, SAFETY, EDITS, sets=100)
    return Table(found, 6, "change", [group.change.mean for group in found.groups])


def of_coverage() -> Table:
    found = answer_coverage(lambda: [PAIRS])
    fires = PAIRS.scored.latents.columns(range(20)) > 0
    return Table(found, 20, "rate", fires.mean(axis=0))


def of_evaluation(tiny: RewardModel) -> Table:
    rewards = scored_rows().scored.rewards.astype(np.float64)
    results = tuple(benchmark_results(BENCHMARK, rewards, np.ones(OWN)))
    checked = self_check(tiny, rows_of([{"prompt": "what is bread ?", "response": "food"}], want={"answer"}))
    found = Evaluation(BENCHMARK, checked, results, (), None)
    return Table(found, len(results), "average", [one.figures["average"].mean for one in results])


def of_comparison() -> Table:
    measure = {
        "key": "reward/model",
        "label": "Reward",
        "base": INTERVAL,
        "trained": INTERVAL,
        "change": None,
    }
    found = Comparison({"arms": [{"name": "ours", "measures": [measure, measure]}]}, {})
    return Table(found, 2, "trained_mean", [1.0, 1.0])


def of_effects() -> Table:
    rng = np.random.default_rng(0)
    chosen, rejected = (rng.exponential(size=(30, 8)) for _ in range(2))
    found = sarm_control.margin_effects(chosen, rejected, range(30), range(30), np.ones(8))
    return Table(found, len(found), "effect", found["effect"])


@cache
def audited(tiny: RewardModel) -> sarm_control.Audit:
    things = ("bread", "door", "lock", "bomb", "answer", "steps", "user", "system", "yes", "sure")
    rows = [
        {"prompt": f"what is the {one} ?", "chosen": f"the {one} is good .", "rejected": "no !"}
        for one in things
    ]
    read = rows_of(rows, want={"pair"})
    return sarm_control.audit(tiny, ScoredRows(read, score_rows(tiny, read)), most=10)


def of_audit(tiny: RewardModel) -> Table:
    found = audited(tiny)
    return Table(found, len(found.findings), "price", [one.price for one in found.findings])


def of_attributes(tiny: RewardModel) -> Table:
    table = audited(tiny).table
    return Table(table, 20, "reward", table.rewards)


def of_pressure(tiny: RewardModel) -> Table:
    found = pressure(audited(tiny).table)
    curves = [found.reward, *found.curves.values()]
    return Table(found, 2 * len(curves), "mean", [one.mean for curve in curves for one in curve])


def of_price_changes(tiny: RewardModel) -> Table:
    found = price_changes(audited(tiny), audited(tiny))
    return Table(found, len(found.changes), "change", [0.0] * len(found.changes))


def of_scored(tiny: RewardModel) -> Table:
    found = tiny.score(["what is bread ?"] * 3, ["food", "no", "yes"])
    return Table(found, 3, "reward", found.rewards)


TABLES: dict[str, Callable[..., Table]] = {
    "AnswerCoverage": of_coverage,
    "AttributeTable": of_attributes,
    "Audit": of_audit,
    "Comparison": of_comparison,
    "EffectTable": of_effects,
    "Evaluation": of_evaluation,
    "LatentImpacts": of_single_latents,
    "Pressure": of_pressure,
    "PriceChanges": of_price_changes,
    "Probe": of_probe,
    "Reranking": of_rerank,
    "Scored": of_scored,
    "Steering": of_steering,
}
ELSEWHERE = {"Discovery"}
"""Its frame is that of its table of effects (`test_notebooks.py`)."""


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_a_frame_of_its_rows(name: str, tiny_sarm: RewardModel) -> None:
    build = TABLES[name]
    table = build(tiny_sarm) if build.__code__.co_argcount else build()
    assert type(table.result).__name__ == name
    frame = table.result.to_pandas()
    assert len(frame) == table.rows > 0
    np.testing.assert_allclose(
        frame[table.column].to_numpy(dtype=float), np.asarray(table.numbers, dtype=float)
    )


def test_the_list_holds_every_result_that_becomes_a_frame() -> None:
    found = {
        one.name
        for path in SOURCES.rglob("*.py")
        for one in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(one, ast.ClassDef)
        and any(isinstance(part, ast.FunctionDef) and part.name == "to_pandas" for part in one.body)
    }
    assert found == {*TABLES, *ELSEWHERE}
