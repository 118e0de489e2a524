"""A launched process that loads a model while it is connected, and says when the group outlives that.

Apart from its tests, whose imports would hide that the model's are the first.
"""

import sys
import weakref

from sarm_control.latents.ranks import launched
from sarm_control.reward_model import RewardModel
from sarm_control.training.distributed.processes import connected

GROUPS = {"sarm latents": launched, "sarm train": connected}


def work(command: str) -> None:
    with GROUPS[command]():
        from torch import distributed

        group = weakref.ref(distributed.group.WORLD)
        RewardModel.from_pretrained("lab")
    if group() is not None:
        sys.exit("the process group is still held")


if __name__ == "__main__":
    work(sys.argv[1])
