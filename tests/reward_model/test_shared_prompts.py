"""Metamorphic tests: a prompt computed once for its answers, against every row from scratch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sarm_control.conversation import Encoded
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.trunk import shared_prompts
from tests.reward_model.classifiers import CONFIGS, END, make_classifier, save

PROMPT = 20


def answers(seed: int, lengths: Sequence[int], prompt: int = PROMPT) -> list[Encoded]:
    """Rows of one random prompt and an answer of each length, the end of turn among it."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(5, 50, (count,), generator=generator).tolist()

    shared = draw(prompt)
    return [Encoded([*shared, *draw(n - 1), END], prompt, 0, True, closing=1) for n in lengths]


ROWS = [*answers(0, [9, 3, 17, 1, 20]), *answers(1, [4]), *answers(2, [30, 8, 12], 15), *answers(3, [5, 5])]
"""One prompt with many answers, one with one, one that is too short for its first answer, and one more."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each stored prompt serves."""
    from sarm_control.reward_model import reward_model

    found: list[int] = []

    def counted(*given: Any) -> torch.Tensor:
        states = shared_prompts.states_behind(*given)
        found.append(len(states))
        return states

    monkeypatch.setattr(reward_model, "states_behind", counted)
    return found


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "mistral"])
def test_rewards_are_those_of_whole_rows(family: str, tmp_path: Path, calls: list[int]) -> None:
    """Gemma 2 and Mistral with a window shorter than prompt and answers, Gemma 2 with capped logits."""
    model = RewardModel.from_pretrained(save(make_classifier(CONFIGS[family](), bias=True), tmp_path / "rm"))
    apart = model.score_encoded(ROWS)
    shared = model.score_encoded(ROWS, prefix_reuse=True)
    assert calls == [5, 2, 2]
    assert np.ptp(apart.rewards) > 0.1
    np.testing.assert_allclose(shared.rewards, apart.rewards, atol=1e-6, rtol=1e-6)
    small = model.score_encoded(ROWS, prefix_reuse=True, batch_tokens=90)
    assert calls[3:] == [2, 3, 2, 2]
    np.testing.assert_allclose(small.rewards, apart.rewards, atol=1e-6, rtol=1e-6)
    assert model.score_encoded(ROWS).rewards.tobytes() == apart.rewards.tobytes()


def test_a_sarm_gives_the_same_latents(tiny_sarm: RewardModel, calls: list[int]) -> None:
    rows = [replace(row, input_ids=[*row.input_ids[:-1], tiny_sarm.template.end_of_turn_id]) for row in ROWS]
    apart = tiny_sarm.score_encoded(rows)
    shared = tiny_sarm.score_encoded(rows, prefix_reuse=True)
    assert calls == [5, 2, 2]
    assert np.array_equal(shared.latents.indices, apart.latents.indices)
    np.testing.assert_allclose(shared.rewards, apart.rewards, atol=1e-6, rtol=1e-6)


def test_half_precision_left_padding_and_other_types_compute_whole_rows(
    tmp_path: Path, calls: list[int]
) -> None:
    folder = save(make_classifier(CONFIGS["llama"]()), tmp_path / "rm")
    half = RewardModel.from_pretrained(folder, dtype="bfloat16")
    assert half.score_encoded(ROWS, prefix_reuse=True).rewards.tobytes() == (
        half.score_encoded(ROWS).rewards.tobytes()
    )
    RewardModel.from_pretrained(folder).score_encoded(ROWS, prefix_reuse=True, padding_side="left")
    other = RewardModel.from_pretrained(save(make_classifier(CONFIGS["gpt_neox"]()), tmp_path / "other"))
    other.score_encoded(ROWS, prefix_reuse=True)
    assert calls == []


def test_texts_share_their_prompt(tiny_sarm: RewardModel, calls: list[int]) -> None:
    prompt = "how do i bake a cake ? " * 4
    replies = ["first mix the flour .", "no .", "what a lovely question !"]
    apart = tiny_sarm.score([prompt] * 3, replies)
    shared = tiny_sarm.score([prompt] * 3, replies, prefix_reuse=True)
    assert calls == [3]
    np.testing.assert_allclose(shared.rewards, apart.rewards, atol=1e-6, rtol=1e-6)
