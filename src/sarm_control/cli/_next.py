"""The last line of a command: `next: sarm ...`, which goes on from what was just written.

It goes to stderr, as every remark does, so that what is piped on stays data; `--quiet` leaves it out.
Standard input and pipes are read up by then, so the reader's own `FILE` stands in their place.
"""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sarm_control.console import say
from sarm_control.embedded import LAB, LAB_MODELS, is_stream

if TYPE_CHECKING:
    from sarm_control.cli._scoring import Reading


FILE = "FILE"
"""Stands for an input that cannot be read again."""


class _State:
    """What was typed: one process runs one command at a time."""

    typed: tuple[str, ...] = ()


def remember(words: Sequence[str]) -> None:
    """Keeps the words after `sarm`, for commands that propose themselves with other options."""
    _State.typed = tuple(words)


def again(*more: str, without: Collection[str] = ()) -> list[str]:
    """The words of this command once more.

    Args:
        more: further words at the end.
        without: switches that are left out.
    """
    return [*(word for word in _State.typed if word not in without), *more]


def typed() -> str:
    """This command as it was typed."""
    return shlex.join(["sarm", *_State.typed])


def say_next(*words: str | Path) -> None:
    """Names the command that goes on from here.

    Args:
        words: what comes after `sarm`.
    """
    say(f"next: sarm {shlex.join(_readable(str(word)) for word in words)}")


def _readable(word: str) -> str:
    """A word of the command that goes on; `FILE` for an input that is gone, also after `--option=`."""
    option, equals, value = word.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={_readable(value)}"
    return FILE if is_stream(Path(word)) else word


def of_model(model: str | None, reading: "Reading | None" = None) -> tuple[str, ...]:
    """The options that name the same model, read in the same way.

    Args:
        model: none for the embedded one, which needs no name.
        reading: how a classifier is read, where that was asked for.
    """
    if model in (None, LAB):
        return ()
    words = ["--model", str(model)]
    if reading is not None and reading.pooling is not None:
        words += ["--pooling", reading.pooling]
    if reading is not None and reading.output is not None:
        words += ["--output", reading.output]
    return tuple(words)


def of_training(model: str | None) -> tuple[str, ...]:
    """The options that `sarm train` needs for the same model; POLICY and the prompts are the reader's."""
    if model in LAB_MODELS:
        return of_model(model)
    return ("--model", str(model), "--policy", "POLICY", "--prompts", "prompts.jsonl")


def beside(path: Path, name: str) -> Path:
    """A file or folder next to another; in the current folder where the other is a pipe."""
    return Path(name) if is_stream(path) else path.with_name(name)


def made_of(path: Path, suffix: str) -> Path:
    """A file or folder next to an input and called like it, with another suffix."""
    return beside(path, f"{'rows' if is_stream(path) else path.stem}{suffix}")
