"""Progress and remarks: golden lines under a clock set by hand, and a real terminal."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sarm_control import console


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    console.set_quiet(False)
    yield
    console.set_quiet(False)


def test_plain_lines_come_every_ten_seconds_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 4.0, 11.0, 12.0, 31.0, 40.0, 40.0])
    with console._plain_lines("Scoring", 400, lambda: next(times)) as advance:
        advance(40)
        advance(60, note="loss 0.30")
        advance(10)
        advance(100)
        advance(190)
    assert capsys.readouterr().err.splitlines() == [
        "Scoring: 100/400 (25 %), 33 s left, loss 0.30",
        "Scoring: 210/400 (52 %), 28 s left",
        "Scoring: 400 done in 40 s",
    ]


def test_short_work_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("Reading", 2) as advance:
        advance()
        advance()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Reading: 2 done in 0 s\n")


def test_failed_work_is_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with console.progress("Reading", 2) as advance:
            advance()
            raise ValueError("row 3")

    with pytest.raises(ValueError, match="row 3"):
        work()
    assert capsys.readouterr().err == ""


def test_quiet_silences_remarks_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    console.set_quiet(True)
    console.say("a remark")
    with console.progress("Reading", 1) as advance:
        advance(note="half")
    assert capsys.readouterr() == ("", "")


def test_no_progress_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.no_progress("Reading", 1) as advance:
        advance(1, note="x")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (-1, "0 s")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert console.duration(seconds) == words


def test_a_terminal_gets_one_bar_for_nested_work_with_remarks_above_it() -> None:
    program = (
        "from sarm_control.console import progress, say\n"
        "with progress('Training [1]', 2) as outer:\n"
        "    outer(1, note='reward 0.5')\n"
        "    with progress('Scoring', 3) as inner:\n"
        "        inner(3)\n"
        "        say('a remark [bold]')\n"
        "    outer(1)\n"
    )
    terminal, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.Popen([sys.executable, "-c", program], stderr=slave, env=environment)
    os.close(slave)
    text = _read_all(terminal)
    assert child.wait(timeout=30) == 0
    for shown in ("Training [1]", "2/2", "Scoring", "3/3", "reward 0.5", "a remark [bold]"):
        assert shown in text


def _read_all(terminal: int) -> str:
    chunks = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                chunk = stream.read(4096)
            except OSError:  # Linux reports the end of a terminal so
                break
            if not chunk:
                break
            chunks.append(chunk)
    return b"".join(chunks).decode()
