"""What a run is in a comparison: without control, controlled, or a placebo.

The manifest of a run holds its role. Runs and comparisons of earlier versions have none there, and are told
by their controls and by the name of their folder.
"""

from typing import Any, Final, Literal, get_args

from sarm_control.bounded_json import shown
from sarm_control.errors import SarmError

Role = Literal["no control", "controlled", "placebo"]

NO_CONTROL: Final = "no control"
CONTROLLED: Final = "controlled"
PLACEBO: Final = "placebo"
"""Controls that know nothing of what harms, such as the same ones on latents drawn by chance."""

ROLE: Final = "role"
"""The key of a manifest, of an arm in a comparison and, below `reward`, of a run file."""

_PLACEBO_FOLDERS = ("random", "placebo")


def derived_role(*, controls: bool) -> Role:
    """The role of a run that names none.

    Args:
        controls: whether anything changes its reward.
    """
    return CONTROLLED if controls else NO_CONTROL


def known_role(word: Any, where: str, error: type[SarmError]) -> Role:
    """The role that a file names.

    Args:
        word: what the file holds.
        where: the file, for the message.
        error: the type of error that is raised.

    Raises:
        SarmError: of the type `error`, naming the allowed words, where it is none of them.
    """
    for role in get_args(Role):
        if word == role:
            return role
    allowed = ", ".join(map(repr, get_args(Role)))
    raise error(f"{where}: role is {shown(word)}; it may be {allowed}")


def inferred_role(name: str, *, controls: bool) -> Role:
    """The role of a run of an earlier version, whose manifest holds none.

    Args:
        name: of the run, or the path of its folder; a placebo is known by the last part of it.
        controls: whether anything changes its reward.
    """
    if controls and is_placebo_name(name):
        return PLACEBO
    return derived_role(controls=controls)


def is_placebo_name(name: str) -> bool:
    """Whether the last part of a run's name is one that people give to placebos: `random` or `placebo`."""
    return name.rsplit("/", 1)[-1] in _PLACEBO_FOLDERS
