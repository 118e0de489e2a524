"""The decoder of a dictionary, left in its file: answers are scored without it.

Shapes: `D` hidden size, `L` latents.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sarm_control.errors import ModelError
from sarm_control.reward_model.files.checkpoint import TensorEntry

if TYPE_CHECKING:
    from hashlib import _Hash

COLUMNS = 1024
"""Latents that are read at once: few, since an allocator keeps what blocks of some 10 MB took."""


class Columns(NamedTuple):
    """Columns `places` of a decoder, `weight` [D, at most COLUMNS] float32."""

    places: slice
    weight: Tensor


class StoredDecoder:
    """A decoder [D, L] in a safetensors file, read whole once while it is made, and again when asked for.

    What is read later is compared with what was read first, by a digest of its numbers: a file that was
    replaced or written to since would give other directions than those of the model in memory, which nobody
    would notice.

    Args:
        entry: where it lies.
        tensor: its name there.
        name: what to call the model in errors.
    """

    def __init__(self, entry: TensorEntry, tensor: str, name: str) -> None:
        self._entry = entry
        self._tensor = tensor
        self._name = name
        self.finite = True
        """Whether all its numbers were finite."""
        digest = hashlib.sha256()
        for columns in self._read(digest):
            self.finite = self.finite and bool(torch.isfinite(columns.weight).all())
        self._digest = digest.digest()

    @property
    def shape(self) -> tuple[int, ...]:
        """D and L."""
        return self._entry.shape

    def columns(self) -> Iterator[Columns]:
        """All columns in order; what they are used for is right only once the last was taken.

        Raises:
            ModelError: the file is gone, or its decoder is another one than when the model was loaded; of
                the latter after the last columns.
        """
        digest = hashlib.sha256()
        yield from self._read(digest)
        if digest.digest() != self._digest:
            raise self._changed("holds another decoder now")

    def whole(self) -> Tensor:
        """[D, L] float32 in memory of its own.

        Raises:
            ModelError: see `columns`.
        """
        # what is made in inference mode could never be trained or edited outside it
        with torch.inference_mode(False):
            weight = torch.empty(self.shape, dtype=torch.float32)
            for columns in self.columns():
                weight[:, columns.places] = columns.weight
        return weight

    def _read(self, digest: "_Hash") -> Iterator[Columns]:
        from safetensors import SafetensorError, safe_open

        file, latents = self._entry.file, self.shape[1]
        try:
            # The mapping of the file goes when it is closed, and its pages with it.
            with safe_open(file, framework="pt") as stream:
                said = stream.get_slice(self._tensor)
                if tuple(said.get_shape()) != self.shape:
                    raise self._changed(f"holds a decoder of the shape {said.get_shape()} now")
                for start in range(0, latents, COLUMNS):
                    places = slice(start, min(start + COLUMNS, latents))
                    # a copy, also of a slice that is whole already: no view of the file gets out
                    weight = torch.empty(self.shape[0], places.stop - start, dtype=torch.float32)
                    weight.copy_(said[:, places])
                    digest.update(weight.numpy().reshape(-1).data)
                    yield Columns(places, weight)
        except FileNotFoundError as error:
            raise self._changed("is gone") from error
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise self._changed(f"cannot be read any more: {reason}") from error

    def _changed(self, what: str) -> ModelError:
        return ModelError(
            f"{self._name}: the decoder was left in {self._entry.file}, which {what}",
            hint="load the reward model again, from a folder that stays as it is while it is in use",
        )
