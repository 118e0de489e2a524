"""The rows of a run: one JSON object a line, the same bytes in equal runs, never torn by an interrupt."""

import contextlib
import json
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sarm_control.bounded_json import MISSHAPEN, parse_json
from sarm_control.errors import TrainingError
from sarm_control.files import write_text, written


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds rows at the end of a file.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    text = "".join(format_row(row) + "\n" for row in rows)
    if not text:
        return
    with written(path), path.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text)


def format_row(row: Mapping[str, Any]) -> str:
    """One JSON line of `stable` values."""
    return json.dumps({key: stable(value) for key, value in row.items()}, ensure_ascii=False)


def cut_back(path: Path, step: int) -> int:
    """Keeps the rows of steps up to `step`, byte for byte, and returns how many lines were dropped.

    Raises:
        OutputError: the disk is full; the file stays as it was.
    """
    if not path.is_file():
        return 0
    lines = path.read_bytes().split(b"\n")
    # what follows the last line break is empty, or a row that a kill cut off
    kept = [line for line in lines[:-1] if (found := _row_step(line)) is not None and found <= step]
    dropped = len(lines) - 1 - len(kept) + bool(lines[-1])
    if dropped:
        write_text(path, b"".join(line + b"\n" for line in kept).decode("utf-8"))
    return dropped


def check_rows(path: Path, step: int) -> None:
    """Refuses a file that lacks the row of a step in 1..step.

    Raises:
        TrainingError: names the first step without a row.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    present = {_row_step(line) for line in lines}
    missing = next((number for number in range(1, step + 1) if number not in present), None)
    if missing is not None:
        raise TrainingError(
            f"{path} has no row for step {missing}, but the checkpoint is of step {step}",
            hint="put the file back, or start over with --overwrite",
        )


def _row_step(line: bytes) -> int | None:
    try:
        step = parse_json(line.decode("utf-8"))["step"]
    except MISSHAPEN:
        return None
    return step if isinstance(step, int) and not isinstance(step, bool) else None


def stable(value: Any) -> Any:
    """A value as the rows of a run hold it: nine significant digits, NaN and infinities as None.

    Nine digits identify a float32 and hide the last bits of float64 sums.
    """
    if isinstance(value, Mapping):
        return {str(key): stable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [stable(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


def sync(path: Path) -> None:
    """Waits until a file, if it exists, is on disk.

    Raises:
        OutputError: it cannot be written to disk.
    """
    if not path.is_file():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with written(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays a Ctrl-C until the block is done, so that no row or checkpoint is half written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # the handler only notes the signal; the interrupt is raised after the block
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt
