"""Penalties on patterns in the text: oracle by hand, metamorphic (none found, no change), bad input."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from sarm_control.comparison import open_run
from sarm_control.control import Controls, PatternPenalty, RewardRule
from sarm_control.engines.reward.open_reward import ControlFiles, open_reward
from sarm_control.errors import ConfigError
from sarm_control.reward_model import RewardModel
from sarm_control.training import RunConfig, load_config
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.config.validation import validate
from sarm_control.training.config.yaml_source import Document, dump_yaml
from sarm_control.training.data.prompts import training_rows
from sarm_control.training.run.dry_run import plan_lines
from sarm_control.training.run.run_folder import start_run
from sarm_control.training.run.train import run_training
from tests.training.tiny import TableSarm, all_answers


def reward(*patterns: PatternPenalty, shaping: Any = "none") -> PolicyReward:
    found = PolicyReward(cast(Any, TableSarm(2)), Controls(), patterns=patterns, shaping=shaping)
    found.calibrate(all_answers(2))
    return found


def test_oracle_an_answer_loses_the_amount_of_every_pattern_that_is_in_it() -> None:
    plain, listed = reward(), all_answers(2)
    assert plain.statistics is not None
    ruled = reward(PatternPenalty("^b", 0.25), PatternPenalty("(?i)C$", "2sd")).score(listed)
    lost = [
        0.25 * text.startswith("b") + 2 * plain.statistics.sd * text.endswith("c") for text in listed.texts
    ]
    assert 0 < np.count_nonzero(lost) < len(lost)
    np.testing.assert_allclose(ruled.columns["reward/pattern"], np.negative(lost), atol=1e-12)
    before = plain.score(listed).columns["reward/total"]
    np.testing.assert_allclose(ruled.columns["reward/total"], before - lost, atol=1e-12)


@pytest.mark.parametrize("shaping", ["none", "par"])
def test_the_parts_sum_to_the_total_and_a_pattern_that_is_nowhere_changes_nothing(shaping: str) -> None:
    listed = all_answers(2)
    ruled = reward(PatternPenalty("b", "1sd"), shaping=shaping).score(listed).columns
    parts = [column for name, column in ruled.items() if name != "reward/total"]
    np.testing.assert_allclose(np.sum(parts, axis=0), ruled["reward/total"], atol=1e-12)
    absent = reward(PatternPenalty("z", "1sd"), shaping=shaping).score(listed)
    np.testing.assert_array_equal(absent.scores, reward(shaping=shaping).score(listed).scores)


def test_scores_without_texts_are_refused() -> None:
    rule = RewardRule(Controls(), patterns=(PatternPenalty("b", 1.0),))
    scored = reward().scored(all_answers(2))
    with pytest.raises(ConfigError, match="needs the answers' texts"):
        rule.breakdown(scored)
    with pytest.raises(ConfigError, match="the pattern 'b' is given in SDs"):
        RewardRule.of(Controls(), 0.0, None, standardize=False, patterns=(PatternPenalty("b", "1sd"),))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [({"(": 1}, "is no regular expression"), ({"a": -1}, "neither a number >= 0"), (["a"], "patterns")],
)
def test_a_mistake_in_the_file_names_its_key(patterns: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Document({"reward": {"patterns": patterns}}))
    assert expected in str(caught.value)


RUN = {
    "reward": {"patterns": {"(?i)[aeiou]": "1sd"}},
    "training": {
        "steps": 1,
        "prompts_per_step": 2,
        "max_new_tokens": 6,
        "micro_batch": 4,
        "reference_answers": 8,
    },
    "evaluation": {"every": 0},
}


@pytest.mark.long
def test_a_run_is_trained_on_it_and_says_so_everywhere(tmp_path: Path) -> None:
    config = RunConfig.model_validate(RUN)
    (tmp_path / "run.yaml").write_text(dump_yaml(config.to_dict()), encoding="utf-8")
    assert load_config(tmp_path / "run.yaml") == config
    plan = plan_lines(config, training_rows(config.data))
    assert any("penalty on the pattern '(?i)[aeiou]' (alpha 1sd)" in line for line in plan)
    run = tmp_path / "run"
    run_training(config, start_run(run, config))
    assert '"reward/pattern":-' in (run / "metrics.jsonl").read_text().replace(" ", "")

    lab = RewardModel.from_pretrained("lab")
    trained = open_run(run)
    controls = trained.open_controls(lab)
    texts = ["xyz", "an owl"]
    parts = {
        measure.key: values
        for measure, values in controls.parts(lab.score(["Hi", "Hi"], texts), texts=texts).items()
    }
    np.testing.assert_allclose(parts["reward/pattern"], [0.0, -trained.statistics.sd])
    assert any(line.startswith("penalty on the pattern (?i)[aeiou]:") for line in controls.in_words())
    with pytest.raises(ConfigError, match=r"reward\.patterns are for `sarm train`"):
        open_reward(lab, ControlFiles(controls=run))
