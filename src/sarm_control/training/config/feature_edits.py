"""Edits of a discovery's latents: `@features.json#harms[:3]=0` stands for one edit of each."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import read_json_object
from sarm_control.control import Edit, parse_edit
from sarm_control.discovery import select
from sarm_control.errors import ConfigError, DataError
from sarm_control.training.config.yaml_source import Document, Path_

_OF_LIST = re.compile(r"@?(?P<list>(?P<file>[^#]+)#\w+(?:\[[^\]]*\])?)(?P<operation>[=:].*)?")
_EDITS: Path_ = ("reward", "edits")


class ListedEdits(NamedTuple):
    """The edits that a text stands for, and the head that the latents were found on."""

    edits: list[Edit]
    head: str


def edits_of_list(text: str, fingerprint: str | None = None) -> ListedEdits:
    """The operation on each latent of that part of the file, or their removal when it names none.

    Args:
        text: such as `@features.json#harms[:3]:*0.5`.
        fingerprint: of the head they are to be used on; None takes the file's word.

    Raises:
        ConfigError: it is not such a text, or nothing is there.
        DataError: the file cannot be read or was made on another head.
    """
    found = _OF_LIST.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is not an edit", hint="write it like @features.json#harms[:3]=0")
    head = _head_of(Path(found["file"])) if fingerprint is None else fingerprint
    operation = found["operation"] or "=0"
    return ListedEdits([parse_edit(f"{one.latent}{operation}") for one in select(found["list"], head)], head)


def with_listed_edits(document: Document) -> Document:
    """The settings with the edits of lists spelled out, bound to the head of their files.

    Raises:
        ConfigError: with its place: a list that cannot be used, or files of different heads.
    """
    reward = document.values.get("reward") if isinstance(document.values, dict) else None
    edits = reward.get("edits") if isinstance(reward, dict) else None
    if not isinstance(reward, dict) or not isinstance(edits, list) or not any(map(_is_listed, edits)):
        return document
    head = reward.get("fingerprint")
    spelled: list[Any] = []
    origins = {
        path: where for path, where in document.origins.items() if path[:2] != _EDITS or len(path) == 2
    }
    for number, item in enumerate(edits):
        where, first = document.origin((*_EDITS, number)), len(spelled)
        if _is_listed(item):
            found = _found(item, where, head)
            head = found.head
            spelled += [str(edit) for edit in found.edits]
        else:
            spelled.append(item)
            inside = {
                path[3:]: origin for path, origin in document.origins.items() if path[:3] == (*_EDITS, number)
            }
            origins |= {(*_EDITS, first, *path): origin for path, origin in inside.items()}
        origins |= {(*_EDITS, place): where for place in range(first, len(spelled))}
    values = {**document.values, "reward": {**reward, "edits": spelled, "fingerprint": head}}
    return Document(values, origins, document.source)


def _is_listed(item: Any) -> bool:
    return isinstance(item, str) and "#" in item


def _found(text: str, where: str, head: str | None) -> ListedEdits:
    try:
        return edits_of_list(text, head)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{where}: {error}", hint=error.hint) from error


def _head_of(path: Path) -> str:
    """The head a features file names; nothing for a file that names none, which `select` then refuses."""
    try:
        return str(read_json_object(path)["head"])
    except (DataError, KeyError):
        return ""
