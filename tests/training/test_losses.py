"""Oracle and property tests of the arithmetic of PPO."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from sarm_control.training.algorithm.importance_weights import sampler_mismatch
from sarm_control.training.algorithm.losses import (
    explained_variance,
    gae,
    group_standardised,
    kl_k1,
    kl_k3,
    leave_one_out,
    length_mask,
    next_kl_coef,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)


def test_gae_against_numbers_computed_by_hand() -> None:
    """gamma 0.9, lambda 0.5; the second answer has two tokens and rubbish in its padding."""
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.5, -1.0, 99.0]])
    values = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 99.0]])
    mask = length_mask([3, 2], 3)

    found = gae(rewards, values, mask, gamma=0.9, lam=0.5)

    # Row 0: deltas 0.08, 0.07, 0.7; A2 = 0.7, A1 = 0.07 + 0.45 * 0.7, A0 = 0.08 + 0.45 * A1.
    # Row 1: deltas 0.5 + 0.45 - 0.4 = 0.55 and -1 - 0.5 = -1.5; A0 = 0.55 - 0.45 * 1.5.
    expected = torch.tensor([[0.25325, 0.385, 0.7], [-0.125, -1.5, 0.0]])
    torch.testing.assert_close(found.advantages, expected)
    torch.testing.assert_close(found.returns, torch.tensor([[0.35325, 0.585, 1.0], [0.275, -1.0, 0.0]]))
    assert found.advantages.dtype == torch.float32


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_with_lambda_1_the_advantage_is_the_rest_of_the_rewards_less_the_value(
    lengths: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = length_mask(lengths, 7)
    rewards, values = (torch.randn(mask.shape, generator=generator) for _ in range(2))

    found = gae(rewards, values, mask, gamma=1.0, lam=1.0)

    kept = torch.where(mask, rewards, 0.0)
    rest = kept.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(found.advantages, torch.where(mask, rest - values, 0.0), atol=1e-5, rtol=1e-5)


def test_the_score_lands_on_the_last_token_and_the_kl_on_every_token() -> None:
    mask = length_mask([3, 1], 3)
    kl = torch.tensor([[1.0, 2.0, 3.0], [4.0, 99.0, 99.0]])

    rewards = token_rewards(torch.tensor([10.0, 20.0]), kl, mask, kl_coef=0.5)

    torch.testing.assert_close(rewards, torch.tensor([[-0.5, -1.0, 8.5], [18.0, 0.0, 0.0]]))


def test_whitening_takes_the_whole_batch_at_once_and_leaves_padding_out() -> None:
    mask = length_mask([2, 1], 2)
    values = torch.tensor([[1.0, 2.0], [6.0, 1e6]])

    found = whiten(values, mask)

    sd = math.sqrt(14 / 3)
    expected = torch.tensor([[-2 / sd, -1 / sd], [3 / sd, 0.0]])
    torch.testing.assert_close(found, expected)


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-100, 100))
@settings(max_examples=40, deadline=None)
def test_whitening_forgets_scale_and_offset(seed: int, scale: float, offset: float) -> None:
    values = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = length_mask([5, 3, 1, 4], 5)
    torch.testing.assert_close(
        whiten(values * scale + offset, mask), whiten(values, mask), atol=1e-3, rtol=1e-3
    )


def test_equal_advantages_whiten_to_zero() -> None:
    assert whiten(torch.full((2, 2), 3.0), length_mask([2, 2], 2)).abs().max() == 0


def test_policy_loss_against_numbers_computed_by_hand() -> None:
    """Ratios 1.5 and 0.5, range 0.2: clipped where the surrogate would gain from going further.

    Three tokens are clipped and two are not though their ratio is out of range, so that a comparison the
    wrong way round has another count; the last token, inside the range, counts as neither.
    """
    new = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.5, 1.1]).log().requires_grad_()
    old = torch.zeros(6)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0, 1.0])

    found = policy_loss(new, old, advantages, clip=0.2)
    found.loss.backward()

    assert found.loss.item() == pytest.approx(-1.2 + 1.5 - 0.5 + 0.8 - 2.4 - 1.1)
    assert found.clipped.item() == 3
    expected = sum(ratio - 1 - math.log(ratio) for ratio in (1.5, 1.5, 0.5, 0.5, 1.5, 1.1))
    assert found.approx_kl.item() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(new.grad, torch.tensor([0.0, 1.5, -0.5, 0.0, 0.0, -1.1]))


def test_value_loss_takes_the_worse_of_the_value_and_the_clipped_value() -> None:
    new = torch.tensor([1.0, 0.1], requires_grad=True)
    old = torch.zeros(2)
    returns = torch.tensor([1.0, 1.0])

    found = value_loss(new, old, returns, clip=0.2)
    found.backward()

    assert found.item() == pytest.approx(0.5 * 0.8**2 + 0.5 * 0.9**2)
    torch.testing.assert_close(new.grad, torch.tensor([0.0, -0.9]))


def test_both_kl_estimates_are_unbiased_and_k3_is_never_negative() -> None:
    """Exact expectations under p against torch's divergence of two categorical distributions."""
    generator = torch.Generator().manual_seed(0)
    p, q = (Categorical(logits=torch.randn(7, generator=generator, dtype=torch.float64)) for _ in range(2))
    log_p, log_q = p.logits, q.logits

    exact = kl_divergence(p, q).item()

    assert (p.probs * kl_k1(log_p, log_q)).sum().item() == pytest.approx(exact, rel=1e-9)
    assert (p.probs * kl_k3(log_q - log_p)).sum().item() == pytest.approx(exact, rel=1e-9)
    assert (kl_k3(log_q - log_p) >= 0).all()


