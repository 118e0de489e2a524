"""Files: inputs told apart in a manifest (oracle, property); what cannot be written is named (bad input)."""

from pathlib import Path

import pytest

from sarm_control.errors import OutputError
from sarm_control.files import (
    atomic_file,
    atomic_folder,
    check_writable,
    manifest,
    named_inputs,
    sha256_file,
    write_json,
    write_text,
)
from tests.full_disk import no_file_above


def _file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_oracle_inputs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    first, second = _file(tmp_path / "a" / "rows.jsonl", "1"), _file(tmp_path / "b" / "rows.jsonl", "2")
    third, other = _file(tmp_path / "c" / "a" / "rows.jsonl", "3"), _file(tmp_path / "pairs.jsonl", "4")
    files = [first, second, third, other, first]
    assert named_inputs(files) == {
        "a/rows.jsonl": first,
        "b/rows.jsonl": second,
        "a/rows.jsonl (2)": third,
        "pairs.jsonl": other,
    }
    assert manifest("test", inputs=files, config={})["inputs"] == {
        name: sha256_file(path) for name, path in named_inputs(files).items()
    }


def test_a_file_that_may_not_grow_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    message = r"^cannot write .*/a\.json: File too large$"
    with no_file_above(64), pytest.raises(OutputError, match=message) as told:
        write_json(path, ["x" * 100])
    assert told.value.hint == "make room for a file of that size (ulimit -f shows the limit)"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_a_folder_whose_file_may_not_grow_is_named_and_not_there(tmp_path: Path) -> None:
    with (
        no_file_above(64),
        pytest.raises(OutputError, match=r"^cannot write .*/a: File too large$"),
        atomic_folder(tmp_path / "a") as temporary,
    ):
        (temporary / "file").write_bytes(bytes(100))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_goes_away_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"^cannot write .*/a: No such file or directory$") as told,
        atomic_folder(tmp_path / "a") as temporary,
    ):
        temporary.rename(tmp_path / "away")
    assert told.value.hint == "choose an output path in a folder you can write to"


def test_errors_about_other_files_keep_their_own_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), atomic_file(tmp_path / "a"):
        (tmp_path / "other").read_text()


def test_a_folder_is_only_made_when_it_may_be(tmp_path: Path) -> None:
    check_writable(tmp_path / "new/er/a", make=False)
    assert list(tmp_path.iterdir()) == []
    check_writable(tmp_path / "new/er/a")
    assert (tmp_path / "new/er").is_dir()
