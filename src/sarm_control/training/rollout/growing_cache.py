"""A key-value cache in memory with room for tokens to come.

transformers' own copies all keys and values for every new token, which for a long answer moves more bytes
than the weights. Here a token is written behind the others, and memory is taken anew when it is full.

Shapes: `N` rows, `H` heads of keys and values, `T` tokens, `D` size of a head.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

LEAST_ROOM = 64


class GrowingLayer(DynamicLayer):
    """The keys and values of one layer, [N, H, T, D] each; both are views of memory with room.

    Args:
        longest: tokens that there will be at most; there is never room for more.
    """

    def __init__(self, longest: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.longest = longest
        self._memory: tuple[Tensor, Tensor] | None = None

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *_args: Any,  # further arguments are for other kinds of layers
        **_kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Adds [N, H, new, D] keys and values, and returns all of them."""
        seen = self.get_seq_length()
        if not seen:
            # what is read first is repeated before the next token: it gets room only then
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            # as transformers lays them out, so that kernels round as with its cache
            self.keys, self.values = key_states.contiguous(), value_states.contiguous()
            return self.keys, self.values
        upto = seen + key_states.shape[-2]
        assert self.keys is not None
        assert self.values is not None
        if self._memory is None or self._memory[0].shape[-2] < upto:
            room = max(upto, min(upto + max(LEAST_ROOM, upto // 2), self.longest))
            self._memory = _with_room(self.keys, room), _with_room(self.values, room)
        keys, values = self._memory
        keys[:, :, seen:upto] = key_states
        values[:, :, seen:upto] = value_states
        self.keys, self.values = keys[:, :, :upto], values[:, :, :upto]
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats every row; the next token takes memory anew."""
        super().batch_repeat_interleave(repeats)
        self._memory = None

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps some rows; the next token takes memory anew."""
        super().batch_select_indices(indices)
        self._memory = None


def growing_cache(config: Any, longest: int) -> DynamicCache:
    """The cache of a decoder; layers that keep only a window of tokens are transformers' own.

    Args:
        config: of the model.
        longest: tokens of a row at most.
    """
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer(longest) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _with_room(found: Tensor, room: int) -> Tensor:
    """[N, H, T, D] at the beginning of [N, H, room, D]."""
    rows, heads, tokens, size = found.shape
    memory = torch.empty(rows, heads, room, size, dtype=found.dtype, device=found.device)
    memory[:, :, :tokens] = found
    return memory
