"""Study files: bad input (every message), and which cells they mean."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sarm_control.errors import ConfigError, OutputError
from sarm_control.study import StudyConfig, cells_of, chosen_cells, load_study, open_study
from sarm_control.study.arms import run_config
from sarm_control.study.cells import Cell
from sarm_control.study.cells import asked as digest_of
from sarm_control.study.worker import base_values
from tests.study.conftest import write_rows

# ruff: noqa: E501
WRONG = {
    "seedz: [1]": r"study.yaml:\d+: unknown key 'seedz'; did you mean 'seeds'\?",
    "arms: {none: {sets: {}}}": r"study.yaml:\d+: unknown key 'arms.none.sets'; did you mean 'set'\?",
    "worlds: {tiny: {rules: x}}": r"unknown key 'worlds.tiny.rules'; did you mean 'rule'\?",
    "arms: {none: {discover: {label: shuffled}}}": r"unknown key 'arms.none.discover.label'; did you mean 'labels'",
    "arms: {}": r"arms: Dictionary should have at least 1 item",
    "baseline: nothing": r"there is no arm 'nothing'; the arms are none, edited, stopped",
    "compare: [[edited, random]]": r"there is no arm 'random'",
    "arms: {none: {}, a: {stop_at_kl_of: b}}": r"a matches the KL of 'b', which is no arm that runs by itself",
    "arms: {none: {}, a: {stop_at_kl_of: none, set: {training: {steps: 1}}}}": r"changes nothing else",
    "arms: {none: {}, a: {stop_at_kl_of: none, hold_kl_of: none}}": r"exclude each other; make an arm of each",
    "arms: {none: {}, a: {discover: {}}}": r"arm a discovers, and world tiny has no audit pairs: set audit",
    "arms: {none: {}, a: {discover: {audit: b}}}": r"arm a discovers in 'b', which is none of the audits of tiny",
    "arms: {none: {}, a: {controls: x.yaml, discover: {}}}": r"an arm has one source of controls",
    "arms: {none: {}, a: {discover: {labels: shuffled, latents: random}}}": r"are two placebos",
    "arms: {none: {}, a-b: {}, a b: {}}": r"names of arms must differ in letters and digits",
    "worlds: {tiny: {rule: '('}}": r"'\(' is no regular expression",
    "{arms: {none: {}, known: {rule_penalty: 1sd}}, worlds: {tiny: {}}}": r"arm known penalises the rule, and world tiny has none: set rule",
    "arms: {none: {}, a: {stop_at_kl_of: none, rule_penalty: 1}}": r"changes nothing else",
    "worlds: {tiny: {lab: lab, audit: [a.jsonl]}}": r"lab names the audit pairs and prompts of its world",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_named_with_its_place(text: str, study_file: Path, asked: dict[str, Any]) -> None:
    values = {**asked, **yaml.safe_load(text)}
    if "arms" in text:
        values["compare"] = []
    study_file.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(ConfigError, match=WRONG[text]):
        load_study(study_file)


def test_a_study_without_held_out_prompts_or_without_arms_is_refused(
    study_file: Path, asked: dict[str, Any]
) -> None:
    study_file.write_text(yaml.safe_dump({key: value for key, value in asked.items() if key != "prompts"}))
    with pytest.raises(ConfigError, match="world tiny has no held-out prompts: set prompts"):
        load_study(study_file)
    study_file.write_text("seeds: [1]\n")
    with pytest.raises(ConfigError, match=re.escape(f"{study_file}: missing key 'arms'")):
        load_study(study_file)


def test_settings_that_no_run_could_have_are_refused_before_anything_runs(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    values = {**asked, "arms": {**asked["arms"], "fast": {"set": {"training": {"learning_rate": 1e30}}}}}
    with pytest.raises(ConfigError, match=r"training.learning_rate: 1e\+30 is out of range"):
        open_study(tmp_path / "out", StudyConfig.model_validate(values))
    assert not (tmp_path / "out").exists()


def test_the_oracle_penalises_the_rule_of_its_world(tmp_path: Path, asked: dict[str, Any]) -> None:
    arms = {"none": {}, "known": {"rule_penalty": "2sd"}}
    study = StudyConfig.model_validate({**asked, "compare": [], "arms": arms})
    assert run_config(tmp_path, study, Cell("tiny", "known", 0)).reward.patterns == {"never|please": "2sd"}
    assert run_config(tmp_path, study, Cell("tiny", "none", 0)).reward.patterns == {}


def test_compared_arms_come_first_and_a_match_after_what_it_matches(asked: dict[str, Any]) -> None:
    cells = cells_of(StudyConfig.model_validate({**asked, "arms": {"extra": {}, **asked["arms"]}}))
    assert [(cell.arm, cell.seed) for cell in cells] == [
        *(("none", 0), ("edited", 0), ("stopped", 0), ("none", 1), ("edited", 1)),
        *(("extra", 0), ("extra", 1)),
    ]


def test_cells_are_chosen_by_arm_by_world_and_by_pattern(asked: dict[str, Any]) -> None:
    cells = cells_of(StudyConfig.model_validate(asked))
    assert len(chosen_cells(cells, [])) == len(chosen_cells(cells, ["tiny"])) == 5
    assert chosen_cells(cells, ["stopped"]) == [Cell("tiny", "stopped", 0)]
    assert chosen_cells(cells, ["tiny/*/seed-1", "stopped"])[0] == Cell("tiny", "stopped", 0)
    with pytest.raises(ConfigError, match="--only nobody: no such cell") as refused:
        chosen_cells(cells, ["nobody"])
    assert refused.value.hint == (
        "name an arm, a world or a cell: none, edited, stopped, tiny, tiny/none/seed-0"
    )


def test_the_digest_of_a_cell_changes_with_what_decides_it_and_with_nothing_else(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    def digests(**changes: Any) -> dict[Cell, str]:
        study = StudyConfig.model_validate({**copy.deepcopy(asked), **changes})
        return {cell: digest_of(study, base_values(study), cell) for cell in cells_of(study)}

    known = digests()
    assert digests(seeds=[0, 1, 2]).items() >= known.items()
    arms = {**asked["arms"], "edited": {"set": {"reward": {"edits": ["3=0"]}}}}
    changed = {cell.arm for cell, digest in digests(arms=arms).items() if digest != known[cell]}
    # a run that matches another's KL is another one when that one is
    assert changed == {"edited", "stopped"}
    other = write_rows(tmp_path / "held_out.jsonl", [{"prompt": "how do i cook the bread ?"}])
    assert not set(digests(prompts=str(other)).values()) & set(known.values())


def test_a_folder_that_is_no_study_is_left_alone(tmp_path: Path, asked: dict[str, Any]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not a study"):
        open_study(tmp_path, StudyConfig.model_validate(asked))
