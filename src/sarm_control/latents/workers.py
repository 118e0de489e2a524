"""Shards made by several processes of this machine, which end when this one does."""

import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from typing import TYPE_CHECKING

from sarm_control.errors import SarmError, TrainingError
from sarm_control.latents.extraction import Engine, Extractor, Job, Shard

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnContext, SpawnProcess

_SECONDS_TO_END = 5.0


def in_processes(count: int) -> Engine:
    """The engine of `count` processes, each with a model of its own.

    On GPUs the processes are dealt out to the devices in turn; on the CPU they share the cores.
    """

    @contextmanager
    def engine(job: Job, numbers: Sequence[int]) -> Iterator[Iterator[Shard]]:
        workers = [_Worker(job, place, count) for place in range(min(count, len(numbers)))]
        try:
            yield _shards(workers, list(numbers))
        finally:
            for worker in workers:
                worker.end()

    return engine


class _Worker:
    """A process, and this end of the pipe to it."""

    def __init__(self, job: Job, place: int, count: int) -> None:
        context: SpawnContext = get_context("spawn")
        self.place = place
        self.pipe, far = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(far, job, place, count), daemon=True, name=f"sarm-latents-{place}"
        )
        self.process.start()
        far.close()

    def ask(self, numbers: list[int]) -> None:
        """Gives the next shard to make, if there is one left."""
        if numbers:
            with contextlib.suppress(BrokenPipeError):  # what happened is told where its answer is awaited
                self.pipe.send(numbers.pop(0))

    def answer(self) -> Shard:
        """The shard it made.

        Raises:
            SarmError: what went wrong there.
            TrainingError: the process is gone.
        """
        try:
            found = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join(_SECONDS_TO_END)
            raise TrainingError(
                f"worker {self.place} ended ({_ending(self.process.exitcode)})",
                hint="go on with --resume; if the memory was too small, with fewer --workers",
            ) from None
        if isinstance(found, Shard):
            return found
        raise found

    def end(self) -> None:
        """Ends the process, gently first."""
        self.pipe.close()
        self.process.terminate()
        self.process.join(_SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _shards(workers: Sequence[_Worker], numbers: list[int]) -> Iterator[Shard]:
    waiting = len(numbers)
    for worker in workers:
        worker.ask(numbers)
    while waiting:
        ready = connection.wait([worker.pipe for worker in workers])
        for worker in workers:
            if worker.pipe in ready and waiting:
                shard = worker.answer()
                waiting -= 1
                worker.ask(numbers)
                yield shard


def _serve(pipe: "Connection", job: Job, place: int, count: int) -> None:
    """The life of a worker: shards as they are asked for, until the pipe or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and ends its workers
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        extractor = Extractor(_placed(job, place, count))
        while True:
            pipe.send(extractor.shard(pipe.recv()))
    except EOFError:
        return
    except SarmError as error:
        pipe.send(error)
    except Exception:
        pipe.send(RuntimeError(f"in worker {place}:\n{traceback.format_exc()}"))


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _placed(job: Job, place: int, count: int) -> Job:
    import torch

    device = job.model.device
    if torch.cuda.is_available() and device in (None, "cuda"):
        device = f"cuda:{place % torch.cuda.device_count()}"
        return replace(job, model=replace(job.model, device=device))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    return job


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
