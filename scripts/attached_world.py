"""Makes the embedded world's second reward model.

    python scripts/attached_world.py

It goes beside the SARM, into src/sarm_control/lab/world; a world of `sarm lab build --attached` has its own.
"""

import shutil

import torch

from sarm_control.console import progress, say
from sarm_control.lab import World, build_attached

PARTS = ("classifier", "attached")


def main() -> None:
    """Replaces what is there; equal bytes on the same machine."""
    torch.set_num_threads(1)
    world = World.open("lab")
    for name in PARTS:
        shutil.rmtree(world.path / name, ignore_errors=True)
    build_attached(world, world.path, progress=progress, say=say)


if __name__ == "__main__":
    main()
