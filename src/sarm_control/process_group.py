"""The process group of torch.distributed that connects launched processes."""

from datetime import timedelta
from typing import Any


def join_group(backend: str, *, timeout: timedelta, **where: Any) -> None:
    """`torch.distributed.init_process_group`, so that `destroy_process_group` can end the group's threads.

    Functions of `torch.distributed.nn` have the group of all processes as a default argument. If that module
    is first imported after the group was made, for example by transformers, these defaults keep the group for
    ever. A thread of gloo that frees a tensor while Python shuts down then aborts the process: "terminate
    called without an active exception". So the module is imported before the group is made.

    Args:
        backend: gloo, nccl, or a pair of device and backend for each device.
        timeout: the longest time that one process waits for another.
        where: `store`, `rank` and `world_size`; without them they come from the environment.
    """
    import torch.distributed.nn.functional  # noqa: F401
    from torch import distributed

    distributed.init_process_group(backend, timeout=timeout, **where)
