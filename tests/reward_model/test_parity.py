"""Oracle: the recorded outputs of the paper's reference implementation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.reward_model import RewardModel

Example = dict[str, Any]


@pytest.fixture(params=["reference_topk", "reference_dense"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture
def examples(folder: Path) -> list[Example]:
    found: list[Example] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["examples"]
    return found


def test_token_ids_equal_the_reference(folder: Path, examples: list[Example]) -> None:
    template = RewardModel.from_pretrained(folder).template
    for example in examples:
        assert template.encode(example["prompt"], example["response"]).input_ids == example["input_ids"]


def test_rewards_and_latents_equal_the_reference(folder: Path, examples: list[Example]) -> None:
    model = RewardModel.from_pretrained(folder)
    scored = model.score([e["prompt"] for e in examples], [e["response"] for e in examples])
    for j, example in enumerate(examples):
        assert scored.rewards[j] == pytest.approx(example["reward"], abs=1e-5)
        assert scored.rewards[j] == pytest.approx(example["reward_unbatched"], abs=1e-5)
        indices, values = scored.latents.row(j)
        if "latent_indices" in example:
            assert indices.tolist() == example["latent_indices"]
        expected = example["latent_values" if "latent_values" in example else "latents"]
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_two_plain_strings_and_messages_are_one_row(folder: Path, examples: list[Example]) -> None:
    model = RewardModel.from_pretrained(folder)
    prompt, response = examples[1]["prompt"], examples[1]["response"]
    plain = model.score(prompt, response)
    chat = model.score([{"role": "user", "content": prompt}], response)
    assert plain.rewards.shape == (1,)
    assert plain.rewards.tobytes() == chat.rewards.tobytes()
