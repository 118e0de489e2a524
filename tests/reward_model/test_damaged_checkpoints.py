"""Property: whatever a checkpoint's JSON files hold, it loads and scores or says in one line why not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sarm_control.bounded_json import read_json_object
from sarm_control.conversation import load_tokenizer
from sarm_control.errors import ModelError, SarmError
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.description import describe
from sarm_control.reward_model.files.checkpoint_files import INDEX
from tests.reward_model import release_shape

ODD = st.recursive(
    st.sampled_from([None, True, False, 0, -1, 1, 3, 5.9, 1e308, -0.0, 2**70, "", "false", "llama", "../x"])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
RAW_BYTES = st.sampled_from([b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"a": NaN}', b"{}", b"[" * 2_000])


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release_shape.write(tmp_path_factory.mktemp("damaged") / "sarm")


def places(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key of nested objects."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from places(inner, (*at, key))


def put(value: dict[str, Any], place: tuple[str, ...], new: Any) -> None:
    """Sets what lies at a path; does nothing where damage before it took the way there."""
    for key in place[:-1]:
        inner = value.get(key)
        if not isinstance(inner, dict):
            return
        value = inner
    value[place[-1]] = new


def loads_or_says_why(folder: Path) -> None:
    def scored() -> object:
        return RewardModel.from_pretrained(folder).score("why ?", "no .")

    said = []
    for read in (scored, lambda: describe(folder)):
        try:
            read()
        except SarmError as error:
            said.append(str(error))
    assert all(line.strip() and "\n" not in line for line in said)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_configuration_of_any_values(release: Path, data: st.DataObject) -> None:
    raw = release_shape.config(release_shape.NEWER)
    known = [*places(raw), ("attn_implementation",), ("layer_types",), ("text_config",), ("num_labels",)]
    for _ in range(data.draw(st.integers(1, 3))):
        put(raw, data.draw(st.sampled_from(known)), data.draw(ODD))
    (release / "config.json").write_text(json.dumps(raw))
    loads_or_says_why(release)


@pytest.mark.long
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_index_of_any_values(release: Path, data: st.DataObject) -> None:
    (release / "config.json").write_text(json.dumps(release_shape.config(release_shape.NEWER)))
    kept = (release / INDEX).read_bytes()
    raw = json.loads(kept)
    for _ in range(data.draw(st.integers(1, 2))):
        put(raw, data.draw(st.sampled_from([*places(raw)])), data.draw(ODD))
    try:
        (release / INDEX).write_text(json.dumps(raw))
        loads_or_says_why(release)
    finally:
        (release / INDEX).write_bytes(kept)


@pytest.mark.long
@pytest.mark.parametrize("file", ["config.json", INDEX, "tokenizer.json", "tokenizer_config.json"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), instead=RAW_BYTES | st.binary(max_size=20), whole=st.booleans())
def test_files_of_any_bytes(release: Path, file: str, cut: int, instead: bytes, whole: bool) -> None:
    (release / "config.json").write_text(json.dumps(release_shape.config(release_shape.NEWER)))
    kept = (release / file).read_bytes()
    try:
        (release / file).write_bytes(instead if whole else kept[:cut] + instead + kept[cut:])
        loads_or_says_why(release)
    finally:
        (release / file).write_bytes(kept)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "not a JSON object but a list of 1"),
        ("3", "not a JSON object but 3"),
        ("null", "not a JSON object but None"),
        ("{", "not JSON: "),
        ('{"a": NaN}', "not JSON: NaN is not a JSON number"),
        ('{"a": 1e999}', "not JSON: 1e999 is too large for a number"),
        ('{"a": ' + "9" * 5_000 + "}", "not JSON: a number of 5000 digits"),
        ('{"a": ' * 200_000 + "1" + "}" * 200_000, "not JSON: nested more than 100 deep"),
        ('{"a": ' * 101 + "1" + "}" * 101, "not JSON: nested more than 100 deep"),
        ('{"a": "\\ud800"}', "not JSON: half a character"),
    ],
    ids=lambda text: text[:12],
)
def test_what_no_json_object_is(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "some.json"
    file.write_text(text)
    with pytest.raises(SarmError, match=rf"some\.json: {message}"):
        read_json_object(file, finite=True)


def test_files_that_are_too_large_or_no_text(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_text('{"a": "' + "x" * 100 + '"}')
    assert read_json_object(file, most_bytes=109) == {"a": "x" * 100}
    with pytest.raises(SarmError, match=r"some\.json: larger than 108 bytes, the most that is read"):
        read_json_object(file, most_bytes=108)
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(SarmError, match=r"some\.json: not UTF-8 at byte 8"):
        read_json_object(file)
    with pytest.raises(SarmError, match=r"none\.json: No such file"):
        read_json_object(tmp_path / "none.json")


def test_a_tokenizer_that_fails_is_told(release: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(release, tmp_path / "copy")
    (folder / "tokenizer.json").write_text('{"model": {"type": "no such"}}')
    with pytest.raises(ModelError, match="no tokenizer can be loaded from"):
        load_tokenizer(str(folder), local_files_only=True)


def test_a_tokenizer_without_its_file_is_told(release: Path, tmp_path: Path) -> None:
    """Some versions of transformers make one of special tokens alone, which reads every word alike."""
    folder = shutil.copytree(release, tmp_path / "copy")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer can be loaded from") as caught:
        load_tokenizer(str(folder), local_files_only=True)
    assert "put the tokenizer files" in str(caught.value.hint)
