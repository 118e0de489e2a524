"""Several processes that train one policy, started by `accelerate launch` or `torchrun`.

Every process holds the whole policy and reward model and runs the same program. Work is dealt out:
prompts to sample, answers to score, micro-batches to run forward and backward. Results are gathered, and
all that follows (controls, advantages, whitening, clipping, AdamW) is done by every process on the same
numbers, so their states stay the same without ever being sent. Only the first writes.

There is no wrapper around the model: one sum of the gradients before each optimizer step is all that
data-parallel training needs, and it leaves a process free to have fewer micro-batches than another, or none.
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
_BUCKET = 2**24
_REPORTED = "sarm-control/told"


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; `Processes()` is one alone, for which nothing is sent.

    All must call the methods that send, in the same order. If one has ended, they raise `TrainingError`.

    Args:
        rank: the number of this process, from 0.
        count: how many there are.
        device: where its models go; None leaves it to them.
        sharding: what lies in parts, one in each process: nothing; the policy's layers; or the same, but a
            layer that was gathered for the forward pass is kept for the backward pass.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None
    sharding: ShardingKind = "none"

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def rank_slice(self, items: Sequence[_T]) -> list[_T]:
        """This process's items when they are dealt out one by one; may be empty."""
        return list(items[self.rank :: self.count])

    def lacks(self, items: int) -> bool:
        """Whether this process is dealt one item fewer than another."""
        return self.rank >= items % self.count > 0

    def part(self, size: int) -> slice:
        """This process's part of 0..size-1; the parts follow each other by rank, some may be empty."""
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)

    def gather(self, value: _T) -> list[_T]:
        """The values of all processes by rank; Python objects that can be pickled."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        with _others_alive():
            distributed.all_gather_object(values, value)
        return values

    def from_main(self, work: Callable[[], _T]) -> _T:
        """What `work` returns in the first process, where alone it is done."""
        if self.count == 1:
            return work()
        from torch import distributed

        values: list[Any] = [work() if self.is_main else None]
        with _others_alive():
            distributed.broadcast_object_list(values, src=0)
        result: _T = values[0]
        return result

    def all_reduce(self, tensors: Sequence["Tensor"]) -> None:
        """Replaces tensors of one type and device by their sums over all processes, in place.

        Sums are the same to the bit in every process; a sum of one number and zeros is exact.
        """
        if self.count == 1:
            return
        import torch
        from torch import distributed

        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with _others_alive():
                distributed.all_reduce(flat)
            sums = flat.split([tensor.numel() for tensor in bucket])
            for tensor, total in zip(bucket, sums, strict=True):
                tensor.copy_(total.view_as(tensor))

    def all_reduce_gradients(self, weights: Sequence["Tensor"]) -> None:
        """Sums gradients; a weight no process has a gradient of keeps none, as it would in one process.

        FSDP has the gradients of weights in parts added up already.
        """
        if self.count == 1:
            return
        import torch

        for weight in weights:
            if _in_parts(weight) and weight.grad is not None:
                weight.grad.mul_(self.count)  # FSDP took their mean
        weights = [weight for weight in weights if not _in_parts(weight)]
        has = torch.tensor([float(weight.grad is not None) for weight in weights])
        self.all_reduce([has])
        used = [weight for weight, processes in zip(weights, has.tolist(), strict=True) if processes]
        for weight in used:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        self.all_reduce([weight.grad for weight in used if weight.grad is not None])


ALONE = Processes()
"""One process, with nobody to talk to."""


@contextlib.contextmanager
def connected() -> Iterator[Processes]:
    """The processes a launcher started, connected with each other; one process without a launcher.

    `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT` are what launchers set. On GPUs each
    process takes number `LOCAL_RANK`; without, all use the CPU. An error inside is raised by the
    process that met it first and ends the others without a word (exit code 2), so it is told once.

    Raises:
        ConfigError: more processes than GPUs on this machine, only one was started of several, or the
            launcher's configuration asks for what is not done here.
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
    kind = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    join_group(kind, timeout=_LONGEST, store=store, rank=rank, world_size=count)
    well = False
    try:
        with _reported_once(store), _ended_is_interrupted():
            yield Processes(rank, count, device, sharding_of(os.environ))
        well = True
    finally:
        if well or device == "cpu":  # NCCL might wait here for a process that failed
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
    """Lets one process tell what happened: an error is often met by all, and always noticed by all."""
    try:
        yield
    except (SarmError, OSError, KeyboardInterrupt) as error:
        try:
            reported = store.add(_REPORTED, 1) > 1
        except RuntimeError:  # the process that kept the store is gone
            reported = False
        if reported:
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        raise


@contextlib.contextmanager
def _ended_is_interrupted() -> Iterator[None]:
    """A launcher ends what is left of its processes by SIGTERM: then a run stops as it does on Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _others_alive() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another of the launched processes ended", hint="see its message or the launcher's"
        ) from error


def _in_parts(weight: "Tensor") -> bool:
    return hasattr(weight, "full_tensor")


def _buckets(tensors: Sequence["Tensor"]) -> Iterator[list["Tensor"]]:
    """Tensors in groups that are sent together, of about `_BUCKET` numbers."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(each.numel() for each in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
