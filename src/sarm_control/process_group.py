"""The process group of torch.distributed that launched processes talk through."""

from datetime import timedelta
from typing import Any


def join_group(backend: str, *, timeout: timedelta, **where: Any) -> None:
    """`torch.distributed.init_process_group`, such that `destroy_process_group` ends the group's threads.

    Functions of `torch.distributed.nn` take the group of all processes as the default of an argument. When
    they are first imported after the group was made, as happens on the way to transformers, those
    defaults hold it for ever, and a thread of gloo that lets go of a tensor while Python shuts down then
    aborts the process: "terminate called without an active exception".

    Args:
        backend: gloo, nccl, or a pair of device and backend for each device.
        timeout: the longest that one process waits for another.
        where: `store`, `rank` and `world_size`; from the environment when not given.
    """
    import torch.distributed.nn.functional  # noqa: F401
    from torch import distributed

    distributed.init_process_group(backend, timeout=timeout, **where)
