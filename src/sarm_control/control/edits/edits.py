"""Edits: changes of latents before the head.

Shapes: `N` answers, `L` latents.
An edit acts on the full vector z: an inactive latent has z = 0, and an edit may move it off 0.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from pydantic.dataclasses import dataclass

from sarm_control.control.edits.specs import (
    SPEC,
    check_latent,
    finite_number,
    latent_number,
    one_line_errors,
    unknown_key,
)
from sarm_control.errors import ConfigError
from sarm_control.reward_model import Scored, SparseLatents

_OPERATIONS = ("set", "max", "min", "scale", "add")
_EXAMPLES = "12345=0, 12345:max=2, 12345:min=0,max=2, 12345:*0.5 or 12345:+1"


@one_line_errors("edit")
@dataclass(frozen=True, config=SPEC)
class Edit:
    """A change of one latent before the head: `z -> f(z)`.

    `set` stands alone. The others may be combined and act in the order scale, add, then the limits
    min and max. Multiplying a head weight by c is the same as `scale=c`.

    Raises:
        ConfigError: a negative latent, no operation, `set` with another one, or min above max.
    """

    latent: int
    """The latent to change, 0..L-1."""
    set: float | None = None
    """The value z takes, for every answer."""
    max: float | None = None
    """The cap: z is at most this."""
    min: float | None = None
    """The floor: z is at least this."""
    scale: float | None = None
    """The factor z is multiplied by."""
    add: float | None = None
    """The amount added to z, for every answer, active or not."""

    @model_validator(mode="after")
    def _check(self) -> "Edit":
        check_latent(self.latent, "edit")
        given = [name for name in _OPERATIONS if getattr(self, name) is not None]
        if not given:
            hint = f"write it like {_EXAMPLES}"
            raise ConfigError(f"edit of latent {self.latent}: no operation", hint=hint)
        if "set" in given and len(given) > 1:
            raise ConfigError(f"edit of latent {self.latent}: set and {given[1]} cannot be combined")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError(f"edit of latent {self.latent}: min {self.min:g} is above max {self.max:g}")
        return self

    def apply(self, z: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """`f(z)` in float64, elementwise, same shape."""
        # a copy, since the operations below change it in place
        value = np.array(z, dtype=np.float64)
        if self.set is not None:
            return np.full_like(value, self.set)
        if self.scale is not None:
            value *= self.scale
        if self.add is not None:
            value += self.add
        return np.clip(value, self.min, self.max) if self._limited else value

    def head_factor(self) -> float:
        """The factor of the head weight that has the same effect: `w_i (c z_i) = (c w_i) z_i`.

        Raises:
            ConfigError: the edit is not a scaling, so that no head weight has the same effect.
        """
        if self.set == 0:
            return 0.0
        if self.scale is None or self.add is not None or self._limited:
            name = next(n for n in ("set", "add", "max", "min") if getattr(self, n) is not None)
            raise ConfigError(
                f"edit of latent {self.latent}: {name} is not a change of the head weight, "
                "because the head rewards in proportion to z",
                hint="only scalings and =0 are head edits; use the others as --edit or --edits-file",
            )
        return self.scale

    @property
    def _limited(self) -> bool:
        return self.min is not None or self.max is not None

    def __str__(self) -> str:
        """The command-line spelling, which `parse_edit` reads back."""
        # repr has all digits, so that what is read back is the same edit
        given = [f"{name}={getattr(self, name)!r}" for name in _OPERATIONS if getattr(self, name) is not None]
        return f"{self.latent}:{','.join(given)}"


def parse_edit(text: str) -> Edit:
    """Reads an edit from the command line.

    `12345=0` sets; `12345:max=2`, `12345:min=0,max=2`, `12345:scale=0.5`, `12345:add=1` name the
    operations; `12345:*0.5` and `12345:+1` (or `12345:-1`) are short for scale and add.

    Raises:
        ConfigError: the text is not an edit.
    """
    # the first of `:` and `=` ends the latent: `12:max=2` has both
    parts = re.fullmatch(r"([^:=]*)([:=])(.*)", text.strip())
    if parts is None:
        raise ConfigError(f"{text!r} is not an edit", hint=f"write it like {_EXAMPLES}")
    latent = latent_number(parts[1], text, _EXAMPLES)
    what = f"edit of latent {latent}"
    if parts[2] == "=":
        return Edit(latent, set=finite_number(parts[3], f"{what}: set"))
    return Edit(latent, **dict(_operation(part.strip(), what) for part in parts[3].split(",")))


def _operation(text: str, what: str) -> tuple[str, float]:
    if text[:1] == "*":
        return "scale", finite_number(text[1:], f"{what}: scale")
    if text[:1] in ("+", "-"):
        return "add", finite_number(text.removeprefix("+"), f"{what}: add")
    name, _, value = text.partition("=")
    if name.strip() not in _OPERATIONS:
        raise unknown_key(what, name.strip(), _OPERATIONS)
    return name.strip(), finite_number(value, f"{what}: {name.strip()}")


def check_one_edit_each(edits: Sequence[Edit]) -> None:
    """Refuses two edits of one latent, because their order would matter.

    Raises:
        ConfigError: naming the latent.
    """
    seen: set[int] = set()
    for edit in edits:
        if edit.latent in seen:
            raise ConfigError(f"latent {edit.latent} has two edits", hint="combine them in one edit")
        seen.add(edit.latent)


def apply_edits(latents: SparseLatents, edits: Sequence[Edit]) -> SparseLatents:
    """The edited latents [N, L].

    Every stored (index, value) pair stays stored, even when it is edited to 0. A pair is added wherever an
    edit moves an inactive latent off 0. Without edits the batch itself is returned.
    """
    if not edits:
        return latents
    edited = [edit.latent for edit in edits]
    keep = ~np.isin(latents.indices, edited)
    rows, indices, values = [latents.row_ids()[keep]], [latents.indices[keep]], [latents.values[keep]]
    for edit, z in zip(edits, latents.columns(edited).T, strict=True):
        moved = edit.apply(z).astype(np.float32)
        stored = np.zeros(len(latents), dtype=bool)
        stored[latents.row_ids()[latents.indices == edit.latent]] = True
        chosen = np.flatnonzero(stored | (moved != 0))
        rows.append(chosen)
        indices.append(np.full(len(chosen), edit.latent, dtype=np.int32))
        values.append(moved[chosen])
    return _from_pairs(np.concatenate(rows), np.concatenate(indices), np.concatenate(values), latents)


def _from_pairs(
    rows: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.float32], like: SparseLatents
) -> SparseLatents:
    # CSR order: by row, and by latent within a row
    order = np.lexsort((indices, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(like)))]).astype(np.int64)
    return SparseLatents(indptr, indices[order], values[order], like.size)


def edit_delta(scored: Scored, edits: Sequence[Edit]) -> NDArray[np.float64]:
    """[N] float64 change of the reward, exactly: `sum_i w_i (f(z_i) - z_i)` over the edited latents."""
    if not edits:
        return np.zeros(len(scored))
    chosen = [edit.latent for edit in edits]
    z = scored.latents.columns(chosen).astype(np.float64)
    moved = np.stack([edit.apply(column) for edit, column in zip(edits, z.T, strict=True)], axis=1)
    return np.asarray((moved - z) @ scored.head[chosen].astype(np.float64))


def edited_rewards(scored: Scored, edits: Sequence[Edit]) -> NDArray[np.float64]:
    """[N] the reward under the edits, rounded as `Scored.rewards` is. Answers are compared by it.

    It is summed again from the edited contributions, so that answers with equal contributions after the
    edits get equal rewards. `rewards + edit_delta` would keep the rounding of what the edits removed and
    break such ties by it. Scores that hold only some of the latents (a folder of chosen latents) cannot be
    summed again; for them that sum is the result.
    """
    if not edits:
        return scored.rewards.astype(np.float64)
    if not _holds_all(scored):
        return moved_rewards(scored, edit_delta(scored, edits))
    moved = scored.sums(apply_edits(scored.latents, edits))
    return moved.astype(np.float32).astype(np.float64)


def moved_rewards(scored: Scored, change: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., N] the rewards after known changes [..., N], rounded to float32 once: see `edited_rewards`."""
    return np.asarray(unrounded_rewards(scored) + change).astype(np.float32).astype(np.float64)


def unrounded_rewards(scored: Scored) -> NDArray[np.float64]:
    """[N] the rewards in float64 before rounding where the scores hold all latents, else `Scored.rewards`."""
    return scored.sums() if _holds_all(scored) else scored.rewards.astype(np.float64)


def _holds_all(scored: Scored) -> bool:
    # the same sum over the same pairs has the same bits, so equality is exact
    return np.array_equal(scored.sums().astype(np.float32), scored.rewards)
