"""Files of edits: every form that is read, property (what is saved is read back), bad input."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.control import Edit, load_edits, save_edits
from sarm_control.control.edits.edit_files import EditFile, read_edit_file
from sarm_control.errors import ConfigError, ModelError

CONTROLS = """\
# from sarm discover
reward:
  fingerprint: "abc"
  edits:
    - {latent: 9, max: 2.0}
    - "5=0"
  penalties:
    - {latent: 3, tau: 1.0, alpha: 0.5sd}
"""
numbers = st.floats(-4, 4, allow_nan=False)
edits = st.one_of(
    st.builds(Edit, st.just(1), set=numbers),
    st.builds(Edit, st.just(1), scale=numbers, add=st.none() | numbers),
    st.builds(Edit, st.just(1), min=st.floats(-4, 0), max=st.none() | st.floats(0, 4)),
)


@settings(max_examples=40)
@given(edits)
def test_property_what_is_saved_is_read_back(tmp_path_factory: pytest.TempPathFactory, edit: Edit) -> None:
    path = tmp_path_factory.mktemp("edits") / "edits.json"
    save_edits(path, [edit, Edit(2, set=0.0)], fingerprint="abc", model="lab")
    assert read_edit_file(path) == EditFile([edit, Edit(2, set=0.0)], "abc")


def test_the_saved_file_is_one_a_person_can_read(tmp_path: Path) -> None:
    save_edits(tmp_path / "edits.json", [Edit(9, max=2.0)], fingerprint="abc", model="lab")
    content = json.loads((tmp_path / "edits.json").read_text())
    assert content == {
        "format": "sarm-edits-1",
        "model": "lab",
        "head": "abc",
        "edits": [{"latent": 9, "max": 2.0}],
    }


def test_controls_give_their_edits_and_say_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "controls.yaml"
    path.write_text(CONTROLS)
    assert read_edit_file(path) == EditFile([Edit(9, max=2.0), Edit(5, set=0.0)], "abc", ("1 penalty",))


def test_everything_that_is_no_edit_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "controls.json"
    penalty = {"latent": 3, "tau": 1.0, "alpha": 0.5}
    for penalties, said in (([], ()), ([penalty] * 2, ("2 penalties",)), ([penalty] * 3, ("3 penalties",))):
        path.write_text(json.dumps({"penalties": penalties, "human_kl": {"beta": 0.1}}))
        assert read_edit_file(path) == EditFile([], None, (*said, "the human-KL term"))


def test_edits_made_for_another_head_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    save_edits(path, [Edit(9, max=2.0)], fingerprint="abc", model="lab")
    assert load_edits(path, fingerprint="abc") == [Edit(9, max=2.0)]
    for other in ("def", "aaa"):
        with pytest.raises(
            ModelError, match=rf"edits.json was made for head abc, this reward model has {other}"
        ):
            load_edits(path, fingerprint=other)
    # a file that names no head is for any
    path.write_text('[{"latent": 9, "max": 2}]')
    assert load_edits(path, fingerprint="def") == [Edit(9, max=2.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "sarm-edits-9", "edits": []}', "format 'sarm-edits-9', wants 'sarm-edits-1'"),
        ('{"format": "sarm-edits-0", "edits": []}', "format 'sarm-edits-0', wants 'sarm-edits-1'"),
        ('{"format": "sarm-edits-1", "edits": [3]}', "edits is not a list of edits"),
        ('{"edits": [], "fingerprint": 5}', "fingerprint is 5, it must be the fingerprint of a head"),
        ('{"edits": [], "penalties": {"latent": 3}}', "penalties is .*, it must be a list"),
        ('{"format": "sarm-edits-1", "edit": []}', "unknown key 'edit'; did you mean edits"),
        ('{"format": "sarm-edits-1", "edits": {"latent": 5}}', "edits is not a list of edits"),
        ('{"edits": [3]}', "3 is not an edit"),
        ('{"reward": [3]}', "reward is not a mapping"),
    ],
)
def test_a_bad_file_is_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "edits.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"edits.json: .*{message}"):
        read_edit_file(path)


def test_bad_yaml_is_said_to_be_yaml(tmp_path: Path) -> None:
    path = tmp_path / "controls.yaml"
    path.write_text("reward: [")
    with pytest.raises(ConfigError, match=r"controls.yaml:1: not YAML"):
        read_edit_file(path)
