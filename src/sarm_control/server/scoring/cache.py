"""A cache of sparse latents of conversations scored before; the key is their exact token ids.

The cache does not depend on the controls. They are applied to cached latents in the same way as to new ones.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sarm_control.reward_model import FloatArray, IndexArray

_OVERHEAD = 400
"""Bytes of an entry beside the contents of its arrays: the array objects, the key object, the table entry."""


class Latents(NamedTuple):
    """The stored pairs of one conversation: `indices` [K] int32 ascending, `values` [K] float32.

    `own` is what a reward model's own head gives it, in reward units; 0 for a SARM, which has none.
    """

    indices: IndexArray
    values: FloatArray
    own: float = 0.0


def cache_key(input_ids: Sequence[int]) -> bytes:
    """The token ids as bytes, not a hash: two conversations have the same key only if they are the same."""
    return np.asarray(input_ids, dtype=np.int32).tobytes()


class LatentCache:
    """The most recently used conversations of one model. Several threads may use it.

    Args:
        most_bytes: approximate size of keys and latents together; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, Latents] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Approximate bytes in use."""
        return self._bytes

    def get(self, key: bytes) -> Latents | None:
        """The latents of a conversation, or None. The conversation then counts as recently used."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: bytes, latents: Latents) -> None:
        """Keeps the latents of a conversation; drops the least recently used ones to make room."""
        if not self._most_bytes:
            return
        # copies, since a view would keep the arrays of its whole batch in memory
        own = Latents(latents.indices.copy(), latents.values.copy(), latents.own)
        with self._lock:
            self._subtract(self._entries.pop(key, None), key)
            self._entries[key] = own
            self._bytes += _size(key, own)
            while self._bytes > self._most_bytes:
                oldest, dropped = self._entries.popitem(last=False)
                self._subtract(dropped, oldest)

    def _subtract(self, latents: Latents | None, key: bytes) -> None:
        self._bytes -= 0 if latents is None else _size(key, latents)


def _size(key: bytes, latents: Latents) -> int:
    return len(key) + latents.indices.nbytes + latents.values.nbytes + _OVERHEAD
