"""Scores of all processes as one batch."""

from sarm_control.sarm.scored import Scored


def gather(scored: Scored) -> Scored:
    """The answers of every process, in the order of their ranks; the same in each of them.

    Without a `torch.distributed` process group it is `scored` itself. What learns from the gathered
    batch learns the same everywhere.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return scored
    parts: list[Scored | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, scored)
    return Scored.concatenate([part for part in parts if part is not None])
