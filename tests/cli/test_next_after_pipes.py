"""`next:` lines after standard input and pipes, which are read up: golden, by the parser of the command."""

import io
import os
import shlex
import sys
from pathlib import Path

import pytest

from sarm_control.cli import build_app, main
from sarm_control.cli._next import again, beside, made_of, remember, say_next

ROWS = b'{"prompt": "hello", "response": "no ."}\n{"prompt": "why", "response": "yes ."}\n'


class Piped(io.TextIOWrapper):
    """What a shell gives a command in place of a terminal."""

    def isatty(self) -> bool:
        return False


def pipe_path(monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path) -> str:
    """Rows behind a path that can be read once."""
    if kind == "standard input":
        monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO(ROWS)))
        return "-"
    reading, writing = os.pipe()
    os.write(writing, ROWS)
    os.close(writing)
    if kind == "of the shell":
        return f"/dev/fd/{reading}"
    (tmp_path / "rows").symlink_to(f"/dev/fd/{reading}")
    return str(tmp_path / "rows")


def next_line(capsys: pytest.CaptureFixture[str]) -> list[str]:
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("next: sarm ")
    words = shlex.split(last)[2:]
    _, bound, *_ = build_app().parse_args(words, print_error=False, exit_on_error=False)
    assert bound is not None
    return words


@pytest.mark.parametrize("kind", ["standard input", "of the shell", "with a name"])
def test_a_command_that_read_a_pipe_names_a_file_of_the_readers(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", pipe_path(monkeypatch, kind, tmp_path)]) == 0
    assert next_line(capsys) == ["score", "FILE"]


@pytest.mark.parametrize("kind", ["standard input", "of the shell"])
def test_what_would_be_written_beside_a_pipe_is_written_here(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", pipe_path(monkeypatch, kind, tmp_path), "--top", "1"]) == 0
    command, data, *options = next_line(capsys)
    assert (command, data) == ("probe", "FILE")
    assert options[-2:] == ["--save-edits", "edits.json"]


def test_every_place_of_a_pipe_is_put_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "fifo")
    pipes = ["--prompts", "-", "--human=/proc/self/fd/3", "--controls", str(tmp_path / "fifo")]
    pipes += ["--exclude", "/dev/stdin", "--edits-file", "/dev/fd/63"]
    kept = ["--exclude", "lab:audit", "--exclude", "hf:owner/name", "--edit", "8=0", "-o", str(tmp_path)]
    remember(["train", *pipes, *kept, "--dry-run"])
    say_next(*again(without=("--dry-run",)))
    wanted = ["--prompts", "FILE", "--human=FILE", "--controls", "FILE", "--exclude", "FILE"]
    assert next_line(capsys) == ["train", *wanted, "--edits-file", "FILE", *kept]


def test_names_made_from_an_input_stand_where_they_can_be_written(tmp_path: Path) -> None:
    for pipe in (Path("-"), Path("/dev/fd/63")):
        assert beside(pipe, "edits.json") == Path("edits.json")
        assert made_of(pipe, ".scores.jsonl") == Path("rows.scores.jsonl")
    assert beside(tmp_path / "a.jsonl", "edits.json") == tmp_path / "edits.json"
    assert made_of(tmp_path / "a.jsonl", ".scores.jsonl") == tmp_path / "a.scores.jsonl"
