"""Sparse latents of conversations scored before, keyed by their exact token ids.

Controls are no part of it: they are applied to what is found here as to what was just scored.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sarm_control.reward_model import FloatArray, IndexArray

_OVERHEAD = 400
"""Bytes of an entry beyond its arrays' contents: array objects, the key's, the table's."""


class Latents(NamedTuple):
    """The stored pairs of one conversation: `indices` [K] int32 ascending, `values` [K] float32.

    `own` is what a reward model's own head pays it, in reward units; 0 for a SARM, which has none.
    """

    indices: IndexArray
    values: FloatArray
    own: float = 0.0


def cache_key(input_ids: Sequence[int]) -> bytes:
    """The token ids themselves: two conversations have one key only if they are the same."""
    return np.asarray(input_ids, dtype=np.int32).tobytes()


class LatentCache:
    """The most recently used conversations, for one model; may be used from several threads.

    Args:
        most_bytes: of keys and latents together, about; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, Latents] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes in use, about."""
        return self._bytes

    def get(self, key: bytes) -> Latents | None:
        """The latents of a conversation, which then counts as used."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: bytes, latents: Latents) -> None:
        """Keeps the latents of a conversation and forgets those not used for longest."""
        if not self._most_bytes:
            return
        # a view would keep the arrays of its whole batch alive
        own = Latents(latents.indices.copy(), latents.values.copy(), latents.own)
        with self._lock:
            self._forget(self._kept.pop(key, None), key)
            self._kept[key] = own
            self._bytes += _size(key, own)
            while self._bytes > self._most_bytes:
                old, forgotten = self._kept.popitem(last=False)
                self._forget(forgotten, old)

    def _forget(self, latents: Latents | None, key: bytes) -> None:
        self._bytes -= 0 if latents is None else _size(key, latents)


def _size(key: bytes, latents: Latents) -> int:
    return len(key) + latents.indices.nbytes + latents.values.nbytes + _OVERHEAD
