"""`sarm train --edits-file`: the same configuration as the edits spelled out, and whose head they are for."""

from pathlib import Path

import pytest

from sarm_control.cli._run_flags import RunFlags
from sarm_control.control import Edit, save_edits
from sarm_control.errors import ConfigError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_edits(
        tmp_path / "edits.json", [Edit(9, max=2.0), Edit(5, scale=0.5)], fingerprint="abc", model="lab"
    )
    return tmp_path / "edits.json"


def test_edits_of_the_file_join_those_spelled_out(saved: Path) -> None:
    config = RunFlags(edits_file=saved, edit=["4=0"]).config(None)
    assert config.reward.edits == (Edit(9, max=2.0), Edit(5, scale=0.5), Edit(4, set=0.0))
    assert config.reward.fingerprint == "abc"


def test_penalties_of_a_file_of_controls_are_not_dropped_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "controls.yaml"
    path.write_text("reward:\n  edits: ['9:max=2']\n  penalties: ['3:tau=1,alpha=0.5sd']\n")
    config = RunFlags(edits_file=path).config(None)
    assert (config.reward.edits, config.reward.penalties) == ((Edit(9, max=2.0),), ())
    assert "only its edits are used; pass 1 penalty with --controls" in capsys.readouterr().err


def test_two_edits_of_one_latent_name_the_flag(saved: Path) -> None:
    with pytest.raises(ConfigError, match="latent 9 has two edits"):
        RunFlags(edits_file=saved, edit=["9=0"]).config(None)
