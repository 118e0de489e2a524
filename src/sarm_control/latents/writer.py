"""Writes a latents folder one whole shard at a time, so that a killed run can be resumed.

Until it is finished, the folder has a `.progress` folder with `plan.json`, a record for each finished shard,
and the files that are being written. `manifest.json` is written last; then `.progress` is removed.
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
    """The records of the two files of a finished shard."""

    rows: FileRecord
    answers: FileRecord

    @classmethod
    def of(cls, data: ShardBytes, rows: int, answers: int) -> "ShardRecord":
        """The record of a shard with these files."""
        return cls(FileRecord.of(data.rows, rows), FileRecord.of(data.answers, answers))


@dataclass(frozen=True)
class LatentsWriter:
    """Writes shards into a folder. Several processes may write at once, each its own shards.

    Args:
        path: the folder.
        about: the part of the manifest that says where the latents came from.
        shards: the number of shards of the whole folder.
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
        # The plan is written last: other processes wait for it before they begin.
        write_json(self._progress / PLAN, self.about)

    def check_resumable(self) -> None:
        """Refuses a folder that was begun with another plan; one that is not there is no hindrance.

        Raises:
            ConfigError: naming what differs.
        """
        if is_latents(self.path):
            check_same(self.path, self._planned(), self.about)

    def resume(self, head: FloatArray) -> list[str]:
        """Resumes a folder that was begun, or finished, with the same plan; starts one that does not exist.

        Returns:
            One message for each damaged shard; these shards are made again.

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
        # every recorded shard is read and hashed, also of a finished folder: what --resume leaves is whole
        damaged = {shard: problem for shard, problem in found.items() if problem is not None}
        if damaged:
            # first the manifest, so that nobody reads the folder as finished while shards are made again
            manifest.unlink(missing_ok=True)
        for shard in damaged:
            self._record(shard).unlink()
        return list(damaged.values())

    def missing(self) -> list[int]:
        """The shards without a record, which are still to be made."""
        return [shard for shard in range(self.shards) if not self._record(shard).is_file()]

    def put(self, shard: int, data: ShardBytes, *, rows: int, answers: int) -> None:
        """Writes the two files of a shard, then its record: a shard with a record is whole."""
        self._put(rows_file(shard), data.rows)
        self._put(answers_file(shard), data.answers)
        record = ShardRecord.of(data, rows, answers)
        self._put_at(self._record(shard), json.dumps([one.as_json() for one in record]).encode())

    def finish(self) -> None:
        """Writes the manifest once every shard is done, and removes `.progress`."""
        head = FileRecord.of((self.path / HEAD).read_bytes())
        files = {HEAD: head, **dict(self._files())}
        # The manifest before `.progress` goes: a kill in between leaves a finished folder with some files too
        # many. The other order would leave one that is neither finished nor to be resumed.
        write_json(self.path / MANIFEST, Manifest(self.about, files).as_json())
        shutil.rmtree(self._progress)
        fsync(self.path)
        drop_replaced(self.path)

    def discard_if_empty(self) -> bool:
        """Removes the folder if no shard is done; returns whether it did.

        The folder that it was to replace is put back.
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
        """What is wrong with a recorded shard; None if it is whole or has no record."""
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
        """The plan that the folder was begun with."""
        path = self._progress / PLAN
        if path.is_file():
            return read_json_object(path, hint=_START_OVER)
        # a run that was killed before it wrote the plan has written nothing that could differ
        return read_manifest(self.path).about if (self.path / MANIFEST).is_file() else self.about

    def _reopen(self, manifest: Manifest) -> None:
        """Writes the records of a finished folder again, so that its shards are checked like all others."""
        self._progress.mkdir(exist_ok=True)
        for shard in range(self.shards):
            files = [manifest.files[name].as_json() for name in (rows_file(shard), answers_file(shard))]
            self._put_at(self._record(shard), json.dumps(files).encode())
        write_json(self._progress / PLAN, self.about)

    def _put(self, name: str, data: bytes) -> None:
        self._put_at(self.path / name, data)

    def _put_at(self, target: Path, data: bytes) -> None:
        # in `.progress`, so that half-written files of a killed run are removed with it at the end
        temporary = self._progress / f"{target.name}.{os.getpid()}.part"
        with written(target, temporary):
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                # before the rename: after a power failure the name could stand for an empty file otherwise
                os.fsync(stream.fileno())
            os.replace(temporary, target)


def set_latents_aside(path: Path) -> None:
    """Moves a latents folder aside to start over; it is deleted when the new one is finished.

    Raises:
        OutputError: the path is not a latents folder.
    """
    if not path.exists():
        return
    if not is_latents(path):
        raise OutputError(
            f"{path} exists and is not a folder of latents", hint="remove it yourself or choose another name"
        )
    put_aside(path, worth_keeping=(path / MANIFEST).is_file())


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to resume a folder that was begun with another plan.

    Raises:
        ConfigError: names what differs.
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
            f"{path} was begun with other settings: {'; '.join(changes[:_SHOWN])}{more}",
            hint="repeat the command it was begun with, or choose another name or pass --overwrite",
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flat(item, f"{name}: ")
        else:
            # the plan at hand has tuples where the one read from JSON has lists
            yield name, list(item) if isinstance(item, Sequence) and not isinstance(item, str) else item
