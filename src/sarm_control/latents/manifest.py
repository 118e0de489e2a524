"""The manifest of a latents folder: where its latents came from, and the hash of each of its files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import MISSHAPEN, read_json, shown
from sarm_control.errors import DataError
from sarm_control.reward_model import Kind

FORMAT = "sarm-latents-1"
MANIFEST = "manifest.json"
PROGRESS = ".progress"
HEAD = "head.safetensors"
RUN_MARK = "sarm_run"

_AGAIN = "make the folder again with sarm latents"


class FileRecord(NamedTuple):
    """A file of the folder: its SHA-256, its size in bytes, and its number of rows if it is a table."""

    sha256: str
    size: int
    rows: int | None = None

    @classmethod
    def of(cls, data: bytes, rows: int | None = None) -> "FileRecord":
        """The record of a file with these bytes."""
        return cls(hashlib.sha256(data).hexdigest(), len(data), rows)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "FileRecord":
        """The record from the JSON object of `as_json`.

        Raises:
            TypeError: a value is missing or of another type.
        """
        found = cls(**values)
        for number in (found.size, 0 if found.rows is None else found.rows):
            # JSON's true is an int to Python, and would pass as a size of 1
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise TypeError(f"{shown(number)} is not a size")
        if not isinstance(found.sha256, str):
            raise TypeError(f"{shown(found.sha256)} is not a hash")
        return found

    def as_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {name: value for name, value in self._asdict().items() if value is not None}


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Args:
        about: where the latents came from: command, inputs, config, versions, rows, answers.
        files: every other file of the folder by name.
    """

    about: Mapping[str, Any]
    files: Mapping[str, FileRecord]

    @property
    def model(self) -> str:
        """The model's id or folder name."""
        return str(self.about["config"]["model"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the head."""
        return str(self.about["config"]["head"])

    @property
    def model_fingerprint(self) -> str | None:
        """The fingerprint of trunk and autoencoder; None in folders without one."""
        found = self.about["config"].get("model_fingerprint")
        return None if found is None else str(found)

    @property
    def kind(self) -> Kind:
        """Of reward model; folders that do not say are a SARM's."""
        found = self.about["config"].get("kind", "sarm")
        if found not in ("sarm", "classifier", "attached"):
            raise ValueError(f"{shown(found)} is no kind of reward model")
        return found  # type: ignore[no-any-return]

    @property
    def weights(self) -> str:
        """The fingerprint of the latents' weights alone; of a SARM's head that is all there is."""
        return str(self.about["config"].get("weights", self.fingerprint))

    @property
    def constant(self) -> float:
        """What the reward model gives every answer, in reward units."""
        return float(self.about["config"].get("constant", 0.0))

    @property
    def chosen(self) -> tuple[int, ...] | None:
        """The latents that were kept; None when all were."""
        chosen = self.about["config"]["chosen"]
        return None if chosen is None else tuple(map(int, chosen))

    @property
    def rows(self) -> int:
        """The number of data rows."""
        return int(self.about["rows"])

    @property
    def answers(self) -> int:
        """The number of answers in these rows."""
        return int(self.about["answers"])

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.files) // 2  # two tables each, beside the head

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {**self.about, "files": {name: record.as_json() for name, record in self.files.items()}}


def rows_file(shard: int) -> str:
    """The name of a shard's table of data rows."""
    return f"rows-{shard:05d}.parquet"


def answers_file(shard: int) -> str:
    """The name of a shard's table of answers."""
    return f"answers-{shard:05d}.parquet"


def mark_of(about: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of every table of a folder: it identifies the extraction and the head."""
    text = json.dumps(about, sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {RUN_MARK: digest, "sarm_head": str(about["config"]["head"])}


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a finished latents folder.

    Raises:
        DataError: it is not a latents folder, or its extraction was not finished.
    """
    path = folder / MANIFEST
    try:
        content = read_json(path, hint=_AGAIN)
    except DataError as error:
        # only a manifest that is not there means an unfinished extraction: it is the last file to be written
        if isinstance(error.__cause__, FileNotFoundError):
            raise _unfinished(folder) from None
        raise
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{folder} is a folder, but not one of latents", hint="make one with sarm latents")
    try:
        files = {name: FileRecord.read(record) for name, record in content.pop("files").items()}
        found = Manifest(content, files)
        # each value is read once here: a damaged one is told with the file's name, not where it is first used
        _ = (found.model, found.fingerprint, found.model_fingerprint, found.chosen)
        _ = (found.kind, found.constant)
        problem = _misfit(found)
    except MISSHAPEN as error:
        raise DataError(f"{path} is damaged: {shown(error, 200)}", hint=_AGAIN) from error
    if problem is not None:
        raise DataError(f"{path} is damaged: {problem}", hint=_AGAIN)
    return found


def _misfit(found: Manifest) -> str | None:
    """How the named files differ from the numbers of rows and answers in the manifest; None if they agree."""
    # a manifest that names no shard lacks the first one, and is not an empty folder
    shards = range(max(found.shards, 1))
    rows, answers = ([name(shard) for shard in shards] for name in (rows_file, answers_file))
    lacking = sorted({HEAD, *rows, *answers} - set(found.files))
    if lacking:
        return f"it does not name {lacking[0]}"
    held = [sum(found.files[name].rows or 0 for name in names) for names in (rows, answers)]
    if held != [found.rows, found.answers]:
        return (
            f"the shards it names hold {held[0]} rows and {held[1]} answers, "
            f"but it counts {found.rows} and {found.answers}"
        )
    return None


def _unfinished(folder: Path) -> DataError:
    if (folder / PROGRESS).is_dir():
        return DataError(
            f"{folder}: the extraction of these latents was not finished",
            hint=f"finish it: the same sarm latents command with -o {folder} --resume",
        )
    return DataError(f"{folder} is a folder, but not one of latents", hint="make one with sarm latents")
