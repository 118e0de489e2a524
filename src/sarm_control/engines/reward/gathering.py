"""The scores of all processes as one batch."""

from typing import NamedTuple

from sarm_control.reward_model import Scored


class Gathered(NamedTuple):
    """The answers of every process, in the order of their ranks.

    Args:
        scored: the same in each process.
        own: the rows of this process in it.
    """

    scored: Scored
    own: slice


def gather(scored: Scored) -> Scored:
    """The answers of every process in the order of their ranks; the result is the same in each process.

    Without a `torch.distributed` process group it is `scored` itself. Controls that learn from the gathered
    batch learn the same in each process.
    """
    return gather_with_place(scored).scored


def gather_with_place(scored: Scored) -> Gathered:
    """As `gather`, with the place of this process's answers. Processes may have different numbers of them."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Gathered(scored, slice(0, len(scored)))
    gathered: list[Scored | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, scored)
    parts = [part for part in gathered if part is not None]
    before = sum(len(part) for part in parts[: dist.get_rank()])
    return Gathered(Scored.concatenate(parts), slice(before, before + len(scored)))
