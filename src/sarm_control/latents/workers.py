"""Makes shards in several processes of this machine, which end when this process ends."""

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

    On GPUs each process gets one device, in turn. On the CPU the processes share the cores.
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
    """A process, and the pipe to it."""

    def __init__(self, job: Job, place: int, count: int) -> None:
        # not fork: CUDA does not work in a fork of a process that has used it, and locks held by torch's
        # threads would stay held
        context: SpawnContext = get_context("spawn")
        self.place = place
        self.pipe, far = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(far, job, place, count), daemon=True, name=f"sarm-latents-{place}"
        )
        self.process.start()
        # the worker has its own copy; with this one open, the pipe of a dead worker would never end
        far.close()

    def ask(self, numbers: list[int]) -> None:
        """Sends the number of the next shard, if one is left."""
        if numbers:
            with contextlib.suppress(BrokenPipeError):  # `answer` reports why the process is gone
                self.pipe.send(numbers.pop(0))

    def answer(self) -> Shard:
        """The shard that the process made.

        Raises:
            SarmError: the error of the process.
            TrainingError: the process is gone.
        """
        try:
            received = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join(_SECONDS_TO_END)
            raise TrainingError(
                f"worker {self.place} ended ({_ending(self.process.exitcode)})",
                hint="continue with --resume; if there was too little memory, use fewer --workers",
            ) from None
        if isinstance(received, Shard):
            return received
        raise received

    def end(self) -> None:
        """Ends the process; kills it if it does not end in a few seconds."""
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
                # before the shard is handed on, so that the worker computes while it is written
                worker.ask(numbers)
                yield shard


def _serve(pipe: "Connection", job: Job, place: int, count: int) -> None:
    """Runs in the worker: makes the shards that are asked for, until the pipe or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        extractor = Extractor(_placed(job, place, count))
        while True:
            pipe.send(extractor.shard(pipe.recv()))
    except EOFError:
        return
    except SarmError as error:
        pipe.send(error)
    # the class of such an error may not survive pickling; as text its traceback reaches the parent
    except Exception:
        pipe.send(RuntimeError(f"in worker {place}:\n{traceback.format_exc()}"))


def _end_with_the_parent() -> None:
    # a parent that exits in order ends its daemons, one that is killed cannot: they would keep the GPUs
    parent = parent_process()
    if parent is not None:
        parent.join()
        # sys.exit in a thread would end the thread alone
        os._exit(1)


def _placed(job: Job, place: int, count: int) -> Job:
    import torch

    device = job.model.device
    if torch.cuda.is_available() and device in (None, "cuda"):
        device = f"cuda:{place % torch.cuda.device_count()}"
        return replace(job, model=replace(job.model, device=device))
    # each process would start as many threads as there are cores; a number that the user set is left alone
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    return job


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
