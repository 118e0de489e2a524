"""Checks a reward model against recorded rewards, in steps of bfloat16.

Recorded rewards were rounded to bfloat16 (8 significant bits), so two correct implementations differ by a
step or two. Near 0 a step is tiny, but the rounding inside the trunk is not. A reward recorded there may be
many steps off by a difference without importance, so the largest difference in reward units is reported too.

Shapes: `N` recorded rows, `S` steered latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, edit_delta
from sarm_control.data import Row, read_rows
from sarm_control.errors import DataError
from sarm_control.reward_model import Scored

PUBLISHED_STEERED_LATENTS = (48659, 28879, 26446, 46231, 25241)
"""The latents multiplied by 0 in the published run on Llama-SARM-4B."""

_SMALLEST_EXPONENT = -126
_MANTISSA_BITS = 7

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recorded:
    """Rows with recorded rewards.

    Args:
        rows: N answer rows.
        reward: [N] recorded rewards.
        steered: [N] recorded rewards with the steered latents multiplied by 0; NaN where not recorded.
        active: for each row the steered latents recorded as active; None where not recorded.
    """

    rows: list[Row]
    reward: Floats
    steered: Floats
    active: list[frozenset[int] | None]

    @property
    def has_steering(self) -> bool:
        """Whether any row has a record of the steered latents."""
        return bool(np.isfinite(self.steered).any()) or any(latents is not None for latents in self.active)


class Outside(NamedTuple):
    """A row that differs from its record by more than the tolerance."""

    where: str
    recorded: float
    found: float
    steps: float


@dataclass(frozen=True)
class RewardCheck:
    """How close N rewards are to their records.

    Args:
        name: the field compared, `reward` or `reward_steered`.
        n: number of rows compared.
        largest: the largest difference, in steps at the recorded value.
        largest_absolute: the largest difference, in reward units.
        outside: the rows beyond the tolerance, in the file's order.
    """

    name: str
    n: int
    largest: float
    largest_absolute: float
    outside: tuple[Outside, ...]

    @property
    def share_within(self) -> float:
        """The share of rows within the tolerance, 0..1."""
        return 1.0 - len(self.outside) / self.n


class ActiveCheck(NamedTuple):
    """The number of rows, of n, in which exactly the recorded steered latents were active."""

    n: int
    equal: int


@dataclass(frozen=True)
class Verification:
    """The comparison of a reward model with recorded rewards.

    Activity is reported but does not decide: rounding may move a latent into or out of TopK, and one that
    matters shows in the steered rewards.

    Args:
        rewards: the comparison of each recorded reward field.
        active: the comparison of activity, where it was recorded.
        share: the share of rows that must be within the tolerance, 0..1.
    """

    rewards: tuple[RewardCheck, ...]
    active: ActiveCheck | None
    share: float = 1.0

    @property
    def passed(self) -> bool:
        """Whether enough rows of every reward field are within the tolerance."""
        return all(check.share_within >= self.share for check in self.rewards)


def bfloat16_step(value: NDArray[np.floating[Any]]) -> Floats:
    """The distance from |value| to the next larger bfloat16: `2^(floor(log2 |value|) - 7)`.

    Below the smallest normal number (2^-126), 0 included, it is the constant 2^-133.
    """
    # frexp gives |value| = m * 2^e with m in [0.5, 1), so floor(log2 |value|) = e - 1 without rounding
    _, exponent = np.frexp(np.abs(np.asarray(value, dtype=np.float64)))
    floor = np.where(np.asarray(value) == 0, _SMALLEST_EXPONENT, exponent - 1)
    step = np.ldexp(1.0, np.maximum(floor, _SMALLEST_EXPONENT) - _MANTISSA_BITS)
    return np.asarray(step, dtype=np.float64)


def read_recorded(path: Path) -> Recorded:
    """Reads answer rows that carry `reward` and perhaps `reward_steered` and `active_steered_latents`.

    Raises:
        DataError: `file:line: reason` for a row without a reward or with a field of another type.
    """
    rows = read_rows(path, want={"answer"})
    rewards = [_number(row, "reward") for row in rows]
    missing = next((row for row, reward in zip(rows, rewards, strict=True) if reward is None), None)
    if missing is not None:
        raise DataError(
            f"{missing.where}: no reward field: has keys [{', '.join(missing.raw)}]",
            hint='a recorded row is {"prompt", "response", "reward"}',
        )
    return Recorded(
        rows,
        np.array(rewards, dtype=np.float64),
        np.array([_number(row, "reward_steered") for row in rows], dtype=np.float64),
        [_active(row) for row in rows],
    )


def verify(
    recorded: Recorded,
    scored: Scored,
    *,
    steered_latents: Sequence[int] = (),
    steps: float = 2.0,
    share: float = 1.0,
) -> Verification:
    """Compares scores with their records.

    Args:
        recorded: N rows with records.
        scored: the scores of those rows, in their order.
        steered_latents: [S] the latents whose removal `reward_steered` records.
        steps: the tolerance, in bfloat16 steps at the recorded value.
        share: the share of rows that must be within it, 0..1.
    """
    rewards = scored.rewards.astype(np.float64)
    checks = [_compare("reward", recorded, recorded.reward, rewards, steps)]
    if np.isfinite(recorded.steered).any():
        removed = rewards + edit_delta(scored, [Edit(latent, scale=0.0) for latent in steered_latents])
        checks.append(_compare("reward_steered", recorded, recorded.steered, removed, steps))
    return Verification(tuple(checks), _compare_active(recorded, scored, steered_latents), share)


def _compare(name: str, recorded: Recorded, wanted: Floats, found: Floats, steps: float) -> RewardCheck:
    compared = np.flatnonzero(np.isfinite(wanted))
    difference = np.abs(found - wanted)[compared]
    in_steps = difference / bfloat16_step(wanted[compared])
    # a NaN reward is outside too; `in_steps > steps` would be False for it
    far = np.flatnonzero(~(in_steps <= steps))
    outside = [
        Outside(
            recorded.rows[compared[i]].where,
            float(wanted[compared[i]]),
            float(found[compared[i]]),
            float(in_steps[i]),
        )
        for i in far
    ]
    return RewardCheck(name, len(compared), float(in_steps.max()), float(difference.max()), tuple(outside))


def _compare_active(recorded: Recorded, scored: Scored, steered_latents: Sequence[int]) -> ActiveCheck | None:
    if not any(latents is not None for latents in recorded.active):
        return None
    z = scored.latents.columns(steered_latents)
    ids = np.array(steered_latents)
    pairs = [
        (latents, frozenset(ids[z[j] != 0].tolist()))
        for j, latents in enumerate(recorded.active)
        if latents is not None
    ]
    return ActiveCheck(len(pairs), sum(wanted == found for wanted, found in pairs))


def _number(row: Row, name: str) -> float | None:
    value = row.raw.get(name)
    if value is None:
        return None
    # a bool is an int to Python, and no reward
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{row.where}: {name} is not a number")
    return float(value)


def _active(row: Row) -> frozenset[int] | None:
    value = row.raw.get("active_steered_latents")
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(latent) is int for latent in value):
        raise DataError(f"{row.where}: active_steered_latents is not a list of latent numbers")
    return frozenset(value)
