"""Inputs with a name and no place of their own: the embedded world, standard input, pipes, the hub's data.

`lab` always means the world inside the package, `lab:audit` one of its data files; a folder of that name is
written `./lab`, a file called `lab:audit` with its folder in front. Names are compared as text, because a
`Path` drops the `./`. What another name (`-`, `hf:owner/name`) stands for is copied once, by the reader of
data files; from then on everybody who needs the bytes (a second pass, the hash of a manifest, another
process) finds the copy here.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from sarm_control.errors import DataError, ModelError

LAB: Final = "lab"
"""The name of the embedded world, and of its models where a model is asked for."""

LAB_ATTACHED: Final = "lab:attached"
"""The name of the embedded world's second reward model: a classifier with a dictionary attached."""

LAB_CLASSIFIER: Final = "lab:classifier"
"""The same classifier without its dictionary."""

LAB_MODELS: Final = (None, LAB, LAB_ATTACHED, LAB_CLASSIFIER)
"""What a model may be called where the embedded world's own rows are meant; None where it has no name."""

DATA: Final = ("audit", "demonstrations", "human", "preferences", "train_prompts", "held_out_prompts")
"""The world's JSON Lines files, each named `lab:NAME`."""

AUDIT: Final = Path("lab:audit")
TRAIN_PROMPTS: Final = Path("lab:train_prompts")
HELD_OUT_PROMPTS: Final = Path("lab:held_out_prompts")

STANDARD_INPUT: Final = Path("-")
HUB_PREFIX: Final = "hf:"

PIPES_OF_THE_SHELL: Final = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""What paths of files begin with that a shell has opened for this process."""

_FILE = "file:/"
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
    """The folder of the embedded SARM or policy when `name` is `lab`; None for names of nothing embedded.

    `lab:attached` is the embedded world's other reward model, and no policy; `lab:classifier` is that without
    its dictionary.

    Raises:
        ModelError: see `world_folder`.
    """
    if name in (LAB_ATTACHED, LAB_CLASSIFIER) and part == "sarm":
        return world_folder() / name.removeprefix(_PREFIX)
    return world_folder() / part if name == LAB else None


def name_of_model(folder: Path) -> str:
    """What a reward model's folder is called where it is pointed to: its path, or `lab:classifier`."""
    return LAB_CLASSIFIER if folder.resolve() == (_WORLD / "classifier").resolve() else str(folder.resolve())


def local_path(name: str | Path) -> Path:
    """The path that a name on a command line, in a run file or in Python means: that of a `file://` URL too.

    `Path` makes `file:/place` of `file:///place`; both are known. Other names are returned as they are.
    """
    text = str(name)
    if not text.startswith(_FILE):
        return Path(name)
    from urllib.parse import unquote

    return Path(unquote("/" + text.removeprefix(_FILE).lstrip("/").removeprefix("localhost/")))


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


def is_stream(path: Path) -> bool:
    """Whether a path is standard input or a pipe, whose bytes are gone once they are read.

    What a shell opens for one command (`/dev/fd/63` of `<(...)`) is another thing in the next.
    """
    return path == STANDARD_INPUT or str(path).startswith(PIPES_OF_THE_SHELL) or is_pipe(path)


def is_pipe(path: Path) -> bool:
    """Whether a pipe or a socket lies there; what cannot be looked at is told where it is opened."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


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
