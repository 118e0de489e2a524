"""Reads a folder of latents, without a model; the hash of every file is checked.

docs/latents.md describes the format.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sarm_control.data import Row
from sarm_control.errors import ConfigError, DataError
from sarm_control.latents.manifest import (
    HEAD,
    MANIFEST,
    PROGRESS,
    RUN_MARK,
    FileRecord,
    Manifest,
    answers_file,
    mark_of,
    read_manifest,
    rows_file,
)
from sarm_control.latents.rows import ScoredRows
from sarm_control.latents.shard import Head, decode_answers, decode_head, decode_rows, metadata_of
from sarm_control.reward_model import LinearHead, Scored

T = TypeVar("T")


def is_latents(path: Path) -> bool:
    """Whether a path is a folder that `sarm latents` made or began; no file is checked."""
    return path.is_dir() and ((path / PROGRESS).is_dir() or _names_the_format(path / MANIFEST))


def read_latents(folder: Path, *, latents: Sequence[int] | None = None, states: bool = False) -> ScoredRows:
    """Rows and scores of a latents folder, all in memory.

    Args:
        folder: a folder that `sarm latents` made.
        latents: the latents that the caller needs; None means all of them. A folder that kept only some is
            refused unless it has these.
        states: whether to read the trunk's states, if the folder has them.

    Raises:
        DataError: the folder does not exist or is not finished, or a file is missing, cut, altered or of
            another run.
        ConfigError: the folder does not have the latents that are needed.
    """
    return LatentsFolder(folder).read(latents=latents, states=states)


class LatentsFolder:
    """A finished latents folder. A file is read and checked when it is needed.

    Raises:
        DataError: see `read_latents`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path)
        self.head = self._head()

    def shards(self, *, states: bool = False) -> Iterator[ScoredRows]:
        """The rows and scores, one shard at a time, for data that does not fit into memory.

        Args:
            states: see `read_latents`.

        Raises:
            DataError: a file is missing, cut, altered or of another run; the message names it.
        """
        for shard in range(self.manifest.shards):
            rows = self._decoded(rows_file(shard), decode_rows)
            scored = self._decoded(
                answers_file(shard), lambda data: decode_answers(data, self.head, states=states)
            )
            # Rows are parsed anew by the reader of today, and answers are matched to them by order alone: one
            # answer more or less would shift the labels of all that follow.
            if len(scored) != sum(len(row.answers) for row in rows):
                raise self._damaged(answers_file(shard), "its answers are not those of the rows")
            yield ScoredRows(rows, scored)

    def read(self, *, latents: Sequence[int] | None = None, states: bool = False) -> ScoredRows:
        """All rows and scores; see `read_latents`."""
        self.check_holds(latents)
        rows: list[Row] = []
        parts: list[Scored] = []
        for found in self.shards(states=states):
            rows += found.rows
            parts.append(found.scored)
        return ScoredRows(rows, Scored.concatenate(parts))

    def check_holds(self, latents: Sequence[int] | None) -> None:
        """Refuses a use that needs latents that were not kept; None needs all of them.

        Raises:
            ConfigError: names what is missing.
        """
        kept = self.manifest.chosen
        if kept is None:
            return
        if latents is None:
            raise ConfigError(
                f"{self.path} holds {len(kept)} chosen latents, and this needs all of them",
                hint="make the folder again without --latents",
            )
        missing = sorted(set(latents) - set(kept))
        if missing:
            raise ConfigError(
                f"{self.path} holds {len(kept)} chosen latents, {missing[0]} is not among them",
                hint="make the folder again with these latents, or without --latents",
            )

    def _head(self) -> Head:
        weight = self._decoded(HEAD, decode_head)
        manifest = self.manifest
        if LinearHead(weight).fingerprint != manifest.weights:
            raise self._damaged(HEAD, "it holds another head than the manifest says")
        return Head(
            weight, manifest.fingerprint, manifest.model_fingerprint, manifest.kind, manifest.constant
        )

    def _decoded(self, name: str, decode: Callable[[bytes], T]) -> T:
        data = self._verified(name)
        try:
            return decode(data)
        except (LookupError, ValueError, TypeError) as error:
            raise self._damaged(name, error) from error

    def _verified(self, name: str) -> bytes:
        """The bytes of a file, checked against the manifest."""
        return read_verified(self.path / name, self.manifest.files[name], mark_of(self.manifest.about))

    def _damaged(self, name: str, problem: object) -> DataError:
        return DataError(f"{self.path / name} is damaged: {problem}", hint="make the folder again")


def read_verified(path: Path, record: FileRecord, mark: Mapping[str, str]) -> bytes:
    """The bytes of a file whose hash is the recorded one.

    Args:
        path: the file.
        record: the file's entry in the manifest.
        mark: `mark_of` the extraction that it should belong to.

    Raises:
        DataError: the file is missing, of another run, cut, or altered.
    """
    hint = "put the right file back, or make the folder again with sarm latents"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing", hint=hint) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except ValueError as error:  # a name with a NUL byte is none that any system has
        raise DataError(f"the manifest names no file but {path.name[:100]!r}", hint=hint) from error
    # The hash alone decides. What follows only tells which of three mistakes it was. A cut Parquet file has
    # lost its footer and the mark with it, so a file without a mark is not taken for one of another run.
    if FileRecord.of(data).sha256 == record.sha256:
        return data
    if metadata_of(data).get(RUN_MARK, mark[RUN_MARK]) != mark[RUN_MARK]:
        raise DataError(f"{path} is a shard of another run", hint=hint)
    if len(data) < record.size:
        raise DataError(f"{path} is cut: {len(data)} of {record.size} bytes", hint=hint)
    raise DataError(f"{path} was altered: its SHA-256 is not the manifest's", hint=hint)


def _names_the_format(manifest: Path) -> bool:
    try:
        # not parsed: a damaged manifest would pass for "not a folder of latents", and nobody would be told
        return '"format": "sarm-latents-' in manifest.read_text(encoding="utf-8")[:200]
    except (OSError, ValueError):
        return False
