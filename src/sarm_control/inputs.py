"""Inputs that have a name and no place of their own: standard input, pipes, data sets of the hub.

What such a name stands for is copied once, by the reader of data files; from then on everybody who needs
the bytes (a second pass, the hash of a manifest, another process) finds the copy here.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sarm_control.embedded import data_file, is_data_name

STANDARD_INPUT: Final = Path("-")
HUB_PREFIX: Final = "hf:"


class Copy(NamedTuple):
    """The copy of an input.

    Args:
        place: where it lies.
        name: what manifests call the input; with the revision of a hub's data set.
    """

    place: Path
    name: str


_COPIES: dict[str, Copy] = {}


def is_hub_name(path: Path) -> bool:
    """Whether a path is the name of a data set on the hub: `hf:owner/name`."""
    return str(path).startswith(HUB_PREFIX)


def is_input_name(path: Path) -> bool:
    """Whether a path is no place on disk that can be opened twice; names of the embedded world are none."""
    return is_data_name(path) or is_hub_name(path) or path == STANDARD_INPUT or str(path) in _COPIES


def input_file(path: Path) -> Path:
    """Where the bytes of an input lie: its copy if there is one, or where the name says.

    Raises:
        DataError: the embedded world has no file of that name.
    """
    copy = _COPIES.get(str(path))
    return data_file(path) if copy is None else copy.place


def name_of_input(path: Path) -> str:
    """What manifests call an input that `is_input_name`."""
    copy = _COPIES.get(str(path))
    return str(path) if copy is None else copy.name


def keep_copy(path: Path, copy: Copy) -> None:
    """Remembers the copy of an input, for this process."""
    _COPIES[str(path)] = copy


def copies_of(paths: Iterable[Path]) -> dict[str, Copy]:
    """The copies that there are of some inputs: for another process, see `know_copies`."""
    return {str(path): _COPIES[str(path)] for path in paths if str(path) in _COPIES}


def know_copies(copies: Mapping[str, Copy]) -> None:
    """Takes over what another process has copied."""
    _COPIES.update(copies)
