"""Processes of a launcher (`accelerate launch`, `torchrun`) that make one folder together."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from sarm_control.errors import SarmError, TrainingError
from sarm_control.process_group import join_group

_LONGEST = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process among the launched ones.

    Args:
        rank: its number, from 0.
        count: the number of processes.
    """

    rank: int = 0
    count: int = 1

    def of(self, shards: list[int]) -> list[int]:
        """The shards of this process: every `count`-th."""
        return [shard for shard in shards if shard % self.count == self.rank]

    def together(self, work: Callable[[], None], *, only_first: bool = False) -> None:
        """Runs `work` in every process, or only in the first, and waits until all are done.

        An error in one process ends all of them: otherwise the others would wait for it.

        Raises:
            SarmError: the error of this process, or a TrainingError that names the process that failed.
        """
        problem: SarmError | None = None
        if self.rank == 0 or not only_first:
            try:
                work()
            except SarmError as error:
                problem = error
        # The exchange is the barrier, too: nobody goes on before the last process has come. Errors of other
        # kinds are not caught: that process dies by its traceback, and its connection breaks for the others.
        reports = self._report(None if problem is None else str(problem))
        if problem is not None:
            # its own error first, so that the process that failed shows the full message and hint
            raise problem
        for rank, text in enumerate(reports):
            if text is not None:
                raise TrainingError(f"process {rank} stopped: {text}")

    def _report(self, text: str | None) -> list[str | None]:
        if self.count == 1:
            return [text]
        from torch import distributed

        reports: list[str | None] = [None] * self.count
        try:
            distributed.all_gather_object(reports, text)
        # gloo raises it when the connection to a process that is gone breaks
        except RuntimeError as error:
            raise TrainingError(
                "another of the launched processes ended", hint="see its message; continue with --resume"
            ) from error
        return reports


@contextmanager
def launched() -> Iterator[Ranks]:
    """Connects the processes of a launcher; without a launcher there is only this process."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    from torch import distributed

    # a long timeout: all processes wait for the slowest one
    join_group("gloo", timeout=_LONGEST)
    try:
        yield Ranks(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()
