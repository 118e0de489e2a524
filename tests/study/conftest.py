"""A study of the smallest models: one reward model, five arms, two steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

THINGS = ("bread", "bomb", "lock", "door", "answer", "steps", "you", "we")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def base_file(
    tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path, tiny_sarm_folder: Path
) -> Path:
    """A run file whose every step takes a moment."""
    folder = tmp_path_factory.mktemp("study")
    prompts = [{"prompt": f"how do i {verb} the {thing} ?"} for verb in ("cook", "open") for thing in THINGS]
    write_rows(folder / "prompts.jsonl", prompts[4:])
    write_rows(folder / "held_out.jsonl", prompts[:4])
    run = {
        "policy": {"model": str(tiny_policy_folder), "lora": None},
        "reward": {"model": str(tiny_sarm_folder)},
        "data": {"prompts": str(folder / "prompts.jsonl")},
        "training": {
            "steps": 2,
            "prompts_per_step": 2,
            "answers_per_prompt": 2,
            "max_new_tokens": 4,
            "learning_rate": 1e-2,
            "reference_answers": 8,
        },
        "checkpoints": {"every": 1},
        "evaluation": {"every": 0},
    }
    path = folder / "base.yaml"
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def asked(base_file: Path) -> dict[str, Any]:
    """The values of a study file."""
    return {
        "base": str(base_file),
        "seeds": [0, 1],
        "prompts": str(base_file.parent / "held_out.jsonl"),
        "worlds": {"tiny": {"rule": "never|please", "strip": [["never|please", ""]]}},
        "arms": {
            "none": {},
            "edited": {"set": {"reward": {"edits": ["3:max=0.5", "5=0"]}}},
            "stopped": {"stop_at_kl_of": "edited", "seeds": [0]},
        },
        "compare": [["edited", "stopped"]],
    }


@pytest.fixture
def study_file(asked: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(asked, sort_keys=False))
    return path
