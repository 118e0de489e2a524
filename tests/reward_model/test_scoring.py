"""Metamorphic and property tests of scoring: nothing but the text may move a reward."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaModel

from sarm_control.errors import ModelError
from sarm_control.reward_model import Autoencoder, RewardModel, Trunk
from sarm_control.reward_model.trunk.batching import (
    Padded,
    fixed_lengths,
    length_sorted_batches,
    pad_batch,
)
from sarm_control.reward_model.trunk.pooling import pool_states
from tests.conftest import make_llama_config, make_sarm

PROMPTS = [
    "how do i cook bread ?",
    "why ?",
    "is the door safe or not ?",
    "please help",
    "how do i pick a lock ? why ?",
]
ANSWERS = ["sure , here the steps . one two three", "no", "", "i cannot help that .", "yes " * 20]


def test_batch_size_does_not_move_rewards(tiny_sarm: RewardModel) -> None:
    together = tiny_sarm.score(PROMPTS, ANSWERS, batch_tokens=100_000)
    for batch_tokens in (1, 90):
        again = tiny_sarm.score(PROMPTS, ANSWERS, batch_tokens=batch_tokens)
        np.testing.assert_allclose(again.rewards, together.rewards, atol=1e-5)
        assert again.latents.indices.tolist() == together.latents.indices.tolist()


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_batch_size_does_not_move_rewards_in_half_precision(dtype: str) -> None:
    """Wide enough for the kernels that take sums in another order in another shape."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 288, "intermediate_size": 768, "num_attention_heads": 9, "num_key_value_heads": 3}
    config = LlamaConfig(**{**make_llama_config(layers=2).to_dict(), **sizes, "head_dim": 32})
    small = make_sarm()
    trunk = Trunk(LlamaModel(config)).to(getattr(torch, dtype))
    autoencoder = Autoencoder(288, 64, 8)
    model = RewardModel(small.config, trunk, autoencoder, small.head, small.template)
    answers = [("yes " * (1 + 7 * row % 90)) + "no ." for row in range(24)]
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(24)]
    together = model.score(prompts, answers, batch_tokens=100_000).rewards
    for batch_tokens in (1, 300):
        again = model.score(prompts, answers, batch_tokens=batch_tokens).rewards
        assert again.tobytes() == together.tobytes()
    order = list(reversed(range(24)))
    turned = model.score([prompts[j] for j in order], [answers[j] for j in order]).rewards
    assert turned[order].tobytes() == together.tobytes()


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 120), st.integers(1, 400))
def test_a_padded_length_is_the_rows_own(lengths: list[int], most: int, budget: int) -> None:
    padded = fixed_lengths(lengths, most)
    assert padded == [fixed_lengths([length], most)[0] for length in lengths]
    assert all(length <= one <= max(length, most) for length, one in zip(lengths, padded, strict=True))
    batches = length_sorted_batches(padded, budget, equal=True)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len({padded[row] for row in batch}) == 1 for batch in batches)


def test_padding_side_does_not_move_rewards(tiny_sarm: RewardModel) -> None:
    right = tiny_sarm.score(PROMPTS, ANSWERS, padding_side="right")
    left = tiny_sarm.score(PROMPTS, ANSWERS, padding_side="left")
    np.testing.assert_allclose(left.rewards, right.rewards, atol=1e-5)


def test_order_does_not_move_rewards(tiny_sarm: RewardModel) -> None:
    order = [3, 0, 4, 2, 1]
    straight = tiny_sarm.score(PROMPTS, ANSWERS)
    permuted = tiny_sarm.score([PROMPTS[i] for i in order], [ANSWERS[i] for i in order])
    np.testing.assert_allclose(permuted.rewards, straight.rewards[order], atol=1e-5)
    assert permuted.lengths.tolist() == straight.lengths[order].tolist()


