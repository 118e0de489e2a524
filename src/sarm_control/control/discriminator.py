"""The discriminator of the human-KL term: it scores a batch first and learns from it afterwards.

`present_value` estimates the current value of a quantity that drifts from noisy means of recent batches.

Shapes: `B` answers of a batch, `D` chosen latents, `M` answers in the replay window, `S` batches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.density_ratio.logistic import Array, Logistic, LogRatio, mean_variance
from sarm_control.control.density_ratio.mahalanobis import Distance, Mahalanobis
from sarm_control.control.density_ratio.model_check.linearity import Rows, check_linear
from sarm_control.control.density_ratio.separation import (
    area_under_curve,
    balanced_accuracy,
    calibration_slope,
    effective_sample_size,
    excess,
    is_saturated,
    lower_bound,
    sure_bound,
)
from sarm_control.control.human_kl import HumanKL
from sarm_control.errors import TrainingError
from sarm_control.latents import HumanBuffer, check_finite
from sarm_control.reward_model import Scored
from sarm_control.seeds import numpy_generator

_LEAST_FOR_A_TREND = 3


class Means(NamedTuple):
    """[S] means of batches and the variances of those means."""

    values: Array
    variances: Array

    @classmethod
    def of(cls, batches: Sequence[Array]) -> "Means":
        """The means of batches of numbers, oldest first; a batch of one number takes the variance of all."""
        spread = float(np.concatenate(batches).var())
        variances = [(batch.var(ddof=1) if len(batch) > 1 else spread) / len(batch) for batch in batches]
        return cls(np.array([batch.mean() for batch in batches]), np.array(variances))


class Present(NamedTuple):
    """An estimate of the current value, and its sampling variance."""

    value: float
    variance: float


def present_value(means: Means, *, half_life: float) -> Present:
    """The end of a line fitted to the means; the weight of a batch halves every `half_life` batches.

    A plain average would lag behind a moving value: a policy's divergence grows from step to step.
    With fewer than three batches the result is the weighted average.

    Args:
        means: of at least one batch, oldest first.
        half_life: batches, > 0.
    """
    count = len(means.values)
    age = np.arange(count - 1, -1, -1, dtype=np.float64)
    weight = 0.5 ** (age / half_life)
    # [S] what each mean counts for in the result
    share = weight / weight.sum()
    if count >= _LEAST_FOR_A_TREND:
        # weighted least squares: the fitted value at age 0 is linear in the means, so the trend is a
        # correction of their shares, and the variance follows from the same shares
        centred = age - share @ age
        share = share - (share @ age) * share * centred / (share @ centred**2)
    return Present(float(share @ means.values), float(share**2 @ means.variances))


_HELD_OUT_SHARE = 0.1
_HELD_OUT_MOST = 256
_LEAST_FOR_A_SLOPE = 8
_CHECKED_ROWS = 1024
_CHECKED_HALF_LIVES = 2
_UNKNOWN = math.nan
_CHECK = "human_kl.check"
_NOTHING_KNOWN = {
    "kl": 0.0,
    "kl_low": 0.0,
    "kl_high": 0.0,
    "accuracy": 0.5,
    "auc": 0.5,
    "saturated": 0.0,
    "model_fits": _UNKNOWN,
}


class HumanDivergence(NamedTuple):
    """How far a batch lies from the human buffer.

    Args:
        log_ratio: [B] nats, shrunk by the slope and clipped; exactly 0 before the first fit.
        info: `human_kl/` metrics, see `docs/human-kl.md`.
    """

    log_ratio: Array
    info: dict[str, float]

    @property
    def kl(self) -> float:
        """The estimate that is logged, nats; 0 before the first fit."""
        return self.info["human_kl/kl"]


@dataclass(frozen=True)
class _Batch:
    """A policy batch of the replay window: z [B, D], and the log ratios [B] it was scored with.

    The log ratios come from a ratio that had not seen the batch; None when there was none yet.
    """

    z: NDArray[np.float32]
    log_ratios: Array | None


class _Learnt(NamedTuple):
    """The result of a fit.

    Args:
        ratio: the log ratio with which later answers are scored.
        slope: the factor that fits held-out rows best, at most 1.
        variance: the variance of a mean log ratio that comes from the fitted parameters.
        accuracy: balanced accuracy on the rows of the fit.
        check: the result of the last linearity check.
    """

    ratio: LogRatio
    slope: float
    variance: float
    accuracy: float
    check: "_Check"


class _Check(NamedTuple):
    """Whether the log ratio is linear, see `KLEstimate.model_fits`, and the fits since that check."""

    model_fits: bool | None
    age: int

    def code(self) -> NDArray[np.int64]:
        """[2] for a checkpoint; -1 stands for not known."""
        return np.array([-1 if self.model_fits is None else self.model_fits, self.age], dtype=np.int64)

    @classmethod
    def of_code(cls, code: NDArray[Any]) -> "_Check":
        """Reads what `code` returned."""
        known, age = (int(number) for number in code)
        return cls(None if known < 0 else bool(known), age)


_UNCHECKED = _Check(None, 0)


class Discriminator:
    """A density ratio between the policy's recent answers and the human buffer.

    `score` never changes anything. `learn` adds a batch to the replay window and fits again on the whole
    window, in which older batches count less. So the parameters used at a step come from the batches of
    earlier steps, and before the first `learn` the log ratio is exactly 0. A tenth of the human rows
    (at most 256, drawn from `seed`) is held out from every fit. The accuracy and the slope come from these
    rows and from policy rows that were scored before any fit saw them.

    After the first fit, and then once every `half_life` fits, a check looks whether the log ratio of the
    newest batches is linear. Where it is not, the logged estimate is a lower bound.

    The fit depends on the gathered batch alone, so processes that learn from the same batch have bitwise
    equal parameters.
    """

    def __init__(self, config: HumanKL, human: HumanBuffer, seed: int) -> None:
        human.check_latents(config.latents)
        self.config = config
        self.human = human
        # the same rows for the whole run: one that was fitted on once would never be unseen again
        order = numpy_generator(seed, "human_kl held-out rows").permutation(len(human))
        held_out = max(1, min(_HELD_OUT_MOST, int(_HELD_OUT_SHARE * len(human))))
        features = human.features(human.values)
        self._held_out = features[np.sort(order[:held_out])]
        self._fitted_on = features[np.sort(order[held_out:])]
        compared = human.values[np.sort(order[held_out:])]
        self._compared = Rows.distinct(compared, self._fitted_on, _CHECKED_ROWS)
        self._seed = seed
        self._estimator = Mahalanobis() if config.estimator == "mahalanobis" else Logistic(l2=config.l2)
        # of all human rows: this distance is not fitted to the policy, so no row has to be held out from it
        self._distance = Distance.from_humans(features)
        self._window: list[_Batch] = []
        self._learnt: _Learnt | None = None

    def score(self, scored: Scored) -> HumanDivergence:
        """The log ratio of every answer, by the parameters fitted on earlier batches."""
        z = self._latents_of(scored)
        features = self.human.features(z)
        raw = np.zeros(len(z)) if self._learnt is None else self._learnt.ratio.at(features)
        slope = 1.0 if self._learnt is None else self._learnt.slope
        log_ratio = np.clip(slope * raw, -self.config.clip, self.config.clip)
        info = {
            "mean_log_ratio": float(log_ratio.mean()),
            "fitted": float(self._learnt is not None),
            "slope": slope,
            "logit_min": float(raw.min()),
            "logit_max": float(raw.max()),
            "clipped_share": float((np.abs(slope * raw) > self.config.clip).mean()),
            "unseen_share": float((z[:, self.human.rates == 0] > 0).any(axis=1).mean()),
            "coverage": self._coverage(z),
            "mahalanobis": self._distance.of(features),
            # without slope and clip: shrunk ratios suit single rows, but their mean is too small
            **self._estimate(raw),
        }
        return HumanDivergence(log_ratio, {f"human_kl/{name}": value for name, value in info.items()})

    def learn(self, scored: Scored) -> None:
        """Adds a batch to the replay window and fits again; call it after the batch was scored."""
        z = self._latents_of(scored)
        # scored before the fit below, so that these log ratios stay held out
        log_ratios = None if self._learnt is None else self._learnt.ratio.at(self.human.features(z))
        self._window = [*self._window, _Batch(z, log_ratios)][-self.config.replay :]
        policy = self.human.features(np.concatenate([batch.z for batch in self._window]))
        counts = np.concatenate(self._counts(self._window))
        start = None if self._learnt is None else self._learnt.ratio
        # before the new fit: ratios of fits that had not seen their rows are compared
        slope = self._slope(policy, counts)
        ratio = self._estimator.fit(policy, self._fitted_on, counts=counts, start=start)
        variance = mean_variance(ratio, policy, self._fitted_on, l2=self.config.l2, counts=counts)
        accuracy = balanced_accuracy(ratio.at(policy), ratio.at(self._fitted_on))
        self._learnt = _Learnt(ratio, slope, variance, accuracy, self._check(ratio))

    def _check(self, ratio: LogRatio) -> _Check:
        """Checks the newest batches alone: batches of a moving policy are a mixture, which is not linear."""
        if self._learnt is not None and self._learnt.check.age + 1 < self.config.half_life:
            return self._learnt.check._replace(age=self._learnt.check.age + 1)
        newest = self._window[-math.ceil(_CHECKED_HALF_LIVES * self.config.half_life) :]
        z = np.concatenate([batch.z for batch in newest])[-_CHECKED_ROWS:]
        policy = Rows.distinct(z, self.human.features(z))
        fits = check_linear(policy, self._compared, seed=self._seed, start=ratio).fits
        # the closed form also assumes Gaussians of one covariance, which the check does not test
        return _Check(None if fits and self.config.estimator == "mahalanobis" else fits, 0)

    def _estimate(self, raw: Array) -> dict[str, float]:
        """The current KL divergence from this batch and the trend before it, with interval and quality."""
        if self._learnt is None:
            return {**_NOTHING_KNOWN, "effective_sample_size": float(len(self._held_out))}
        # held out on both sides: each batch was scored before a fit saw it, and no fit sees these human rows
        log_ratios = [*(batch.log_ratios for batch in self._window if batch.log_ratios is not None), raw]
        held = self._learnt.ratio.at(self._held_out)
        now = present_value(Means.of(log_ratios), half_life=self.config.half_life)
        # two sources of error: the answers that were drawn, and the fit that they are measured with
        half = 1.96 * np.sqrt(now.variance + self._learnt.variance)
        policy = np.concatenate(log_ratios)
        accuracy = balanced_accuracy(policy, held)
        # rows with less weight count for less in the largest divergence that the samples can show
        rows = int(sum(count.sum() for count in self._counts(self._window))), len(self._fitted_on)
        value, low, high = now.value, float(now.value - half), float(now.value + half)
        # where the interval reaches beyond what the rows can show, the estimate is a lower bound
        saturated = is_saturated(high, accuracy, self._learnt.accuracy, rows)
        fits = self._learnt.check.model_fits
        misfit = fits is False
        if saturated or misfit:
            # a bound for the policy as it is now, so older batches are left out; only `sure_bound` holds for
            # ratios of a wrong form
            recent = np.concatenate(log_ratios[-math.ceil(self.config.half_life) :])
            least = lower_bound(recent, held) if saturated and not misfit else sure_bound(recent, held)
            # a wrong ratio's mean may exceed the divergence, less `excess` it may not (Donsker-Varadhan)
            value = min(value, least) if saturated else max(value - excess(held), 0.0)
            low, high = min(least if misfit else low, value), math.inf
        return {
            "kl": value,
            "kl_low": low,
            "kl_high": high,
            "accuracy": accuracy,
            "auc": area_under_curve(policy, held),
            "saturated": float(saturated),
            "model_fits": _UNKNOWN if fits is None else float(fits),
            "effective_sample_size": effective_sample_size(held),
        }

    def _slope(self, policy: Array, counts: Array) -> float:
        """The calibration slope of rows scored before a fit saw them; at first of a fit on every other row.

        1 where fewer than 8 human rows are held out: so few cannot distinguish noise from a difference.
        """
        if len(self._held_out) < _LEAST_FOR_A_SLOPE:
            return 1.0
        known = [batch for batch in self._window if batch.log_ratios is not None]
        if known and self._learnt is not None:
            log_ratios = np.concatenate([batch.log_ratios for batch in known if batch.log_ratios is not None])
            held = self._learnt.ratio.at(self._held_out)
            return calibration_slope(log_ratios, held, np.concatenate(self._counts(known)))
        half = self._estimator.fit(policy[::2], self._fitted_on, counts=counts[::2])
        return calibration_slope(half.at(policy[1::2]), half.at(self._held_out)) if len(policy) > 1 else 1.0

    def _counts(self, batches: list[_Batch]) -> list[Array]:
        """The weight of each row of the batches: it halves every `half_life` newer batches."""
        newest = len(batches) - 1
        return [
            np.full(len(batch.z), 0.5 ** ((newest - place) / self.config.half_life))
            for place, batch in enumerate(batches)
        ]

    def _coverage(self, z: NDArray[np.float32]) -> float:
        fired = (z > 0).any(axis=0)
        return float((self.human.rates[fired] > 0).mean()) if fired.any() else 1.0

    def _latents_of(self, scored: Scored) -> NDArray[np.float32]:
        self.human.check(scored.fingerprint, scored.model_fingerprint)
        z = scored.latents.columns(self.human.latents)
        check_finite(z, "the batch")
        return z

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything that was learnt, as arrays; of the human buffer only the digest."""
        empty = np.zeros((0, len(self.human.latents)), np.float32)
        learnt = self._learnt
        # ratios that are not known are zeros, since NaN would not compare equal; `window_told` marks them
        log_ratios = [
            np.zeros(len(batch.z)) if batch.log_ratios is None else batch.log_ratios for batch in self._window
        ]
        parameters = (
            np.zeros(0)
            if learnt is None
            # slope, variance and accuracy; the check has an entry of its own
            else np.array([*learnt.ratio.weight, learnt.ratio.intercept, *learnt[1:-1]])
        )
        return {
            "human_kl.parameters": parameters,
            "human_kl.window": np.concatenate([empty, *(batch.z for batch in self._window)]),
            "human_kl.window_log_ratios": np.concatenate([np.zeros(0), *log_ratios]),
            "human_kl.window_told": np.array(
                [batch.log_ratios is not None for batch in self._window], np.uint8
            ),
            "human_kl.window_lengths": np.array([len(batch.z) for batch in self._window], dtype=np.int64),
            "human_kl.buffer": np.frombuffer(self.human.digest, dtype=np.uint8).copy(),
            _CHECK: (_UNCHECKED if learnt is None else learnt.check).code(),
        }

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            TrainingError: the arrays are missing or belong to another human buffer.
        """
        try:
            names = [name for name in self.state_dict() if name != _CHECK]
            parameters, window, log_ratios, known, lengths, digest = (arrays[name] for name in names)
        except KeyError as error:
            raise TrainingError(f"the saved control state has no {error.args[0]}") from error
        if digest.tobytes() != self.human.digest:
            raise TrainingError(
                "the saved control state belongs to another human buffer",
                hint="resume with the demonstrations the run was started with",
            )
        ends = np.cumsum(lengths)[:-1]
        rows = zip(np.split(window.astype(np.float32), ends), np.split(log_ratios, ends), strict=True)
        # not strict: np.split makes one piece of an empty window too, which has no batch
        batches = [_Batch(z, t if k else None) for (z, t), k in zip(rows, known, strict=False)]
        self._window = batches if len(lengths) else []
        if len(parameters):
            *weight, intercept, slope, variance, accuracy = parameters.tolist()
            # checkpoints written before the check existed have no entry for it
            check = _Check.of_code(arrays.get(_CHECK, _UNCHECKED.code()))
            self._learnt = _Learnt(LogRatio(np.array(weight), intercept), slope, variance, accuracy, check)
        else:
            self._learnt = None
