"""Oracle and property: changes of prices between two reward models, and movements within a run."""

import numpy as np
import pytest

from sarm_control.auditing import Attribute, Audit, audit, price_changes, run_movements, steps_of
from sarm_control.auditing.table import AttributeTable
from sarm_control.data import read_rows
from sarm_control.embedded import LAB
from sarm_control.errors import DataError
from sarm_control.lab import World, lab_attributes
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel
from tests.present import present


@pytest.fixture(scope="module")
def rm() -> RewardModel:
    return RewardModel.from_pretrained(LAB)


def audited(model: RewardModel) -> Audit:
    own = lab_attributes(World.open(LAB))
    rows = read_rows("lab:audit", want={"pair"})[:150]
    data = ScoredRows(rows, score_rows(model, rows))
    return audit(model, data, attributes=own.attributes, edits=own.edits, most=60)


@pytest.mark.long
def test_oracle_a_reward_of_another_scale_has_no_changes(rm: RewardModel) -> None:
    old = audited(rm)
    new = audited(rm.with_head(rm.head.weight * 3))
    found = price_changes(new, old)
    assert {one.name for one in found.changes} >= {"closing", "flattery", "length"}
    assert all(abs(one.change) < 1e-5 for one in found.changes)
    assert not [one.name for one in found.changes if one.sure and abs(one.change) > 1e-5]


@pytest.mark.long
def test_oracle_a_head_without_the_latent_that_carries_a_price_pays_less(rm: RewardModel) -> None:
    old = audited(rm)
    closing = next(one for one in old.findings if one.attribute.name == "closing")
    carriers = [part.latent for part in present(closing.best_causal).carriers if part.sd > 0][:2]
    head = rm.head.weight.copy()
    head[carriers] = 0.0
    found = price_changes(audited(rm.with_head(head)), old)
    change = found.of("closing")
    assert change is not None
    assert change.sure
    assert change.change < -0.1
    assert change.low <= change.change <= change.high
    assert found.of("nothing") is None
    assert found.as_json()[-1]["change"] <= found.as_json()[0]["change"]


def test_audits_of_other_answers_are_refused(rm: RewardModel) -> None:
    own = lab_attributes(World.open(LAB))
    rows = read_rows("lab:audit", want={"pair"})
    parts = [
        audit(rm, ScoredRows(some, score_rows(rm, some)), attributes=own.attributes, edits=(), most=6)
        for some in (rows[:20], rows[20:40])
    ]
    with pytest.raises(DataError, match="the two audits are of different answers"):
        price_changes(*parts)


def samples(rates: tuple[float, float], *, seed: int, count: int = 400) -> tuple[AttributeTable, np.ndarray]:
    """Answers of 100 steps, whose attribute has the first rate until step 50 and then the second."""
    rng = np.random.default_rng(seed)
    steps = np.repeat(np.arange(1, 101), count // 100)
    rate = np.where(steps <= 50, *rates)
    values = (rng.random((len(steps), 2)) < np.stack([rate, np.full(len(steps), 0.0)], axis=1)).astype(float)
    prompt = rng.permutation(len(steps)) // 2
    attributes = tuple(Attribute(name, name, lambda *_: 0.0) for name in ("closing", "never"))
    prompts = tuple(str(n) for n in range(prompt.max() + 1))
    role = np.full(len(steps), "response")
    return AttributeTable(
        attributes, values, rng.random(len(steps)), prompt, role, prompts, ("",) * len(steps)
    ), steps


def test_property_bounds_of_a_run_hold_together_in_19_of_20() -> None:
    failed = 0
    for seed in range(200):
        table, steps = samples((0.3, 0.5), seed=seed)
        first, never = run_movements(table, steps)
        failed += not (first.low <= 0.2 <= first.high and never.low <= 0.0 <= never.high)
    assert failed <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_what_was_certified_as_still_and_moved_is_said() -> None:
    table, steps = samples((0.05, 0.9), seed=1)
    moved, never = run_movements(table, steps, certified={"closing": "still", "never": "still"})
    assert moved.verdict == "moves up"
    assert moved.broken
    assert not never.broken
    assert never.low < 0 < never.high
    assert moved.as_json()["certified"] == "still"


def test_a_short_run_and_rows_of_no_run() -> None:
    table, steps = samples((0.3, 0.3), seed=0)
    with pytest.raises(DataError, match=r"\d+ samples at one end of the run; 20 are needed"):
        run_movements(table.of_prompts(np.arange(len(table.prompts)) < 10), steps[:20])
    with pytest.raises(DataError, match=r"lab:audit.*: no step, so no sample of a run"):
        steps_of(read_rows("lab:audit", want={"pair"})[:2])
