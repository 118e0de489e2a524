"""Random generators that are derived from names.

Every random phase makes a new generator from (seed, step, rank, purpose), so a resumed run needs no saved
generator state.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *parts: int | str) -> int:
    """A 63-bit seed that depends on `seed` and on every part, in order."""
    # a separator that no part contains: ("ab", "c") and ("a", "bc") give different seeds
    text = "\x1f".join(str(part) for part in (seed, *parts))
    # without the top bit: it fits where a seed is a signed number of 64 bits
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *parts: int | str) -> np.random.Generator:
    """A numpy generator for one named purpose."""
    return np.random.default_rng(derive_seed(seed, *parts))


def torch_generator(seed: int, *parts: int | str, device: str = "cpu") -> "torch.Generator":
    """A torch generator for one named purpose, on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *parts))
