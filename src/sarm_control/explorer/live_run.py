"""A run folder as it grows: the rows that were added since the last look.

A run writes whole lines, but a look may fall between the beginning and the end of one: what follows the last
line break is left for the next look.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import MISSHAPEN, parse_json, read_json_object
from sarm_control.errors import DataError

LOGS = ("metrics", "samples", "warnings", "evaluation")
_MOST_BYTES = 4 << 20
_ABOUT = ("config.yaml", "manifest.json")


class Added(NamedTuple):
    """What one look found.

    Args:
        rows: by log, the new rows.
        offsets: by log, where the next look begins.
        again: logs that became shorter, as when a run goes on from a checkpoint: they are read anew.
        more: whether there was more than one look reads.
    """

    rows: dict[str, list[dict[str, Any]]]
    offsets: dict[str, int]
    again: tuple[str, ...]
    more: bool


class LiveRun:
    """A run folder, perhaps still being written.

    Args:
        path: the folder; it may be empty yet, as when a run has just been started.

    Raises:
        DataError: there is no such folder, or it is no run's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise DataError(f"{path}: no such run folder", hint="sarm train -o DIR makes one")
        known = [name for name in (*_ABOUT, *(f"{log}.jsonl" for log in LOGS)) if (path / name).exists()]
        if not known and any(path.iterdir()):
            raise DataError(
                f"{path} is no run folder: it has neither config.yaml nor metrics.jsonl",
                hint="name the folder that sarm train -o DIR made",
            )

    @property
    def name(self) -> str:
        """What the page calls the run."""
        return self.path.resolve().name

    def read(self, offsets: Mapping[str, int]) -> Added:
        """The rows behind these offsets, in bytes; 0 reads a log from its beginning."""
        rows: dict[str, list[dict[str, Any]]] = {}
        ends: dict[str, int] = {}
        again, more = [], False
        for log in LOGS:
            path, start = self.path / f"{log}.jsonl", offsets.get(log, 0)
            size = path.stat().st_size if path.is_file() else 0
            if start > size:
                start = 0
                again.append(log)
            data = _bytes(path, start) if size > start else b""
            whole = data[: data.rfind(b"\n") + 1]
            rows[log] = [row for line in whole.splitlines() if (row := _row(line)) is not None]
            ends[log] = start + len(whole)
            # cut off by the limit of a look; a look that found no whole line would find none again
            more = more or (bool(whole) and start + len(data) < size)
        return Added(rows, ends, tuple(again), more)

    def about(self) -> dict[str, Any]:
        """Name and number of steps, as far as the manifest says already."""
        training = self._config().get("training")
        return {"name": self.name, "steps": training.get("steps") if isinstance(training, Mapping) else None}

    def reward_model(self) -> str | None:
        """The reward model it trains on, as far as the manifest says already."""
        reward = self._config().get("reward")
        model = reward.get("model") if isinstance(reward, Mapping) else None
        return model if isinstance(model, str) else None

    def _config(self) -> Mapping[str, Any]:
        path = self.path / "manifest.json"
        try:
            config = read_json_object(path).get("config") if path.is_file() else None
        except DataError:
            # it is being written: the next look reads it
            config = None
        return config if isinstance(config, Mapping) else {}


def _bytes(path: Path, start: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(_MOST_BYTES)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line.decode("utf-8"))
    except MISSHAPEN:
        return None
    return value if isinstance(value, dict) else None
