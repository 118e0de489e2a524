"""Notes, live runs, audits and names: what is read and written, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from sarm_control.errors import DataError, ModelError
from sarm_control.explorer import LiveRun, Notes, names_in, read_audit
from sarm_control.explorer.notes import Conflict, Note
from sarm_control.explorer.sources import attributes_of


def test_a_note_is_kept_and_read_by_the_next_start(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes.json", "head")
    assert notes.save(7, "praise", 0) == Note("praise", 1)
    assert Notes(tmp_path / "notes.json", "head").all() == {7: Note("praise", 1)}


def test_a_note_that_another_tab_saved_is_not_overwritten(tmp_path: Path) -> None:
    one, other = Notes(tmp_path / "notes.json", "head"), Notes(tmp_path / "notes.json", "head")
    one.save(7, "first", 0)
    with pytest.raises(Conflict) as told:
        other.save(7, "second", 0)
    assert told.value.current == Note("first", 1)
    assert other.save(7, "second", 1) == Note("second", 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "other"}, "not a file of notes"),
        ({"format": "sarm-notes-1", "head": "x"}, "notes on the head 'x', this model has the head head"),
        ({"format": "sarm-notes-1", "head": "head", "notes": {"7": 3}}, "not a file of notes"),
    ],
)
def test_other_files_are_no_notes(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    (tmp_path / "notes.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        Notes(tmp_path / "notes.json", "head")


def test_a_long_note_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a note of 20001 characters"):
        Notes(tmp_path / "notes.json", "head").save(1, "x" * 20_001, 0)


def test_a_row_that_is_half_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "reward/total": 0.5}\n{"step": 2, "rew')
    run = LiveRun(tmp_path)
    first = run.read({})
    assert [row["step"] for row in first.rows["metrics"]] == [1]
    with log.open("a") as stream:
        stream.write('ard/total": 0.75}\n')
    second = run.read(first.offsets)
    assert second.rows["metrics"] == [{"step": 2, "reward/total": 0.75}]
    assert run.read(second.offsets).rows["metrics"] == []


def test_all_of_a_long_log_is_read_look_by_look(tmp_path: Path) -> None:
    """One look reads 4 MiB: what is left is said to be there, be it less than another look."""
    rows = [{"step": step, "text": "x" * 1000} for step in range(6000)]
    log = tmp_path / "samples.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = LiveRun(tmp_path)
    found = run.read({})
    read = found.rows["samples"]
    assert found.more
    while found.more:
        found = run.read(found.offsets)
        read += found.rows["samples"]
    assert read == rows


def test_a_line_longer_than_a_look_is_not_looked_at_for_ever(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text(json.dumps({"text": "x" * (9 << 20)}) + "\n")
    assert not LiveRun(tmp_path).read({}).more


def test_a_run_that_went_back_to_a_checkpoint_is_read_anew(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n')
    run = LiveRun(tmp_path)
    offsets = run.read({}).offsets
    log.write_text('{"step": 1}\n')
    found = run.read(offsets)
    assert found.again == ("metrics",)
    assert found.rows["metrics"] == [{"step": 1}]


def test_lines_that_are_no_rows_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('nonsense\n[1]\n{"step": 3}\n')
    assert LiveRun(tmp_path).read({}).rows["metrics"] == [{"step": 3}]


def test_a_folder_that_is_no_run_is_refused_and_an_empty_one_is_waited_for(tmp_path: Path) -> None:
    assert LiveRun(tmp_path).about() == {"name": tmp_path.name, "steps": None}
    (tmp_path / "manifest.json").write_text('{"config": {"training": {"ste')
    assert LiveRun(tmp_path).about()["steps"] is None
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(DataError, match="is no run folder"):
        LiveRun(tmp_path)
    with pytest.raises(DataError, match="no such run folder"):
        LiveRun(tmp_path / "none")


def test_an_audit_says_what_a_latent_carries(tmp_path: Path) -> None:
    carried = {"edit": "praise before", "sd": 0.6, "latents": [{"latent": 8, "sd": 0.3}]}
    flattery = {"name": "flattery", "words": "praise", "causal": carried}
    content = {"head": "h", "attributes": [flattery, {"name": "length", "words": "", "causal": None}]}
    (tmp_path / "audit.json").write_text(json.dumps(content))
    audit = read_audit(tmp_path, "h")
    assert attributes_of(audit, 8) == [
        {"name": "flattery", "words": "praise", "edit": "praise before", "sd": 0.3, "of": 0.6}
    ]
    assert attributes_of(audit, 9) == []
    with pytest.raises(DataError, match="an audit of the head 'h', this model has other"):
        read_audit(tmp_path, "other")
    (tmp_path / "audit.json").write_text(json.dumps({"head": "h", "attributes": [3]}))
    with pytest.raises(DataError, match="not an audit"):
        read_audit(tmp_path, "h")


def test_names_come_with_their_scores_and_words_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [{"text": "amazing", "z": 3.0, "active": 0.4, "inactive": 0.1}]
    name = {"text": "praise", "balanced_accuracy": 0.9, "low": 0.8, "high": 0.95}
    labels = [{"latent": 3, "name": name, "words": words}, {"latent": 4, "name": None, "words": words}]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"labels": labels}))
    found = names_in(path, "h", 24)
    assert "labels.json does not say which head its latents are of" in capsys.readouterr().err
    assert found[3] == ("praise", 0.9, "balanced accuracy", 0.8, 0.95)
    assert found[4].text == "amazing"
    with pytest.raises(DataError, match="there is no latent 4, this model has 4"):
        names_in(path, "h", 4)
    named = {"head": "h", "model_fingerprint": "m", "labels": labels}
    path.write_text(json.dumps(named))
    assert names_in(path, "h", 24, "m") == names_in(path, "h", 24) == found
    with pytest.raises(ModelError, match="names latents of the head 'h', this model has the head g") as told:
        names_in(path, "g", 24)
    assert told.value.hint == "label this model's latents: sarm label"
    with pytest.raises(ModelError, match="the heads are equal, trunk or autoencoder are not"):
        names_in(path, "h", 24, "n")
    path.write_text('{"labels": [{}]}')
    with pytest.raises(DataError, match="not a file of labels"):
        names_in(path, "h", 24)
