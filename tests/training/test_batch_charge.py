"""`human_kl.mode: batch` charges what is logged (a tiny run), and what advantages make of it (property)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.control import HumanKL
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.training.algorithm.experience import advantages_of
from sarm_control.training.algorithm.losses import gae, length_mask, token_rewards
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.config.run_config import TrainingConfig
from tests.training.test_trainer import CONTROLS, sarm_trainer

GROUP = 4


@pytest.mark.long
def test_every_answer_of_a_run_is_charged_beta_times_what_is_logged(
    tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    trainer = sarm_trainer(tiny_policy_folder, tiny_sarm)
    assert isinstance(trainer.reward, PolicyReward)
    controls = replace(CONTROLS, human_kl=HumanKL(beta="0.3sd", mode="batch"))
    trainer.reward = PolicyReward(tiny_sarm, controls, human=trainer.reward.human, seed=5)
    trainer.calibrate()
    term = trainer.reward.rule.controls.human_kl
    assert term is not None
    logged = []
    for _ in range(3):
        report = trainer.step()
        logged.append(report.metrics["human_kl/kl"])
        charged = {row["reward/human_kl"] for row in report.samples} | {report.metrics["reward/human_kl"]}
        assert np.array(list(charged), dtype=np.float32) == pytest.approx(
            np.float32(-float(term.beta) * logged[-1]), rel=1e-6, abs=0
        )
        assert logged[-1] != pytest.approx(report.metrics["human_kl/mean_log_ratio"], rel=1e-3)
    assert max(logged) > 1e-3
    assert len(set(logged)) == 3


def batch(seed: int, longest: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
    """Scores [16], k1 [16, T] and values [16, T] of answers of other lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (16,), generator=generator).tolist()
    lengths[0] = longest
    scores = torch.randn(16, generator=generator)
    kl, values = 0.1 * torch.randn(2, 16, longest, generator=generator)
    return scores, kl, values, lengths


def advantages(charge: float, seed: int, **changes: object) -> torch.Tensor:
    scores, kl, values, lengths = batch(seed)
    mask = length_mask(lengths, max(lengths))
    config = TrainingConfig().model_copy(update={"answers_per_prompt": GROUP, **changes})
    return advantages_of(token_rewards(scores - charge, kl, mask, 0.05), values, mask, config).advantages


@given(st.integers(0, 1000), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_property_one_charge_for_all_cancels_where_answers_are_compared_as_wholes(
    seed: int, charge: float
) -> None:
    for changes in ({"lam": 1.0}, {"algorithm": "rloo"}, {"algorithm": "grpo"}):
        paid, charged = (advantages(amount, seed, gamma=1.0, **changes) for amount in (0.0, charge))
        np.testing.assert_allclose(charged, paid, atol=2e-5)


@given(st.integers(0, 1000), st.floats(0.1, 3))
@settings(max_examples=25, deadline=None)
def test_property_below_lambda_1_what_is_left_depends_on_the_place_of_a_token_alone(
    seed: int, charge: float
) -> None:
    """A token with n after it bears `lambda^n` of the charge."""
    scores, kl, values, lengths = batch(seed)
    mask = length_mask(lengths, max(lengths))
    rewards = [token_rewards(amount, kl, mask, 0.05) for amount in (scores, scores - charge)]
    paid, charged = (gae(one, values, mask, 1.0, 0.95).advantages for one in rewards)
    after = torch.tensor(lengths)[:, None] - 1 - torch.arange(mask.shape[1])
    expected = torch.where(mask, -charge * 0.95 ** after.clamp(min=0).float(), 0.0)
    np.testing.assert_allclose(charged - paid, expected, atol=1e-5)
    # whitening takes off the mean of that and no more
    left = advantages(charge, seed, gamma=1.0, lam=0.95) - advantages(0.0, seed, gamma=1.0, lam=0.95)
    ends = left[torch.arange(len(lengths)), torch.tensor(lengths) - 1]
    assert float(left[mask].square().mean().sqrt()) > 0.03 * charge / (1 + charge)
    assert float(ends.mean()) < float(left[mask].mean())
