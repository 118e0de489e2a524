"""Edits of the latents that a discovery lists: `@features.json#harms[:3]=0` means one edit for each."""

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
    """The edits that a text stands for, and the fingerprint of the head that the latents belong to."""

    edits: list[Edit]
    head: str


def edits_of_list(text: str, fingerprint: str | None = None) -> ListedEdits:
    """The edits of the listed latents; a text without an operation sets them to 0.

    Args:
        text: such as `@features.json#harms[:3]:*0.5`.
        fingerprint: of the head that the edits are for; None takes the one that the file names.

    Raises:
        ConfigError: the text is not of this form, or the list is empty.
        DataError: the file cannot be read, or was made on another head.
    """
    match = _OF_LIST.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is not an edit", hint="write it like @features.json#harms[:3]=0")
    head = _head_of(Path(match["file"])) if fingerprint is None else fingerprint
    operation = match["operation"] or "=0"
    features = select(match["list"], head)
    return ListedEdits([parse_edit(f"{feature.latent}{operation}") for feature in features], head)


def with_listed_edits(document: Document) -> Document:
    """The settings with each listed edit spelled out, and the fingerprint of the files' head.

    Raises:
        ConfigError: a list that cannot be used, or files of different heads; the message names the place.
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
            listed = _listed_edits(item, where, head)
            # the first list binds the others: latents of two heads cannot be edited together
            head = listed.head
            spelled += [str(edit) for edit in listed.edits]
        else:
            spelled.append(item)
            # the edits before this one may have grown in number: the origins move along
            inside = {
                path[3:]: origin for path, origin in document.origins.items() if path[:3] == (*_EDITS, number)
            }
            origins |= {(*_EDITS, first, *path): origin for path, origin in inside.items()}
        origins |= {(*_EDITS, place): where for place in range(first, len(spelled))}
    values = {**document.values, "reward": {**reward, "edits": spelled, "fingerprint": head}}
    return Document(values, origins, document.source)


def _is_listed(item: Any) -> bool:
    return isinstance(item, str) and "#" in item


def _listed_edits(text: str, where: str, head: str | None) -> ListedEdits:
    try:
        return edits_of_list(text, head)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{where}: {error}", hint=error.hint) from error


def _head_of(path: Path) -> str:
    """The head that a features file names; empty where it names none, and `select` then refuses the file."""
    try:
        return str(read_json_object(path)["head"])
    except (DataError, KeyError):
        return ""
