"""A latents folder being made: whole shards at a time, so that a killed run can go on where it was.

While it is made the folder has a `.progress` folder: `plan.json`, one record for each shard that is
whole, and what is being written. Its last act is `manifest.json`; then `.progress` goes.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import MISSHAPEN, read_json, read_json_object
from sarm_control.errors import ConfigError, DataError, OutputError
from sarm_control.files import (
    check_writable,
    drop_replaced,
    fsync,
    put_aside,
    put_back,
    remove_folder,
    write_json,
    written,
)
from sarm_control.latents.folder import is_latents, read_verified
from sarm_control.latents.manifest import (
    HEAD,
    MANIFEST,
    PROGRESS,
    FileRecord,
    Manifest,
    answers_file,
    mark_of,
    read_manifest,
    rows_file,
)
from sarm_control.latents.shard import ShardBytes, encode_head
from sarm_control.reward_model import FloatArray

PLAN = "plan.json"
_START_OVER = "start over with --overwrite"
_SHOWN = 4


class ShardRecord(NamedTuple):
    """The two files of a shard that is whole."""

    rows: FileRecord
    answers: FileRecord

    @classmethod
    def of(cls, data: ShardBytes, rows: int, answers: int) -> "ShardRecord":
        """The record of a shard with these files."""
        return cls(FileRecord.of(data.rows, rows), FileRecord.of(data.answers, answers))


@dataclass(frozen=True)
class LatentsWriter:
    """Puts shards into a folder; several processes may do so at once, each with shards of its own.

    Args:
        path: the folder.
        about: what the manifest will say of where the latents came from.
        shards: how many there will be.
    """

    path: Path
    about: Mapping[str, Any]
    shards: int

    def start(self, head: FloatArray) -> None:
        """Makes the folder of a new extraction.

        Raises:
            OutputError: it exists already or cannot be written.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(
                f"{self.path} exists already", hint="choose another name or pass --resume or --overwrite"
            )
        check_writable(self.path)
        (self.path / PROGRESS).mkdir(parents=True, exist_ok=True)
        self._put(HEAD, encode_head(head))
        # The plan is written last: where it is, other processes may begin.
        write_json(self._progress / PLAN, self.about)

    def check_resumable(self) -> None:
        """Refuses a folder that was begun with another plan; one that is not there is no hindrance.

        Raises:
            ConfigError: naming what differs.
        """
        if is_latents(self.path):
            check_same(self.path, self._planned(), self.about)

    def resume(self, head: FloatArray) -> list[str]:
        """Takes up a folder that was begun, or finished, with the same plan; a missing one is made.

        Returns:
            The shards that are there but damaged, in words; they are made again.

        Raises:
            ConfigError: the folder was made from other data, another model or with other options.
            OutputError: the path is something else, or cannot be written.
        """
        if not is_latents(self.path):
            self.start(head)
            return []
        self.check_resumable()
        manifest = self.path / MANIFEST
        if manifest.is_file():
            self._reopen(read_manifest(self.path))
        self._put(HEAD, encode_head(head))
        found = {shard: self._problem(shard) for shard in range(self.shards)}
        damaged = {shard: problem for shard, problem in found.items() if problem is not None}
        if damaged:
            # First of all the folder stops saying that it is whole.
            manifest.unlink(missing_ok=True)
        for shard in damaged:
            self._record(shard).unlink()
        return list(damaged.values())

    def missing(self) -> list[int]:
        """The shards that are still to be made, as their records say."""
        return [shard for shard in range(self.shards) if not self._record(shard).is_file()]

    def put(self, shard: int, data: ShardBytes, *, rows: int, answers: int) -> None:
        """Writes a shard: its files aside, to the disk, into place; then its record."""
        self._put(rows_file(shard), data.rows)
        self._put(answers_file(shard), data.answers)
        record = ShardRecord.of(data, rows, answers)
        self._put_at(self._record(shard), json.dumps([one.as_json() for one in record]).encode())

    def finish(self) -> None:
        """Writes the manifest once every shard is there, and removes what only the making needed."""
        head = FileRecord.of((self.path / HEAD).read_bytes())
        files = {HEAD: head, **dict(self._files())}
        write_json(self.path / MANIFEST, Manifest(self.about, files).as_json())
        shutil.rmtree(self._progress)
        fsync(self.path)
        drop_replaced(self.path)

    def discard_if_empty(self) -> bool:
        """Removes a folder in which no shard is done; whether it did.

        What it was to replace is there again.
        """
        empty = len(self.missing()) == self.shards
        if empty:
            remove_folder(self.path)
            put_back(self.path)
        return empty

    @property
    def _progress(self) -> Path:
        return self.path / PROGRESS

    def _record(self, shard: int) -> Path:
        return self._progress / f"shard-{shard:05d}.json"

    def _files(self) -> Iterator[tuple[str, FileRecord]]:
        for shard in range(self.shards):
            record = self._recorded(shard)
            yield rows_file(shard), record.rows
            yield answers_file(shard), record.answers

    def _recorded(self, shard: int) -> ShardRecord:
        path = self._record(shard)
        try:
            rows, answers = (FileRecord.read(one) for one in read_json(path))
        except MISSHAPEN as error:
            raise DataError(f"{path} is damaged: {error!r}", hint=_START_OVER) from error
        return ShardRecord(rows, answers)

    def _problem(self, shard: int) -> str | None:
        """What is wrong with a shard that has a record."""
        if not self._record(shard).is_file():
            return None
        try:
            record = self._recorded(shard)
            for name, one in ((rows_file(shard), record.rows), (answers_file(shard), record.answers)):
                read_verified(self.path / name, one, mark_of(self.about))
        except DataError as error:
            return str(error)
        return None

    def _planned(self) -> Mapping[str, Any]:
        """What the folder is being made from, or was."""
        path = self._progress / PLAN
        if path.is_file():
            return read_json_object(path, hint=_START_OVER)
        # Killed before the plan was written, a folder has nothing that could differ.
        return read_manifest(self.path).about if (self.path / MANIFEST).is_file() else self.about

    def _reopen(self, manifest: Manifest) -> None:
        """Gives the shards of a finished folder their records back, so that they are checked like any."""
        self._progress.mkdir(exist_ok=True)
        for shard in range(self.shards):
            files = [manifest.files[name].as_json() for name in (rows_file(shard), answers_file(shard))]
            self._put_at(self._record(shard), json.dumps(files).encode())
        write_json(self._progress / PLAN, self.about)

    def _put(self, name: str, data: bytes) -> None:
        self._put_at(self.path / name, data)

    def _put_at(self, target: Path, data: bytes) -> None:
        # Beside the plan, so that what a killed run leaves half written goes when the folder is done.
        temporary = self._progress / f"{target.name}.{os.getpid()}.part"
        with written(target, temporary):
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)


def set_latents_aside(path: Path) -> None:
    """Takes a latents folder out of the way to start over; it goes when the new one is done.

    Raises:
        OutputError: the path is something else.
    """
    if not path.exists():
        return
    if not is_latents(path):
        raise OutputError(
            f"{path} exists and is no folder of latents", hint="remove it yourself or choose another name"
        )
    put_aside(path, worth_keeping=(path / MANIFEST).is_file())


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with a folder that was begun otherwise.

    Raises:
        ConfigError: naming what differs.
    """
    was, new = dict(_flat(before)), dict(_flat(now))
    changes = [
        f"{key} was {was.get(key)}, is {new.get(key)}"
        for key in dict.fromkeys([*was, *new])
        if was.get(key) != new.get(key)
    ]
    if changes:
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise ConfigError(
            f"{path} was begun otherwise: {'; '.join(changes[:_SHOWN])}{more}",
            hint="repeat the command it was begun with, or choose another name or pass --overwrite",
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flat(item, f"{name}: ")
        else:
            yield name, list(item) if isinstance(item, Sequence) and not isinstance(item, str) else item
