"""The bytes that a computation would hold, counted without holding them.

Modules are made on the meta device and computed with fake tensors of PyTorch, which have a shape, a type and
a device, but no memory. So the very code of a run says what it keeps and when, at real widths, in seconds.
What the kernels themselves take for a moment, and what an allocator does not give back, is not seen.
"""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sarm_control.training import can_pack

Module = TypeVar("Module", bound=nn.Module)


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside a `with` block and are still held.

    Attributes:
        live: bytes held now.
        peak: most bytes held at once since `mark`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: dict[int, int] = {}

    def mark(self) -> int:
        """Begins a new peak at what is held now, and returns that."""
        self.peak = self.live
        return self.live

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs one operation and counts the storages of what it gives."""
        found = function(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        # a view, or the result of an operation in place
        if key in self._known:
            return
        self._known[key] = storage.nbytes()
        self.live += self._known[key]
        self.peak = max(self.peak, self.live)
        # a view shares its storage: the bytes go with the last tensor that has it
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._known.pop(key)


@cache
def _know_packed_weights() -> None:
    """Tells fake tensors that a packed weight is as large as the weight: PyTorch knows it in graphs only."""
    if can_pack():
        register: Any = torch.library.register_fake("mkldnn::_reorder_linear_weight")
        register(lambda weight, *_: torch.empty_like(weight))


@contextmanager
def counted() -> Iterator[LiveMemory]:
    """Inside, tensors have no memory, and what they would take is counted."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    _know_packed_weights()
    with FakeTensorMode(), LiveMemory() as live:
        yield live


def onto_device(module: Module, device: str = "cpu") -> Module:
    """A module of the meta device with weights as they would lie on a device; inside `counted` alone.

    Tensors that modules share stay shared, and what is trained stays trained.
    """
    known: dict[int, Tensor] = {}
    for part in module.modules():
        named: list[dict[str, Any]] = [part._parameters, part._buffers]
        for tensors in named:
            for name, tensor in tensors.items():
                if tensor is not None:
                    if id(tensor) not in known:
                        known[id(tensor)] = _like(tensor, device)
                    tensors[name] = known[id(tensor)]
    return module


def _like(tensor: Tensor, device: str) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def bytes_of(*modules: nn.Module) -> int:
    """Bytes of all weights and buffers; one that several modules share counts once."""
    tensors = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def weights_of(*modules: nn.Module) -> int:
    """How many weights there are; one that several modules share counts once."""
    return sum(w.numel() for w in {id(w): w for module in modules for w in module.parameters()}.values())
