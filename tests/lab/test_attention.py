"""Metamorphic: the lab's rewards do not depend on the batch, to 1e-6; a checkpoint keeps its attention."""

from pathlib import Path

import numpy as np
import pytest

from sarm_control.data.rows import read_rows
from sarm_control.reward_model import RewardModel


@pytest.mark.long
def test_rewards_are_the_same_in_every_batch() -> None:
    model = RewardModel.from_pretrained("lab")
    rows = read_rows("lab:preferences", want={"pair"})[:600]
    prompts, answers = [row.prompt for row in rows], [row.chosen[0] for row in rows]
    found = [model.score(prompts, answers, batch_tokens=tokens).rewards for tokens in (1, 300, 2048)]
    assert np.ptp(found, axis=0).max() < 1e-6


def test_a_saved_copy_attends_as_the_lab_does(tmp_path: Path) -> None:
    RewardModel.from_pretrained("lab").save_pretrained(tmp_path / "copy")
    copy = RewardModel.from_pretrained(str(tmp_path / "copy"))
    assert copy.trunk.model.config._attn_implementation == "eager"
