"""A penalty that finds its own size: it holds the firing rate of a latent at a target.

This is dual ascent on `maximise reward subject to rate <= target`. A PI controller moves the multiplier
instead of a plain gradient: a policy integrates its reward, and the integral of an integral oscillates.
Everything here is in logits of the rate and in SDs of the reference reward.

In the tests, simulated policies of nine kinds (speeds 1 : 8, momentum 0, 0.66 and 0.9; 96 answers, 40 steps,
from a rate of 0.6) are held at 0.1: the mean rate of the last third is within 0.05 in 5 of 5 seeds of each,
while no fixed alpha from 0.5 to 4 SDs holds three speeds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.penalties import Penalty, watched_columns
from sarm_control.errors import TrainingError
from sarm_control.reward_model import RESIDUAL, Scored

# The gains are the middle of a plateau of a random search on simulated policies (SGD, momentum and Adam,
# speeds 1 : 8, 32 to 256 answers, 40 to 200 steps) and of PPO on a tiny model. tests/control/one_logit.py
# is such a policy, tests/training/test_target_rate.py such a run.
PROPORTIONAL = 1.5
"""SDs of penalty per logit of error."""
INTEGRAL = 0.2
"""SDs of penalty gained per logit of error and step."""
FULL_GAIN_RATE = 0.1
"""Errors count less for targets above this, by the root of the ratio of rate (1 - rate): a policy's logit
moves in proportion to rate (1 - rate), so it moves faster near a half."""
LEAD = 5.0
"""Steps by which the error is extrapolated along its trend: an optimizer with momentum reacts late."""
SMOOTHING = 0.2
"""Weight of the newest difference in the trend, which is an exponential mean."""
MOST_ERROR = 2.0
"""Errors are limited to +-this many logits, so that the rate does not overshoot from far away."""
MOST_SDS = 10.0
"""The largest penalty, in SDs: beyond it, it dominates the whitened advantages."""

_PREFIX = "target_rate"
_RESIDUAL_NUMBER = -1


class Multiplier(NamedTuple):
    """The size of one penalty and the state of its controller; immutable.

    Args:
        batches: how many it has seen; before the first the penalty is 0.
        error: logit of the last rate less that of the target, weighted by the target (`FULL_GAIN_RATE`).
        trend: smoothed change of the error per step.
        integral: SDs, 0..MOST_SDS.
    """

    batches: int = 0
    error: float = 0.0
    trend: float = 0.0
    integral: float = 0.0

    @property
    def sds(self) -> float:
        """The size of the penalty in SDs of the reference reward, 0..MOST_SDS."""
        return min(max(self._unlimited, 0.0), MOST_SDS)

    @property
    def _ahead(self) -> float:
        return min(max(self.error + LEAD * self.trend, -MOST_ERROR), MOST_ERROR)

    @property
    def _unlimited(self) -> float:
        return PROPORTIONAL * self._ahead + self.integral

    def after(self, fired: int, answers: int, target: float) -> "Multiplier":
        """The multiplier after a batch in which `fired` of `answers` answers fired.

        The rate enters as `(fired + 1/2) / (answers + 1)`, so that it has a logit even if none or all fired.
        The integral does not move while the penalty is at a limit and the error would push it further.
        """
        error = _weight(target) * (_logit((fired + 0.5) / (answers + 1)) - _logit(target))
        change = error - self.error - self.trend
        # the exponential mean of differences; the first batch has none
        trend = self.trend + SMOOTHING * change if self.batches else 0.0
        moved = Multiplier(self.batches + 1, error, trend, self.integral)
        # anti-windup: an integral that kept growing at a limit would delay the way back
        at_limit = moved._unlimited <= 0 if moved._ahead < 0 else moved._unlimited >= MOST_SDS
        if at_limit:
            return moved
        # inside 0..MOST_SDS by itself: the penalty is, and it moves further with the error than the integral
        return moved._replace(integral=self.integral + INTEGRAL * moved._ahead)


class TargetRates:
    """The multipliers of all penalties with a `target_rate`; only `learn` moves them.

    Args:
        penalties: those with a target rate, at most one per latent.
    """

    def __init__(self, penalties: Sequence[Penalty]) -> None:
        self.penalties = tuple(penalties)
        self._multipliers = [Multiplier() for _ in self.penalties]

    def sds(self, penalty: Penalty) -> float | None:
        """The current size of a penalty, in SDs of the reference reward; None without a target rate."""
        latents = [known.latent for known in self.penalties]
        return self._multipliers[latents.index(penalty.latent)].sds if penalty.latent in latents else None

    def learn(self, scored: Scored) -> None:
        """Moves every penalty by its firing rate in a batch; call it after the batch was scored.

        Raises:
            ConfigError: a tau is still symbolic.
        """
        for i, penalty in enumerate(self.penalties):
            assert penalty.target_rate is not None
            fires = penalty.fires(watched_columns(scored, [penalty.latent])[:, 0])
            fired = int(np.count_nonzero(fires))
            self._multipliers[i] = self._multipliers[i].after(fired, len(fires), penalty.target_rate)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The latents, [P] int64, -1 for the residual, and the multipliers, [P, 4] float64; empty if none."""
        if not self.penalties:
            return {}
        latents = np.array([_number(penalty) for penalty in self.penalties], dtype=np.int64)
        return {
            f"{_PREFIX}.latents": latents,
            f"{_PREFIX}.multipliers": np.array(self._multipliers, dtype=np.float64),
        }

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            TrainingError: the arrays are missing or belong to other penalties.
        """
        ours = self.state_dict()
        for name in ours:
            if name not in arrays:
                raise TrainingError(f"the saved control state has no {name}")
        if not ours:
            return
        saved, latents = arrays[f"{_PREFIX}.latents"].tolist(), ours[f"{_PREFIX}.latents"].tolist()
        if saved != latents:
            raise TrainingError(
                f"the saved control state has target rates of latents {saved}, these controls of {latents}",
                hint="resume with the penalties the run was started with",
            )
        rows = arrays[f"{_PREFIX}.multipliers"].tolist()
        self._multipliers = [Multiplier(int(batches), *rest) for batches, *rest in rows]


def _number(penalty: Penalty) -> int:
    return _RESIDUAL_NUMBER if penalty.latent == RESIDUAL else int(penalty.latent)


def _weight(target: float) -> float:
    full = FULL_GAIN_RATE * (1.0 - FULL_GAIN_RATE)
    return min(1.0, math.sqrt(full / (target * (1.0 - target))))


def _logit(rate: float) -> float:
    return math.log(rate / (1.0 - rate))
