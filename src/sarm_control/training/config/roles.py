"""What a run is in a comparison: without control, controlled, or a placebo.

The manifest of a run holds its role; it is no setting, since it changes nothing in training. Runs and
comparisons of earlier versions have none there, and are told by their controls and the name of their folder.
"""

from typing import Any, Final, Literal, get_args

from sarm_control.bounded_json import shown
from sarm_control.errors import ConfigError, SarmError

Role = Literal["no control", "controlled", "placebo"]

NO_CONTROL: Final[Role] = "no control"
CONTROLLED: Final[Role] = "controlled"
PLACEBO: Final[Role] = "placebo"
"""Controls that know nothing of what harms, such as the same ones on latents drawn by chance."""

ROLE: Final = "role"
"""The key of a manifest and of an arm in a comparison."""

_PLACEBO_FOLDERS = ("random", "placebo")


def derived_role(*, controls: bool) -> Role:
    """The role of a run that names none.

    Args:
        controls: whether anything changes its reward.
    """
    return CONTROLLED if controls else NO_CONTROL


def settled_role(given: Role | None, *, controls: bool) -> Role:
    """The role that was asked for, or the one that the controls say.

    Args:
        given: what was asked for; None leaves it to the controls.
        controls: whether anything changes the reward of the run.

    Raises:
        ConfigError: the controls belie it.
    """
    if given is None:
        return derived_role(controls=controls)
    if controls and given == NO_CONTROL:
        raise ConfigError(
            f"the role is to be {given}, but the run has controls",
            hint="take them out, or leave the role out",
        )
    if not controls and given != NO_CONTROL:
        raise ConfigError(
            f"the role is to be {given}, but the run has no edits, penalties, patterns or human-KL term",
            hint="give the controls, or leave the role out",
        )
    return given


def known_role(word: Any, where: str, error: type[SarmError]) -> Role:
    """The role that a file names.

    Args:
        word: what the file holds.
        where: the file, for the message.
        error: the type of error that is raised.

    Raises:
        SarmError: of the type `error`, naming the allowed words, where it is none of them.
    """
    known: tuple[Role, ...] = get_args(Role)
    for role in known:
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
