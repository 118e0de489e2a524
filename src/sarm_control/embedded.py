"""Where the embedded world lies: the default model, policy and data of every command, offline.

The name `lab` stands for it wherever a model or a file is asked for; `./lab` is a folder of yours.
"""

from pathlib import Path
from typing import Literal

LAB = "lab"
WORLD = Path(__file__).parent / "lab" / "world"

Part = Literal["sarm", "policy"]


def embedded(name: str, part: Part) -> str:
    """The folder of the embedded SARM or policy if `name` is `lab`, else `name` itself."""
    return str(WORLD / part) if name == LAB else name
