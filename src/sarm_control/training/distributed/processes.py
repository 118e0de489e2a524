"""Several processes that train one policy, started by `accelerate launch` or `torchrun`.

Every process holds the whole policy and reward model and runs the same program. Each gets its slice of the
work: prompts to sample, answers to score, micro-batches to run forward and backward. The results are
gathered.
Everything after that (controls, advantages, whitening, clipping, AdamW) is done by every process on the same
numbers, so their states stay equal without being sent. Only the main process, rank 0, writes files.

There is no wrapper around the model. Data-parallel training needs only one sum of the gradients before each
optimizer step, and with that a process may have fewer micro-batches than another, or none.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sarm_control.errors import ConfigError, SarmError, TrainingError
from sarm_control.process_group import join_group
from sarm_control.training.distributed.launcher import ShardingKind, check_launched_alone, sharding_of

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")
_LONGEST = timedelta(hours=2)
# 64 MiB in float32
_BUCKET = 2**24
_REPORTED = "sarm-control/reported"


@dataclass(frozen=True)
class Processes:
    """This process and those that train with it; `Processes()` is a single one, which sends nothing.

    All processes must call the methods that send, in the same order. These raise `TrainingError` if another
    process has ended.

    Args:
        rank: the number of this process, from 0.
        count: how many there are.
        device: of its models; None leaves the choice to them.
        sharding: what is sharded: nothing (`none`); the policy's layers (`layers`); or the same, but a layer
            that was gathered for the forward pass is kept for the backward pass (`gradients`).
    """

    rank: int = 0
    count: int = 1
    device: str | None = None
    sharding: ShardingKind = "none"

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def rank_slice(self, items: Sequence[_T]) -> list[_T]:
        """This process's slice of the items: every `count`-th from `rank` on; may be empty."""
        # micro-batches are sorted by length: in turn, each process gets long and short ones alike
        return list(items[self.rank :: self.count])

    def lacks(self, items: int) -> bool:
        """Whether `rank_slice` gives this process one item fewer than another."""
        # the first `items % count` processes have one item more
        return self.rank >= items % self.count > 0

    def part(self, size: int) -> slice:
        """This process's contiguous part of 0..size-1, in the order of ranks; may be empty."""
        # a part ends where the next one begins, and sizes differ by one at most
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)

    def gather(self, value: _T) -> list[_T]:
        """The values of all processes, in the order of ranks; any Python object that can be pickled."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        with _others_alive():
            distributed.all_gather_object(values, value)
        return values

    def from_main(self, work: Callable[[], _T]) -> _T:
        """Does `work` in the main process only, and returns its result in all."""
        if self.count == 1:
            return work()
        from torch import distributed

        # if it fails, the main process ends, and the others learn of that by the closed connection
        values: list[Any] = [work() if self.is_main else None]
        with _others_alive():
            distributed.broadcast_object_list(values, src=0)
        result: _T = values[0]
        return result

    def all_reduce(self, tensors: Sequence["Tensor"]) -> None:
        """Replaces tensors of one type and device by their sums over all processes, in place.

        Every process gets the same bits. The sum of one number and zeros is exact.
        """
        if self.count == 1:
            return
        import torch
        from torch import distributed

        for bucket in _buckets(tensors):
            # one message for many small tensors: the time of a message hardly depends on its size
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with _others_alive():
                distributed.all_reduce(flat)
            sums = flat.split([tensor.numel() for tensor in bucket])
            for tensor, total in zip(bucket, sums, strict=True):
                tensor.copy_(total.view_as(tensor))

    def all_reduce_gradients(self, weights: Sequence["Tensor"]) -> None:
        """Sums gradients over the processes; a weight without a gradient in any process keeps none.

        FSDP has summed the gradients of sharded weights already.
        """
        if self.count == 1:
            return
        import torch

        for weight in weights:
            if _is_sharded(weight) and weight.grad is not None:
                # FSDP took the mean over processes. The losses were divided by the tokens of all of them
                # already, so it is the sum that is wanted.
                weight.grad.mul_(self.count)
        weights = [weight for weight in weights if not _is_sharded(weight)]
        # AdamW skips a weight without a gradient, so all processes must agree on which have one
        has = torch.tensor([float(weight.grad is not None) for weight in weights])
        self.all_reduce([has])
        used = [weight for weight, processes in zip(weights, has.tolist(), strict=True) if processes]
        for weight in used:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        self.all_reduce([weight.grad for weight in used if weight.grad is not None])


ALONE = Processes()
"""A single process."""


@contextlib.contextmanager
def connected() -> Iterator[Processes]:
    """Connects the processes that a launcher started; yields a single process without a launcher.

    Launchers set `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`. Each process takes the
    GPU number `LOCAL_RANK`; without GPUs all use the CPU. An error is raised in the process that met it first
    and ends the others silently (exit code 2), so that it is reported once.

    Raises:
        ConfigError: there are more processes than GPUs on this machine, only one of several was started, or
            the launcher's configuration asks for something unsupported.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        check_launched_alone(os.environ)
        yield ALONE
        return
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, count = next(rendezvous("env://", timeout=_LONGEST))
    # NCCL carries tensors on GPUs; gloo carries those on the CPU and the Python objects of `gather`
    kind = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    join_group(kind, timeout=_LONGEST, store=store, rank=rank, world_size=count)
    succeeded = False
    try:
        with _reported_once(store), _ended_is_interrupted():
            yield Processes(rank, count, device, sharding_of(os.environ))
        succeeded = True
    finally:
        if succeeded or device == "cpu":  # NCCL could wait here forever for a process that failed
            distributed.destroy_process_group()


def _device(local_rank: int) -> str:
    import torch

    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        return "cpu"
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own: there are {gpus}",
            hint="start as many processes as there are GPUs",
        )
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"


@contextlib.contextmanager
def _reported_once(store: Any) -> Iterator[None]:
    """Lets one process report an error: often all meet it, and all notice when one has ended."""
    try:
        yield
    except (SarmError, OSError, KeyboardInterrupt) as error:
        try:
            # counted in one place, so exactly one process gets 1
            reported = store.add(_REPORTED, 1) > 1
        except RuntimeError:  # the process that holds the store has ended
            reported = False
        if reported:
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        raise


@contextlib.contextmanager
def _ended_is_interrupted() -> Iterator[None]:
    """Treats SIGTERM, with which a launcher ends its processes, as Ctrl-C, so that a run stops cleanly."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # SIGTERM raises KeyboardInterrupt, for which a run already cleans up
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _others_alive() -> Iterator[None]:
    """Names the cause of the RuntimeError that gloo and NCCL raise when a connection is closed."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another of the launched processes ended", hint="see its message or the launcher's"
        ) from error


def _is_sharded(weight: "Tensor") -> bool:
    return hasattr(weight, "full_tensor")


def _buckets(tensors: Sequence["Tensor"]) -> Iterator[list["Tensor"]]:
    """Groups of tensors that are sent together, of about `_BUCKET` numbers."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(each.numel() for each in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
