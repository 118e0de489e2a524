"""Golden seeds: PPO on the tiny policy ends with the firing rate that was asked for.

The reward model pays 1 per unit of one latent and little for the others. The untrained policy fires
it in 0.8 of its answers; left alone, PPO makes that nearly all.
"""

from typing import Any, cast

import numpy as np
import pytest

from sarm_control.control.controls import Controls
from sarm_control.control.penalties import Penalty
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import TrainingConfig
from tests.training.tiny import PROMPTS, TableSarm, tiny_policy

LATENT, TARGET, STEPS = 2, 0.1, 40


def rates(penalty: Penalty, seed: int) -> np.ndarray:
    """[STEPS] share of the 96 answers of a step that fire the latent."""
    model = TableSarm(2)
    model.head = np.where(np.arange(6) == LATENT, 1.0, 0.2 * model.head).astype(np.float32)
    settings = TrainingConfig(
        prompts_per_step=1,
        answers_per_prompt=96,
        max_new_tokens=2,
        micro_batch=96,
        learning_rate=1e-3,
        value_learning_rate=1e-2,
        value_clip=1.0,
        seed=seed,
    )
    reward = PolicyReward(cast(Any, model), Controls(penalties=[penalty]))
    trainer = Trainer(tiny_policy(), reward, PROMPTS[:1], settings)
    trainer.calibrate()
    return np.array([trainer.step().metrics[f"penalty/{LATENT}/rate"] for _ in range(STEPS)])


def last_third(found: np.ndarray) -> float:
    return float(found[-(STEPS // 3) :].mean())


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_the_rate_of_the_last_third_is_the_target(seed: int) -> None:
    found = rates(Penalty(LATENT, tau=0.5, target_rate=TARGET), seed)
    assert found[0] > 0.7
    assert abs(last_third(found) - TARGET) <= 0.05


@pytest.mark.long
@pytest.mark.parametrize("alpha", ["0sd", "1sd", "2sd"])
def test_a_fixed_charge_leaves_the_rate_above(alpha: str) -> None:
    assert last_third(rates(Penalty(LATENT, 0.5, alpha), 0)) > 0.9
