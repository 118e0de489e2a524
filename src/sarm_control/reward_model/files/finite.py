"""Numbers that are none: in stored weights, and in what a model makes of an answer.

Shapes: `N` answers.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sarm_control.errors import ModelError
from sarm_control.reward_model.files.checkpoint import TensorEntry
from sarm_control.reward_model.scored import Scored

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OnNonfinite: TypeAlias = Literal["raise", "keep"]
_TYPES = ("float64", "float32", "bfloat16", "float16")


class NonFiniteError(ModelError):
    """Rewards or latents that are NaN or infinite.

    Args:
        message: see `SarmError`.
        hint: see `SarmError`.
        rows: the answers they belong to, ascending.
        cause: what gave them, in words.
    """

    def __init__(self, message: str, *, hint: str, rows: NDArray[np.intp], cause: str) -> None:
        super().__init__(message, hint=hint)
        self.rows = rows
        self.cause = cause


def check_weights(
    tensors: Iterable[tuple[str, "Tensor"]], entries: Mapping[str, TensorEntry], name: str
) -> None:
    """Refuses weights that are NaN or infinite; each is read once.

    Args:
        tensors: by their names in the model, which may lack the prefix they have in a file.
        entries: where they are stored.
        name: what to call the model in errors.

    Raises:
        ModelError: naming the tensor, its file, the place and the value.
    """
    for key, tensor in tensors:
        place = _first_not_finite(tensor)
        if place is None:
            continue
        value = float(tensor[place] if place else tensor)
        stored = next((full for full in (key, f"model.{key}", f"transformer.{key}") if full in entries), None)
        if stored is None:
            raise ModelError(
                f"{name}: {key}{list(place)}, computed from config.json, is {value}",
                hint="look at rope_theta, rope_scaling and the sizes in config.json",
            )
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(
            f"{name}: {stored}{list(place)} in {entries[stored].file.name} is {value} (as {kind})",
            hint="download the checkpoint again; what float16 cannot hold may fit with --dtype bfloat16",
        )


def not_finite_rows(scored: Scored) -> NDArray[np.intp]:
    """The answers whose reward or a latent is NaN or infinite, ascending."""
    bad = ~np.isfinite(scored.rewards)
    bad[scored.latents.row_ids()[~np.isfinite(scored.latents.values)]] = True
    return np.flatnonzero(bad)


def check_scored(scored: Scored, states: "Tensor", dtype: "torch.dtype") -> None:
    """Refuses rewards and latents that are no numbers: comparisons with them are false without a word.

    Args:
        scored: N answers.
        states: [N, D] the trunk's states they were made of.
        dtype: of the trunk.

    Raises:
        NonFiniteError: naming the rows, from 0, and what gave them.
    """
    rows = not_finite_rows(scored)
    if not len(rows):
        return
    kind = str(dtype).removeprefix("torch.")
    from_trunk = not bool(states[rows[0]].isfinite().all())
    cause = f"the {kind} trunk's state is not finite" if from_trunk else "autoencoder or head overflow"
    listed = ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
    raise NonFiniteError(
        f"the reward or a latent of {len(rows)} of {len(scored)} answers is not a finite number (rows "
        f"{listed}, from 0): {cause}",
        hint="a half-precision trunk may have overflowed: try dtype float32 (--dtype float32); else look at "
        "the weights",
        rows=rows,
        cause=cause,
    )


def _first_not_finite(tensor: "Tensor") -> tuple[int, ...] | None:
    """Where the first NaN or infinite element is; that there is none the extremes tell in one pass."""
    import torch

    if str(tensor.dtype).removeprefix("torch.") not in _TYPES or tensor.device.type == "meta":
        return None
    # NaN comes through a minimum and a maximum, so these two numbers tell of both kinds
    if tensor.numel() == 0 or all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor.detach())):
        return None
    found = (~torch.isfinite(tensor.detach())).nonzero()
    return tuple(int(place) for place in found[0])