def test_explained_variance_is_one_when_right_and_zero_when_constant() -> None:
    returns = torch.tensor(np.arange(5.0))
    assert explained_variance(returns + 3, returns) == pytest.approx(1.0)
    assert explained_variance(torch.zeros(5), returns) == pytest.approx(0.0)
    assert explained_variance(returns, torch.ones(5)) == 0.0
    # of a variance of 1/4 a quarter is left
    assert explained_variance(torch.tensor([0.0, 0.5]), torch.tensor([0.0, 1.0])) == pytest.approx(0.75)


def test_oracle_importance_weights_and_what_is_said_of_them_by_hand() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    ours = torch.tensor([[-0.1, -3.0], [-1.0, 0.0]])
    theirs = [[-5.0, -3.5], [-0.5]]
    found = sampler_mismatch(ours, theirs, mask, cap=2.0)
    expected = [[2.0, math.exp(0.5)], [math.exp(-0.5), 1.0]]
    torch.testing.assert_close(found.weights, torch.tensor(expected))
    apart = (4.9, 0.5, -0.5)
    assert found.metrics == pytest.approx(
        {
            "rollout/logprob_mismatch": 5.9 / 3,
            "rollout/logprob_mismatch_max": 4.9,
            "rollout/sampler_kl": sum(math.exp(d) - 1 - d for d in apart) / 3,
            "rollout/importance_weight": (2.0 + math.exp(0.5) + math.exp(-0.5)) / 3,
        },
        rel=1e-5,
    )
    plain = sampler_mismatch(ours, theirs, mask, cap=None)
    assert torch.equal(plain.weights, torch.ones(2, 2))
    assert plain.metrics["rollout/importance_weight"] == 1.0


def test_oracle_the_kl_coefficient_moves_by_a_tenth_of_the_error_and_by_two_percent_at_most() -> None:
    after = [next_kl_coef(0.5, kl, 4.0) for kl in (4.0, 4.4, 3.6, 40.0, -40.0)]
    assert after == pytest.approx([0.5, 0.5 * 1.01, 0.5 * 0.99, 0.5 * 1.02, 0.5 * 0.98])
    assert next_kl_coef(0.5, 40.0, None) == 0.5


def test_oracle_critic_free_advantages_by_hand() -> None:
    totals = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    expected = torch.tensor([1 - 4.0, 2 - 3.5, 6 - 1.5, 0.0, 0.0, 0.0])
    torch.testing.assert_close(leave_one_out(totals, 3), expected)
    spread = torch.tensor([1.0, 2.0, 6.0]).std()
    expected = torch.cat([(torch.tensor([1.0, 2.0, 6.0]) - 3) / (spread + 1e-4), torch.zeros(3)])
    torch.testing.assert_close(group_standardised(totals, 3), expected)


@given(st.integers(2, 5), st.integers(1, 4), st.floats(-50, 50), st.integers(0, 100))
def test_property_a_constant_for_a_prompt_changes_no_critic_free_advantage(
    group: int, prompts: int, constant: float, seed: int
) -> None:
    totals = torch.randn(prompts * group, generator=torch.Generator().manual_seed(seed))
    # answers that are nearly equal leave nothing but float32 rounding to standardise
    assume(float(totals.view(-1, group).std(dim=1).min()) > 0.05)
    shifted = totals.clone()
    shifted[:group] += constant
    for compare in (leave_one_out, group_standardised):
        torch.testing.assert_close(compare(shifted, group), compare(totals, group), atol=1e-2, rtol=1e-2)
        torch.testing.assert_close(
            compare(totals, group).view(-1, group).sum(1), torch.zeros(prompts), atol=1e-4, rtol=0
        )
