"""`sarm config`: golden (what a difference looks like), property (show is read back), bad input."""

import json
from pathlib import Path

import pytest

from sarm_control.cli import main
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.config.validation import load_config
from sarm_control.training.run.run_folder import start_run

ROOT = Path(__file__).parents[2]
PLAIN, CONTROLLED = (str(ROOT / "examples" / name) for name in ("lab_plain.yaml", "lab.yaml"))


def test_the_examples_of_the_lab_differ_in_controls_and_in_what_is_saved_and_looked_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "diff", PLAIN, CONTROLLED]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'reward.edits: [] -> [{"latent": 8, "max": 2.0}]' in lines
    assert 'reward.human_kl.beta: (not set) -> "0.1sd"' in lines
    assert {line.partition(":")[0].partition(".")[0] for line in lines} == {
        "reward",
        "data",
        "checkpoints",
        "evaluation",
    }


def test_a_run_folder_stands_for_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(Path(CONTROLLED))
    start_run(tmp_path / "run", config)
    assert main(["config", "diff", CONTROLLED, str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{CONTROLLED} and {tmp_path / 'run'} have the same settings\n"


def test_a_folder_that_is_no_run_and_a_file_that_is_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "diff", PLAIN, str(tmp_path)]) == 2
    assert f"{tmp_path} is not a run folder: it has no config.yaml" in capsys.readouterr().err
    assert main(["config", "diff", PLAIN, str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: No such file or directory" in capsys.readouterr().err


def test_the_schema_describes_every_key_and_show_spells_out_every_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == RunConfig.model_json_schema()
    assert "multiplied by alpha / rank" in schema["$defs"]["LoraConfig"]["properties"]["alpha"]["description"]
    assert main(["config", "show", CONTROLLED]) == 0
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out)
    assert load_config(tmp_path / "shown.yaml") == load_config(Path(CONTROLLED))
    assert "importance_cap: 2.0" in (tmp_path / "shown.yaml").read_text()
