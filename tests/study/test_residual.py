"""The residual as a measure of a study: of real answers (oracle), and its share of a rise by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sarm_control.reward_model import RewardModel
from sarm_control.study import Cell, StudyConfig
from sarm_control.study.cells import CellState
from sarm_control.study.measures import Measuring
from sarm_control.study.tables import study_tables, study_text
from sarm_control.training import RunConfig


def test_oracle_answers_have_the_residual_of_their_rewards(
    tmp_path: Path, asked: dict[str, Any], base_file: Path, tiny_attached_folder: Path, tiny_sarm_folder: Path
) -> None:
    study = StudyConfig.model_validate(asked)
    for model, kind in ((tiny_attached_folder, "attached"), (tiny_sarm_folder, "sarm")):
        config = RunConfig.model_validate(yaml.safe_load(base_file.read_text()))
        reward = config.reward.model_copy(update={"model": str(model)})
        config = config.model_copy(update={"reward": reward})
        rows = Measuring(study, "tiny", config).of_start(tmp_path / kind)
        assert all(("residual" in row) == (kind == "attached") for row in rows)
        if kind == "sarm":
            continue
        rm = RewardModel.from_pretrained(model)
        prompts = [
            json.loads(line)["prompt"]
            for line in (base_file.parent / "held_out.jsonl").read_text().split("\n")
            if line
        ]
        scored = rm.score(
            [prompts[row["prompt"]] for row in rows],
            [row["response"] for row in rows],
            ended=[row["ended"] for row in rows],
        )
        np.testing.assert_allclose([row["residual"] for row in rows], scored.residual, atol=1e-5)
        assert np.ptp(scored.residual) > 0


def cell_rows(start: list[tuple[float, float]], end: list[tuple[float, float]]) -> list[dict[str, Any]]:
    return [
        {"policy": policy, "prompt": prompt, "reward": reward, "residual": residual}
        for policy, values in (("start", start), ("end", end))
        for prompt, (reward, residual) in enumerate(values)
    ]


def test_oracle_the_share_is_that_of_the_rise_and_the_unit_is_the_rewards(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    start = [(0.0, 0.1), (2.0, 0.3)]
    runs = {
        # the reward rises by 2, the residual by 0.5
        ("none", 0): cell_rows(start, [(3.0, 0.6), (3.0, 0.8)]),
        ("none", 1): cell_rows(start, [(1.0, 0.1), (2.0, 0.2)]),
        # a reward that did not rise has no share
        ("edited", 0): cell_rows(start, [(0.0, 0.9), (1.0, 0.9)]),
    }
    states = []
    for (arm, seed), rows in runs.items():
        cell = Cell("tiny", arm, seed)
        cell.answers(tmp_path).parent.mkdir(parents=True, exist_ok=True)
        cell.answers(tmp_path).write_text("".join(json.dumps(row) + "\n" for row in rows))
        states.append(CellState(cell, "done", {}))
    found = study_tables(tmp_path, StudyConfig.model_validate(asked), states)
    tables = found["worlds"]["tiny"]
    assert tables["residual_shares"] == {"none": pytest.approx([0.25, -0.1]), "edited": [None]}
    assert tables["units"]["residual"] == tables["units"]["reward"] == pytest.approx(np.sqrt(2))
    assert tables["measures"]["residual"]["arms"]["none"]["change"]["mean"] == pytest.approx(
        0.225 / np.sqrt(2)
    )
    text = study_text(found)
    assert "none: the residual's share of the reward's rise is 0.07 (median of 2 runs" in text
    assert "whose reward rose, -0.10 to 0.25)" in text
    assert "edited: the residual" not in text
    assert "residual, SD" in text
