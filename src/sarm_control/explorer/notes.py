"""Notes on latents, in a JSON file that belongs to the user.

Every note has a version. Who saves a note names the version that was read, so that two tabs, or two servers
on one file, never overwrite each other unseen.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import MISSHAPEN, read_json_object, shown
from sarm_control.errors import DataError
from sarm_control.files import write_json
from sarm_control.locks import locked

FORMAT = "sarm-notes-1"
LONGEST = 20_000


class Note(NamedTuple):
    """A note as it stands: its text, empty where there is none, and how often it was saved."""

    text: str = ""
    version: int = 0


class Conflict(Exception):
    """A note was saved by somebody else in the meantime; `current` is what stands there."""

    def __init__(self, current: Note) -> None:
        super().__init__("the note was saved elsewhere in the meantime")
        self.current = current


class Notes:
    """The notes of one file; the file is made by the first note.

    Args:
        path: the JSON file.
        head: fingerprint of the head that latent numbers belong to.

    Raises:
        DataError: the file holds something else, or notes on another head.
    """

    def __init__(self, path: Path, head: str) -> None:
        self.path = path
        self.head = head
        self._lock = threading.Lock()
        self.all()

    def all(self) -> dict[int, Note]:
        """Every note that was ever saved, by latent, as the file is now."""
        if not self.path.exists():
            return {}
        content = read_json_object(self.path)
        if content.get("format") != FORMAT:
            raise DataError(
                f"{self.path}: not a file of notes (format {shown(content.get('format'))}, wants {FORMAT!r})",
                hint="name another file with --notes",
            )
        if content.get("head") != self.head:
            raise DataError(
                f"{self.path}: notes on the head {shown(content.get('head'))}, this model has the head "
                f"{self.head}; latent numbers mean other things there",
                hint="name another file with --notes",
            )
        try:
            return {int(key): _note(one) for key, one in content["notes"].items()}
        except MISSHAPEN as error:
            raise DataError(f"{self.path}: not a file of notes: {shown(error, 200)}") from error

    def save(self, latent: int, text: str, version: int) -> Note:
        """Saves one note over the version that was read, and returns what now stands there.

        Raises:
            Conflict: the file has another version of it.
            DataError: the note is too long.
            OutputError: the file cannot be written, or another process is writing it.
        """
        if len(text) > LONGEST:
            raise DataError(f"a note of {len(text)} characters", hint=f"at most {LONGEST} are kept")
        # two locks: that of the file keeps other processes out, and threads of this one pass it
        with self._lock, locked(self.path):
            found = self.all()
            current = found.get(latent, Note())
            if current.version != version:
                raise Conflict(current)
            found[latent] = Note(text, version + 1)
            notes = {str(key): found[key]._asdict() for key in sorted(found)}
            write_json(self.path, {"format": FORMAT, "head": self.head, "notes": notes})
            return found[latent]


def _note(value: Mapping[str, Any]) -> Note:
    text, version = value["text"], value["version"]
    if not isinstance(text, str) or not isinstance(version, int):
        raise TypeError(f"a note is {shown(value)}")
    return Note(text, version)
