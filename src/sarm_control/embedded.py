"""Names of what ships inside the package: `lab`, the embedded world, and its data files `lab:audit`, ...

`lab` always means the embedded world. Write `./lab` for a folder of that name, and put the folder before the
name of a file called `lab:audit`. Names are compared as text, because a `Path` drops the `./`.
"""

from pathlib import Path
from typing import Final, Literal

from sarm_control.errors import DataError, ModelError

LAB: Final = "lab"
"""The name of the embedded world, and of its models where a model is asked for."""

DATA: Final = ("audit", "demonstrations", "human", "preferences", "train_prompts", "held_out_prompts")
"""The world's JSON Lines files, each named `lab:NAME`."""

AUDIT: Final = Path("lab:audit")
TRAIN_PROMPTS: Final = Path("lab:train_prompts")
HELD_OUT_PROMPTS: Final = Path("lab:held_out_prompts")

_PREFIX = f"{LAB}:"
_WORLD = Path(__file__).parent / "lab" / "world"


def world_folder() -> Path:
    """The folder of the embedded world.

    Raises:
        ModelError: its files are missing in this installation.
    """
    if not (_WORLD / "world.json").is_file():
        raise ModelError(
            "lab: this installation of sarm-control lacks the embedded world",
            hint="install it again, or give a folder that sarm lab build made",
        )
    return _WORLD


def model_folder(name: str, part: Literal["sarm", "policy"]) -> Path | None:
    """The folder of the embedded SARM or policy when `name` is `lab`; None for every other name.

    Raises:
        ModelError: see `world_folder`.
    """
    return world_folder() / part if name == LAB else None


def is_data_name(path: Path) -> bool:
    """Whether a path is a name such as `lab:audit` (known or not) instead of a place on disk."""
    return len(path.parts) == 1 and path.name.startswith(_PREFIX)


def data_file(path: Path) -> Path:
    """The path of a data file: of `lab:audit` in the embedded world; any other path is returned as it is.

    Raises:
        DataError: the world has no file of that name.
        ModelError: see `world_folder`.
    """
    if not is_data_name(path):
        return path
    name = path.name.removeprefix(_PREFIX)
    if name not in DATA:
        raise DataError(
            f"{path}: the embedded world has no such file",
            hint=f"its files are {', '.join(_PREFIX + known for known in DATA)}",
        )
    return world_folder() / f"{name}.jsonl"
