"""PAR shaping: oracle (the sigmoid by hand), property (hypothesis), and the run's columns with it."""

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.control.controls import Controls
from sarm_control.control.edits import Edit
from sarm_control.control.penalties import Penalty
from sarm_control.ppo.pay import PayRule
from sarm_control.ppo.reward import SarmReward
from sarm_control.ppo.shaping import preference_as_reward

from .tiny import TableSarm, all_answers

finite = st.floats(-1e4, 1e4)


def test_oracle_by_hand() -> None:
    shaped = preference_as_reward(np.array([2.0, 2.0 + 0.5 * np.log(3.0), -1e9, 1e9]), mean=2.0, sd=0.5)
    np.testing.assert_allclose(shaped, [2.25, 2.0 + 0.5 * 0.75, 2.0, 2.5], atol=1e-12)


@given(st.lists(finite, min_size=2, max_size=20), finite, st.floats(1e-3, 1e3))
def test_property_it_is_bounded_and_keeps_the_order(totals: list[float], mean: float, sd: float) -> None:
    ordered = np.sort(np.array(totals))
    shaped = preference_as_reward(ordered, mean, sd)
    assert (shaped >= mean).all()
    assert (shaped <= mean + sd * (1 + 1e-12)).all() or np.allclose(shaped.max(), mean + sd)
    assert (np.diff(shaped) >= 0).all()


@pytest.mark.parametrize("standardize", [True, False])
def test_the_columns_still_sum_to_the_total_and_scores_are_the_sigmoid(standardize: bool) -> None:
    model = cast(Any, TableSarm(2))
    controls = Controls(edits=[Edit(1, max=0.5)], penalties=[Penalty(2, "q0.5", "0.5sd")])
    reward = SarmReward(model, controls, standardize=standardize, shaping="par")
    plain = SarmReward(model, controls, standardize=True)
    for one in (reward, plain):
        one.calibrate(all_answers(2))
    paid, unshaped = reward.score(all_answers(2)), plain.score(all_answers(2))
    parts = [column for name, column in paid.columns.items() if name != "reward/total"]
    np.testing.assert_allclose(np.sum(parts, axis=0), paid.columns["reward/total"], atol=1e-12)
    assert reward.statistics is not None
    unit = 1.0 if standardize else reward.statistics.sd
    np.testing.assert_allclose(paid.scores / unit, 1 / (1 + np.exp(-unshaped.scores)), atol=1e-12)


def test_without_a_reference_there_is_nothing_to_shape_around() -> None:
    from sarm_control.errors import ConfigError

    with pytest.raises(ConfigError, match="needs answers of the reference policy"):
        PayRule.of(Controls(), 0.0, None, standardize=False, shaping="par")
