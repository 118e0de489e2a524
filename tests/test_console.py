"""Progress, remarks and tables: golden lines under a clock set by hand, and a real terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_steps_of_an_earlier_process_took_none_of_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 20.0, 60.0, 60.0])
    with console._plain_lines("Training", 20, lambda: next(times), 15) as advance:
        advance(1)
        advance(2)
    # 20 s a step: not 20 s / 16
    assert capsys.readouterr().err.splitlines()[:2] == [
        "Training: 16/20 (80 %), 1 min 20 s left",
        "Training: 18/20 (90 %), 40 s left",
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


TABLE = [
    ["", "answers", "change, 95 % interval", "share of the margin"],
    ["chosen [bold] answers of the target", "1,234", "+0.1234 [+0.0123, +0.2345]", "12.5 %"],
    ["rejected", "7", "-0.5 (1 prompt)", "-"],
]


def test_golden_a_table_is_as_wide_as_its_cells_and_keeps_brackets() -> None:
    assert list(console.aligned(TABLE, left=1)) == [
        "                                       answers       change, 95 % interval  share of the margin",
        "  chosen [bold] answers of the target    1,234  +0.1234 [+0.0123, +0.2345]               12.5 %",
        "  rejected                                   7             -0.5 (1 prompt)                    -",
    ]
    assert list(console.aligned([["a", "bc"], ["[1]", "2"]], indent=0)) == ["  a  bc", "[1]   2"]
    assert list(console.aligned([["only", "a header"]], left=1)) == ["  only  a header"]
    assert list(console.aligned([["", "a"]], width=3)) == ["    a"]


def test_golden_a_narrow_table_folds_its_headers_and_labels() -> None:
    assert list(console.aligned(TABLE, left=1, width=60)) == [
        "                                                       share",
        "                                                      of the",
        "                 answers       change, 95 % interval  margin",
        "  chosen [bold]    1,234  +0.1234 [+0.0123, +0.2345]  12.5 %",
        "  answers of",
        "  the target",
        "  rejected             7             -0.5 (1 prompt)       -",
    ]


CELLS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 60))
def test_property_no_number_is_cut_at_any_width(data: st.DataObject, width: int) -> None:
    columns = data.draw(st.integers(1, 4))
    left = data.draw(st.integers(0, columns))
    row = st.lists(st.lists(CELLS, min_size=1, max_size=3).map(" ".join), min_size=columns, max_size=columns)
    rows = data.draw(st.lists(row, min_size=2, max_size=4))
    narrow = list(console.aligned(rows, left=left, width=width))
    for cells in rows[1:]:
        assert any(all(cell in line for cell in cells[left:]) for line in narrow)
    letters = sorted("".join(map("".join, rows)).replace(" ", ""))
    assert sorted("".join(narrow).replace(" ", "")) == letters


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_table_on_a_terminal_fits_it(columns: int) -> None:
    program = f"from sarm_control.console import aligned\nprint(*aligned({TABLE!r}, left=1), sep='\\n')\n"
    terminal, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    child = subprocess.Popen([sys.executable, "-c", program], stdout=slave, env=environment)
    os.close(slave)
    lines = _read_all(terminal).splitlines()
    assert child.wait(timeout=30) == 0
    assert lines == list(console.aligned(TABLE, left=1, width=columns))
    assert max(map(len, lines)) <= columns
    for number in ("+0.1234 [+0.0123, +0.2345]", "12.5 %", "1,234"):
        assert any(number in line for line in lines)


def test_a_table_in_a_pipe_has_no_width() -> None:
    program = f"from sarm_control.console import aligned; print(*aligned({TABLE!r}, left=1), sep='\\n')"
    environment = {**os.environ, "COLUMNS": "40", "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines() == list(console.aligned(TABLE, left=1, width=1000))


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
