"""Edits from files for `sarm train`: the same configuration as spelled out, and whose head they are for."""

from pathlib import Path
from typing import Any

import pytest

from sarm_control.cli._run_flags import RunFlags
from sarm_control.control import Edit, save_edits
from sarm_control.discovery.features import Feature, Features
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


@pytest.fixture
def features(tmp_path: Path) -> Path:
    numbers: dict[str, Any] = dict.fromkeys(
        ("weight", "effect", "low", "high", "p", "q", "q_confirm", "auroc"), 0.5
    )
    others: dict[str, Any] = dict.fromkeys(
        ("effect_sd", "share_of_margin", "rate_chosen", "rate_rejected"), 0.5
    )
    harms = tuple(Feature(latent=latent, kind="paid-for-bad", **numbers, **others) for latent in (7, 3, 5))
    path = tmp_path / "features.json"
    Features("abc", "lab", "harmless", {"promotes": (), "harms": harms}, {}).save(path)
    return path


def test_edits_of_a_discovery_s_list_are_spelled_out(features: Path) -> None:
    config = RunFlags(edit=["4=0", f"@{features}#harms[:2]:max=1", f"@{features}#harms[-1]"]).config(None)
    assert config.reward.edits == (Edit(4, set=0.0), Edit(7, max=1.0), Edit(3, max=1.0), Edit(5, set=0.0))
    assert config.reward.fingerprint == "abc"


def test_a_run_file_takes_them_too_and_a_later_mistake_keeps_its_line(features: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    edits = f'reward:\n  edits:\n    - "@{features}#harms[:2]:*0.5"\n    - {{latent: 4, max: 1}}\n'
    run.write_text(edits)
    config = RunFlags().config(run)
    assert config.reward.edits == (Edit(7, scale=0.5), Edit(3, scale=0.5), Edit(4, max=1.0))
    run.write_text(edits.replace("max: 1", "maxx: 1"))
    with pytest.raises(ConfigError, match=r"run.yaml:4: unknown key 'maxx'"):
        RunFlags().config(run)


@pytest.mark.parametrize(
    ("setting", "edit", "message"),
    [
        (["reward.fingerprint=other"], "@{}#harms=0", "found on the head abc, this model has the head other"),
        ([], "@{}#harms[7:]=0", "nothing there, harms has 3 latents"),
        ([], "@{}#hurts=0", "no list hurts"),
        ([], "@{}.gone#harms=0", "No such file"),
        ([], "@{}#harms[:2]=x", "must be a number"),
    ],
)
def test_a_list_that_cannot_be_used_names_the_flag(
    features: Path, setting: list[str], edit: str, message: str
) -> None:
    with pytest.raises(ConfigError, match="--edit @") as caught:
        RunFlags(edit=[edit.format(features)], set=setting).config(None)
    assert message in str(caught.value)
