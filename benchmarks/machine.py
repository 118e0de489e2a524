"""What a timing is recorded with: the processor, its threads, and whether other work ran beside."""

from typing import Any

import torch

from sarm_control.study.provenance import processor


def machine(load: float) -> dict[str, Any]:
    """The record.

    Args:
        load: the load average before the timing; above 1 other work ran beside.
    """
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "load_average": load,
        "busy": load > 1,
    }
