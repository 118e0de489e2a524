"""Files: inputs are told apart in a manifest (oracle, property)."""

from pathlib import Path

from sarm_control.files import manifest, named_inputs, sha256_file


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
