"""Base beside trained: oracle by hand, metamorphic, and the parts of a shaped reward."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from sarm_control.comparison.measures import (
    Measure,
    MeasureChange,
    PolicyAnswers,
    answer_columns,
    arm_differences,
    compare_columns,
    control_columns,
    goodhart_gap,
    reward_sd,
    wins,
)
from sarm_control.control import Controls, Edit, Penalty, ShapedReward
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import SparseLatents
from tests.present import present

HEAD = np.array([0.5, -1.0, 2.0], dtype=np.float32)
PROMPTS = np.array([0, 0, 1, 1])


def answers(rows: ArrayLike, *, kl: NDArray[np.float64] | None = None) -> PolicyAnswers:
    dense = np.asarray(rows, dtype=np.float32)
    latents = SparseLatents.from_rows([(np.flatnonzero(row), row[row != 0]) for row in dense], 3)
    count = len(dense)
    scored = Scored(
        rewards=latents.dot(HEAD),
        latents=latents,
        head=HEAD,
        truncated=np.zeros(count, np.int64),
        ended=np.arange(count) % 2 == 0,
        lengths=np.arange(count),
        fingerprint="f",
    )
    return PolicyAnswers(("",) * count, PROMPTS, scored, np.arange(count) + 1, kl, kl)


BASE = answers([[1, 0, 0], [0, 0, 0], [0, 2, 0], [0, 1, 1]])
TRAINED = answers([[2, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 1]], kl=np.array([1.0, 2.0, 3.0, 4.0]))


def compared(**kwargs: Any) -> dict[str, MeasureChange]:
    before, after = (answer_columns(side, [0, 1], {0: 1.5}) for side in (BASE, TRAINED))
    return {row.measure.key: row for row in compare_columns(before, after, PROMPTS, PROMPTS, **kwargs)}


def test_a_bounded_total_has_its_shaping_as_a_column() -> None:
    shaped = ShapedReward(
        total=np.array([1.0, 3.0]),
        reward_model=np.array([1.0, 3.0]),
        edited=np.array([1.0, 3.0]),
        penalties=np.zeros((2, 0)),
        human_kl=np.zeros(2),
        log_ratio=None,
    )
    columns = control_columns(shaped, Controls(), np.array([0.0, -1.0]), bounded=lambda total: total / 2)
    found = {measure.key: values.tolist() for measure, values in columns.items()}
    assert found == {
        "reward/missing_end": [0.0, -1.0],
        "reward/shaping": [-0.5, -1.0],
        "reward/total": [0.5, 1.0],
    }


def test_oracle_means_changes_and_rates_by_hand() -> None:
    rows = compared()
    # Base rewards 0.5, 0, -2, 1 and trained 1, 1, -3, 2: prompt changes +0.75 and 0.
    assert present(rows["reward/model"].base).mean == pytest.approx(-0.125)
    assert present(rows["reward/model"].change).mean == pytest.approx(0.375)
    assert present(rows["reward/model"].change).n == 2
    assert present(rows["latent/0/rate"].base).mean == pytest.approx(0.25)
    assert present(rows["latent/0/rate"].trained).mean == pytest.approx(0.5)
    assert present(rows["penalty/0/rate"].change).mean == pytest.approx(0.5)
    assert present(rows["answer/ended"].trained).mean == pytest.approx(0.5)
    assert present(rows["objective/kl"].trained).mean == pytest.approx(2.5)
    assert rows["objective/kl"].change is None
    assert present(rows["answer/length"].change).mean == 0


def test_oracle_wins_are_strict_and_per_prompt() -> None:
    assert wins(BASE, TRAINED).trained.mean == pytest.approx(0.5)
    assert wins(BASE, BASE).trained.mean == 0


def test_metamorphic_the_change_is_paired() -> None:
    """Adding the same offset to both policies' rewards of a prompt changes no interval."""
    measure = Measure("reward/model", "", "reward")
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=4), rng.normal(size=4)
    offset = np.array([0, 0, 1e3, 1e3])
    plain = compare_columns({measure: before}, {measure: after}, PROMPTS, PROMPTS)
    moved = compare_columns({measure: before + offset}, {measure: after + offset}, PROMPTS, PROMPTS)
    np.testing.assert_allclose(present(plain[0].change)[:4], present(moved[0].change)[:4], atol=1e-9)
    assert present(moved[0].base).mean > present(plain[0].base).mean + 100


def test_metamorphic_differences_between_arms_are_antisymmetric() -> None:
    one, two = (answer_columns(side, [0], {}) for side in (TRAINED, TRAINED))
    two = {measure: values * 2 for measure, values in two.items()}
    forward = {m.key: i.mean for m, i in arm_differences(one, two, PROMPTS, PROMPTS)}
    backward = {m.key: i.mean for m, i in arm_differences(two, one, PROMPTS, PROMPTS)}
    assert forward.keys() == backward.keys() == {measure.key for measure in one}
    for key, mean in forward.items():
        assert mean == pytest.approx(-backward[key])
    assert forward["objective/kl"] == pytest.approx(2.5)


def test_the_parts_sum_to_the_total_and_absent_controls_leave_no_column() -> None:
    controls = Controls(edits=[Edit(0, max=1.0)], penalties=[Penalty(1, tau=0.5, alpha=0.25)])
    amount = np.array([0.0, -1.0, 0.0, -1.0])
    columns = control_columns(controls.shape(TRAINED.scored), controls, amount)
    named = {measure.key: values for measure, values in columns.items()}
    assert named.keys() == {"reward/edits", "reward/penalty/1", "reward/missing_end", "reward/total"}
    parts = sum(values for key, values in named.items() if key != "reward/total")
    np.testing.assert_allclose(named["reward/total"], TRAINED.scored.rewards + parts, atol=1e-6)
    assert control_columns(Controls().shape(TRAINED.scored), Controls()) == {}


def test_changes_in_reward_units_are_given_in_sds_too() -> None:
    sd = reward_sd(BASE)
    assert sd == pytest.approx(np.std([0.5, 0, -2, 1], ddof=1))
    row = compared()["reward/model"].as_json(sd)
    assert row["change_sd"] == pytest.approx(0.375 / sd)
    assert compared()["answer/length"].as_json(sd)["change_sd"] is None


def test_oracle_the_goodhart_gap_is_reward_gain_minus_gold_gain_in_sds() -> None:
    gold_before, gold_after = np.array([1.0, 0.0, 2.0, 1.0]), np.array([0.0, 0.0, 2.0, 0.0])
    base, trained = replace(BASE, gold=gold_before), replace(TRAINED, gold=gold_after)
    gap = goodhart_gap(base, trained)
    rewards = BASE.scored.rewards.astype(float)
    # Prompt changes: +0.75 and 0 in reward, -0.5 and -0.5 in gold.
    by_prompt = np.array([0.75, 0.0]) / rewards.std(ddof=1) + 0.5 / gold_before.std(ddof=1)
    assert gap is not None
    assert gap.trained.mean == pytest.approx(by_prompt.mean())
    assert present(goodhart_gap(base, replace(base, kl=np.zeros(4)))).trained.mean == 0
    assert goodhart_gap(BASE, TRAINED) is None
    assert goodhart_gap(replace(BASE, gold=np.ones(4)), trained) is None
