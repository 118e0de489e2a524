"""The KL on evaluation answers: oracle (log-probabilities of whole answers), metamorphic (micro-batches)."""

import pytest
import torch

from sarm_control.training.monitor.reference_kl import kl_of_answers
from tests.training.tiny import all_answers, answer_logprobs, tiny_policy


def test_it_is_the_mean_of_the_answers_log_ratios_in_micro_batches_of_any_size() -> None:
    policy, rollout = tiny_policy(), all_answers(2)
    assert kl_of_answers(policy, rollout, temperature=1.0, micro_batch=4) == pytest.approx(0.0, abs=1e-6)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    ratios = answer_logprobs(policy, rollout) - answer_logprobs(policy, rollout, reference=True)
    assert abs(float(ratios.mean())) > 0.01
    for size in (1, 4, 100):
        found = kl_of_answers(policy, rollout, temperature=1.0, micro_batch=size)
        assert found == pytest.approx(float(ratios.mean()), abs=1e-5)


def test_it_is_measured_at_the_temperature_of_the_answers() -> None:
    policy, rollout = tiny_policy(), all_answers(2)
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.mul_(1.5)
    warm, hot = (kl_of_answers(policy, rollout, temperature=t, micro_batch=8) for t in (1.0, 100.0))
    assert abs(hot) < abs(warm) / 10
