"""One output, one process: the second writer is refused, and a crash locks nobody out (property)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sarm_control.cli import main
from sarm_control.errors import OutputError
from sarm_control.files import atomic_folder, clear_leftovers
from sarm_control.locks import hold, let_go, locked

_HOLDING = """
import sys, time
from pathlib import Path
from sarm_control.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes `tmp_path / "a"`."""
    words = [sys.executable, "-c", _HOLDING, str(tmp_path / "a")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_process_is_refused_and_told_who_is_first(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    message = rf"^.*/a is being written by another process \(process {holder.pid} on .+\)$"
    with pytest.raises(OutputError, match=message) as told, locked(tmp_path / "a"):
        pytest.fail("two at once")
    assert told.value.hint == "wait until it is done or stop it, or choose another output"
    with pytest.raises(OutputError, match=message), atomic_folder(tmp_path / "a"):
        pytest.fail("two at once")
    with pytest.raises(OutputError, match=message):
        hold(tmp_path / "a")
    with locked(tmp_path / "b"):
        assert (tmp_path / ".b.lock").is_file()
    assert not (tmp_path / ".b.lock").exists()


def test_a_killed_process_locks_nobody_out(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".a.lock").is_file()
    with locked(tmp_path / "a") as certain:
        assert certain
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("holder")
def test_another_name_of_a_folder_is_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(OutputError, match="is being written"), locked(tmp_path / "link"):
        pytest.fail("two at once")


def test_one_process_may_take_it_again_and_keeps_it_until_the_last_end(tmp_path: Path) -> None:
    with locked(tmp_path / "a"):
        with locked(tmp_path / "a"):
            pass
        assert (tmp_path / ".a.lock").is_file()
    hold(tmp_path / "a")
    hold(tmp_path / "a")
    assert (tmp_path / ".a.lock").is_file()
    let_go()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("holder")
def test_what_another_process_writes_is_no_leftover(tmp_path: Path) -> None:
    (tmp_path / ".a.new-x").mkdir()
    (tmp_path / ".b.new-x").mkdir()
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.lock", ".a.new-x"]


_RACING = """
import sys, time
from pathlib import Path
from sarm_control.errors import OutputError
from sarm_control.locks import locked
place, until = Path(sys.argv[1]), time.monotonic() + 1.5
while time.monotonic() < until:
    try:
        with locked(place / "a"):
            (place / "inside").mkdir()
            (place / "inside").rmdir()
    except OutputError:
        pass
"""


def test_property_never_two_at_once(tmp_path: Path) -> None:
    """The lock file comes and goes meanwhile; `mkdir` fails where two are inside."""
    words = [sys.executable, "-c", _RACING, str(tmp_path)]
    racers = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [(racer.communicate(timeout=60)[1], racer.returncode) for racer in racers]
    assert ends == [("", 0)] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / ".a.lock").symlink_to(tmp_path / "mine")
    started = time.monotonic()
    with pytest.raises(OutputError, match=r"cannot write .*/a: Too many levels of symbolic links"):
        hold(tmp_path / "a")
    assert time.monotonic() - started < 5
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    "words",
    [
        ["score", "lab:audit", "-o"],
        ["latents", "-o"],
        ["discover", "lab:audit", "-o"],
        ["probe", "lab:audit", "--edit", "3=0", "-o"],
        ["rerank", "lab:audit", "--edit", "3=0", "-o"],
        [
            "build",
            "--base",
            "lab",
            "--layer",
            "2",
            "--latents",
            "24",
            "--k",
            "6",
            "--pairs",
            "lab:audit",
            "-o",
        ],
        ["lab", "build", "-o"],
        ["demo", "-o"],
        ["train", "--steps", "1", "-o"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_command_refuses_an_output_that_another_one_is_writing(
    words: list[str], tmp_path: Path, holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, str(tmp_path / "a")]) == 2
    said = capsys.readouterr().err
    assert f"error: {tmp_path}/a is being written by another process (process {holder.pid} on " in said
    assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
