"""Scores of all processes as one batch."""

from typing import NamedTuple

from sarm_control.reward_model import Scored


class Gathered(NamedTuple):
    """The answers of every process, in the order of their ranks.

    Args:
        scored: the same in each process.
        own: where in it the answers of this process are.
    """

    scored: Scored
    own: slice


def gather(scored: Scored) -> Scored:
    """The answers of every process, in the order of their ranks; the same in each of them.

    Without a `torch.distributed` process group it is `scored` itself. What learns from the gathered
    batch learns the same everywhere.
    """
    return gather_with_place(scored).scored


def gather_with_place(scored: Scored) -> Gathered:
    """As `gather`, and where this process's answers are; processes may hold different numbers of them."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Gathered(scored, slice(0, len(scored)))
    found: list[Scored | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, scored)
    parts = [part for part in found if part is not None]
    before = sum(len(part) for part in parts[: dist.get_rank()])
    return Gathered(Scored.concatenate(parts), slice(before, before + len(scored)))