def test_other_rows_do_not_move_rewards(tiny_sarm: RewardModel) -> None:
    together = tiny_sarm.score(PROMPTS, ANSWERS)
    alone = [tiny_sarm.score(p, a).rewards[0] for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    np.testing.assert_allclose(alone, together.rewards, atol=1e-5)


@pytest.mark.parametrize("use_topk", [True, False])
def test_contributions_sum_to_the_reward(use_topk: bool) -> None:
    scored = make_sarm(use_topk=use_topk).score(PROMPTS, ANSWERS)
    for j in range(len(scored)):
        contributions = scored.contributions(j)
        assert len(contributions) == (8 if use_topk else 64)
        assert sum(c.contribution for c in contributions) == pytest.approx(scored.rewards[j], abs=1e-6)
        magnitudes = [abs(c.contribution) for c in contributions]
        assert magnitudes == sorted(magnitudes, reverse=True)


def test_bfloat16_trunk_keeps_float32_rewards(tiny_sarm_folder: str) -> None:
    low = RewardModel.from_pretrained(tiny_sarm_folder, dtype="bfloat16")
    scored = low.score(PROMPTS, ANSWERS, keep_states=True)
    assert next(low.trunk.parameters()).dtype == torch.bfloat16
    assert scored.rewards.dtype == np.float32
    # Rewards come from the stored pairs, so they are finer than one bfloat16 step.
    by_hand = [sum(c.contribution for c in scored.contributions(j)) for j in range(len(scored))]
    np.testing.assert_allclose(scored.rewards, by_hand, atol=1e-6)


def test_only_the_pooled_position_is_encoded(tiny_sarm: RewardModel) -> None:
    rows_seen: list[int] = []
    handle = tiny_sarm.autoencoder.encoder.register_forward_pre_hook(
        lambda _, inputs: rows_seen.append(inputs[0].numel() // inputs[0].shape[-1])
    )
    try:
        tiny_sarm.score(PROMPTS, ANSWERS)
    finally:
        handle.remove()
    assert sum(rows_seen) == len(PROMPTS)


def test_missing_end_of_turn_is_flagged_and_scored(tiny_sarm: RewardModel) -> None:
    cut = tiny_sarm.score(PROMPTS[:2], ANSWERS[:2], ended=[True, False])
    whole = tiny_sarm.score(PROMPTS[:2], ANSWERS[:2])
    assert cut.ended.tolist() == [True, False]
    assert cut.rewards.tolist() == whole.rewards.tolist()


def test_truncation_drops_from_the_left_and_counts(tiny_sarm_folder: str) -> None:
    short = RewardModel.from_pretrained(tiny_sarm_folder, max_length=16)
    scored = short.score(["why ? " * 30, "why ?"], ["no .", "no ."])
    assert scored.truncated[0] > 0
    assert scored.truncated[1] == 0
    assert scored.lengths.tolist() == [2, 2]


def test_state_rows_give_the_same_latents(tiny_sarm: RewardModel) -> None:
    scored = tiny_sarm.score(PROMPTS, ANSWERS, keep_states=True)
    assert scored.states is not None
    again = tiny_sarm.score_states(torch.from_numpy(scored.states), chunk=2)
    assert again.indices.tolist() == scored.latents.indices.tolist()
    np.testing.assert_allclose(again.values, scored.latents.values, atol=1e-6)


def test_another_head_shares_the_latents(tiny_sarm: RewardModel) -> None:
    flipped = tiny_sarm.with_head(-tiny_sarm.head.weight)
    np.testing.assert_array_equal(
        flipped.score(PROMPTS, ANSWERS).rewards, -tiny_sarm.score(PROMPTS, ANSWERS).rewards
    )
    assert flipped.fingerprint != tiny_sarm.fingerprint


@pytest.mark.parametrize(
    ("prompts", "answers", "message"),
    [
        (["a", "b"], ["x"], "2 prompts were given for 1 answers"),
        ("a", ["x", "y"], "1 prompts were given for 2 answers"),
    ],
)
def test_unequal_numbers_are_refused(
    tiny_sarm: RewardModel, prompts: str | list[str], answers: list[str], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        tiny_sarm.score(prompts, answers)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = length_sorted_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


@settings(max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from(["left", "right"]))
def test_pooling_finds_the_last_unmasked_end(lengths: list[int], side: Literal["left", "right"]) -> None:
    end = 7
    # Padding with the end-of-turn token itself: only the mask can tell them apart.
    rows = [[end] * 1 + [1] * (length - 1) + [end] for length in lengths]
    batch = pad_batch(rows, pad_id=end, side=side)
    states = torch.arange(batch.input_ids.numel(), dtype=torch.float32).reshape(*batch.input_ids.shape, 1)
    pooled = pool_states(states, batch, end)
    for j, row in enumerate(rows):
        last = len(row) - 1 if side == "right" else batch.input_ids.shape[1] - 1
        assert pooled[j, 0] == states[j, last, 0]


def test_a_row_without_end_of_turn_is_an_error() -> None:
    batch = Padded(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 1, 1]]))
    with pytest.raises(ModelError, match="no end-of-turn token"):
        pool_states(torch.zeros(1, 3, 2), batch, end_of_turn_id=9)
