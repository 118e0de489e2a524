"""Files: inputs told apart in a manifest (oracle, property); what cannot be written is named (bad input).

A folder that is replaced is the old or the new one, whole, wherever the process dies (property).
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sarm_control.errors import OutputError
from sarm_control.files import (
    atomic_file,
    atomic_folder,
    check_writable,
    clear_leftovers,
    manifest,
    named_inputs,
    remove_folder,
    sha256_file,
    write_json,
    write_text,
)
from tests.full_disk import no_file_above


def _file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_oracle_inputs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
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


# What can stop a process on its way through a replacement: each of these calls, before or after it.
STEPS = ("mkdtemp", "fsync", "rename", "replace", "rmtree")
_REPLACING = """
import os, shutil, signal, sys, tempfile
from pathlib import Path
from sarm_control.files import atomic_folder

place, step, number, when = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
calls = 0
owner = {"mkdtemp": tempfile, "rmtree": shutil}.get(step, os)
real = getattr(owner, step)

def counted(*words, **named):
    global calls
    calls += 1
    if calls == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if calls == number and when == "half":
        for path in sorted(Path(words[0]).rglob("*"))[:1]:
            path.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    found = real(*words, **named)
    if calls == number and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return found

setattr(owner, step, counted)
with atomic_folder(place, overwrite=True) as temporary:
    for name in "abc":
        (temporary / name).write_text("new")
"""


def _folder(place: Path, text: str) -> Path:
    place.mkdir()
    for name in "abc":
        (place / name).write_text(text)
    return place


def _whole(place: Path) -> str:
    """`old` or `new`: what every file of the folder says."""
    assert sorted(path.name for path in place.iterdir()) == ["a", "b", "c"]
    (text,) = {path.read_text() for path in place.iterdir()}
    return text


def _replace_and_die(place: Path, step: str, number: int, when: str) -> bool:
    words = [sys.executable, "-c", _REPLACING, str(place), step, str(number), when]
    code = subprocess.run(words, check=False, timeout=60).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize(
    ("step", "when"), [*((step, when) for step in STEPS for when in ("before", "after")), ("rmtree", "half")]
)
def test_property_a_folder_is_whole_wherever_its_replacement_is_killed(
    tmp_path: Path, step: str, when: str
) -> None:
    for number in range(1, 10):
        place = _folder(tmp_path / f"{number}", "old")
        died = _replace_and_die(place, step, number, when)
        aside = tmp_path / f".{number}.old"
        assert _whole(place if place.exists() else aside) in ("old", "new")
        # the next write, though it is refused, brings it to an end
        with pytest.raises(RuntimeError, match="no"), atomic_folder(place, overwrite=True):
            raise RuntimeError("no")
        assert _whole(place) in ("old", "new")
        assert [path.name for path in tmp_path.iterdir()] == [place.name]
        shutil.rmtree(place)
        if not died:
            break
    assert number > 1, "it never came by that step"
    assert not died


def test_a_folder_put_aside_by_a_killed_write_is_not_written_over_unasked(tmp_path: Path) -> None:
    place = _folder(tmp_path / "a", "old")
    assert _replace_and_die(place, "replace", 1, "before")
    assert not place.exists()
    with pytest.raises(OutputError, match=r"/a exists already$"), atomic_folder(place):
        pass
    assert _whole(place) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("step", ["rename", "replace"])
def test_a_refused_rename_leaves_the_old_folder_and_names_it(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _folder(tmp_path / "a", "old")

    def refused(source: object, target: object, **_: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(source), None, str(target))

    def replace_it() -> None:
        with atomic_folder(place, overwrite=True) as temporary:
            (temporary / "a").write_text("new")
            monkeypatch.setattr(os, step, refused)

    with pytest.raises(OutputError, match=r"^cannot write .*/a: Operation not permitted$"):
        replace_it()
    monkeypatch.undo()
    assert _whole(place) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_refused_deletion_leaves_the_new_folder_and_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = _folder(tmp_path / "a", "old")
    real = shutil.rmtree

    def refused(path: Path, ignore_errors: bool = False, **_: object) -> None:
        (Path(path) / "a").unlink(missing_ok=True)
        if not ignore_errors:
            raise PermissionError(1, "Operation not permitted", f"{path}/b")

    with atomic_folder(place, overwrite=True) as temporary:
        _ = [(temporary / name).write_text("new") for name in "abc"]
        monkeypatch.setattr(shutil, "rmtree", refused)
    assert _whole(place) == "new"
    said = capsys.readouterr().err
    assert "a is whole, but the folder it replaced could not be deleted: " in said
    assert "Operation not permitted" in said
    with pytest.raises(OutputError, match=r"cannot remove .*/a: Operation not permitted; what is left of it"):
        remove_folder(place)
    monkeypatch.setattr(shutil, "rmtree", real)
    with atomic_folder(place):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_interrupt_between_the_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _folder(tmp_path / "a", "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(place, overwrite=True) as temporary:
        (temporary / "a").write_text("new")
    assert _whole(place) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real = _folder(tmp_path / "disk" / "b", "old")
    (tmp_path / "a").symlink_to(real)
    with atomic_folder(tmp_path / "a", overwrite=True) as temporary:
        _ = [(temporary / name).write_text("new") for name in "abc"]
    assert (tmp_path / "a").is_symlink()
    assert _whole(real) == "new"


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with (
        pytest.raises(OutputError, match=r"/a is a file, and a folder is to be written$"),
        atomic_folder(tmp_path / "a", overwrite=True),
    ):
        pytest.fail("nothing is to be made first")
    assert (tmp_path / "a").read_text() == "mine"


def test_leftovers_go_and_what_was_aside_comes_back(tmp_path: Path) -> None:
    place = _folder(tmp_path / "a", "old")
    assert _replace_and_die(place, "replace", 1, "before")
    _folder(tmp_path / ".b.new-x", "half")
    (tmp_path / ".c.json.xyz").write_text("half")
    _folder(tmp_path / ".run.replaced", "kept")
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.replaced", "a"]
    assert _whole(place) == "old"
